"""A rehearsal of `evaluate.py accelerator` at toy size, and what it measures at full size."""

import dataclasses
import gc
import json
import subprocess
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from helpers.trained import loaded, setup

from stride_jax.checkpoints.pair import Pair
from stride_jax.cli.compilation_cache import quick_compilation
from stride_jax.errors import InputError
from stride_jax.evaluation import parity
from stride_jax.evaluation.config import AcceleratorConfig, Setup
from stride_jax.evaluation.job_file import name_of, read_rows
from stride_jax.evaluation.programs import Setting
from stride_jax.evaluation.results import write_results
from stride_jax.evaluation.tables import make_table
from stride_jax.testing import accelerator, accelerator_decoders

GOLDEN = str(Path(__file__).parents[1] / "golden")
TOY = {
    "rules": ("mean",),
    "pair_num_draft": 1,
    "layers": (1,),
    "d_model": 32,
    "num_vars": (1,),
    "batches": (2,),
    "patches": 2,
    "num_draft": (1,),
    "kinds": ("seasonal:96",),
    "dtypes": ("float32",),
    "training_batch": 2,
    "training_steps": 1,
    "exact_rules": ("maximal",),
    "exact_paths": 100,
    "repeats": 1,
    "processes": 0,
}


def test_the_full_size_has_every_cell_once() -> None:
    """A size, draft, dtype or rule that the page promises would not be measured."""
    jobs = accelerator.jobs_of(AcceleratorConfig())
    assert len({name_of(job) for job in jobs}) == len(jobs)
    assert Counter(job["kind"] for job in jobs) == {
        "trained pair": 8, "untrained pair": 16 + 4, "training": 8, "exactness": 3, "parity": 1
    }  # fmt: skip
    pairs = [job for job in jobs if job["kind"] == "untrained pair"]
    drafts = Counter(tuple(draft) for job in pairs for draft in job["drafts"])
    full = 4  # the batches of the deepest target with one variable
    kinds = ("autoregressive", "linear", "multi-patch", "seasonal:96")
    expected = {(kind, count): full for kind in kinds for count in (8, 34)}
    assert drafts == expected | {("autoregressive", 8): 20, ("linear", 8): 20}


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(AcceleratorConfig)])
def test_a_field_is_in_the_jobs_or_in_the_facts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of another size would be taken for those of this config when a run is resumed."""
    monkeypatch.setattr(accelerator, "_commit", lambda: "a")
    other = {"setup": Setup(horizons=(96,)), "rules": ("mean",), "exact_rules": ("block",)}
    other |= {"layers": (2,), "num_vars": (2,), "batches": (2,), "kinds": ("linear",)}
    other |= {"num_draft": (2,)}
    other |= {"dtypes": ("float32",), "golden": "elsewhere", "processes": 0}
    before = AcceleratorConfig(processes=0)
    after = dataclasses.replace(before, **{name: other.get(name, 500)})

    def known(config: AcceleratorConfig) -> tuple[object, object]:
        return accelerator.jobs_of(config), accelerator.facts_of(config)

    assert (known(before) == known(after)) == (name in ("processes", "minutes"))


def test_the_facts_say_where_and_of_what_but_not_into_which_directory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows of another device or commit would be mixed, or a moved directory refused."""
    config = AcceleratorConfig(processes=0)
    monkeypatch.setattr(accelerator, "_commit", lambda: "a")
    monkeypatch.setattr(accelerator, "_device", lambda: "a card")
    monkeypatch.setenv("XLA_FLAGS", "--fast")
    facts = accelerator.facts_of(config)
    found = (facts["commit"], facts["device"], facts["xla_flags"])
    assert found == ("a", "a card", "--fast")
    moved = dataclasses.replace(config, setup=dataclasses.replace(config.setup, out="elsewhere"))
    assert accelerator.facts_of(moved) == facts


@pytest.mark.slow
def test_the_target_of_an_untrained_pair_is_held_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every draft would bring a target of its own, and the largest batch would not fit."""
    built, make = [], accelerator_decoders.make

    def counted(*args: Any) -> Pair:
        pair = make(*args)
        built.append(weakref.ref(pair.target))
        return pair

    monkeypatch.setattr(accelerator_decoders, "make", counted)
    kinds = ("autoregressive", "seasonal:96", "linear")
    drafts = [[kind, 1] for kind in kinds]
    job = {"layers": 1, "num_vars": 1, "batch": 2, "dtype": "float32", "drafts": drafts}
    decoders, _ = accelerator_decoders.untrained_decoders(AcceleratorConfig(**TOY), job)
    gc.collect()
    held = [target() for target in built if target() is not None]
    assert len(held) == 1
    assert len(decoders) == 4
    assert all(decoder.target is held[0] for decoder in decoders)
    for decoder, name in zip(decoders[1:], kinds, strict=True):
        setting = Setting(d_model=32, layers=1, batch=2, num_draft=1, draft=name)
        expected = jax.tree.leaves(make(setting).draft)
        for a, b in zip(jax.tree.leaves(decoder.draft), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)


def test_a_result_that_is_changed_does_not_change_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run would write its table into the checkout, and so refuse the second run."""
    package, result = tmp_path / "package", tmp_path / "results.json"
    module = package / "testing" / "module.py"
    module.parent.mkdir(parents=True)
    for file in (module, result):
        file.write_text("1")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "First"]):
        subprocess.run([*git, *command], check=True)
    monkeypatch.setattr(accelerator, "__file__", str(module))
    first = accelerator._commit()
    result.write_text("2")
    assert accelerator._commit() == first
    module.write_text("2")
    assert accelerator._commit() == f"{first}-dirty"


@pytest.mark.parametrize(("horizon", "num_draft"), [(20, 3), (10, 2), (4, 1)])  # patches of 4
def test_no_patch_is_proposed_that_a_short_horizon_has_not(
    horizon: int, num_draft: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A week would pay for the proposals of four weeks, and look slower than it is."""
    monkeypatch.setattr(accelerator_decoders, "load", lambda setup: loaded())
    config = AcceleratorConfig(setup=setup(), **(TOY | {"pair_num_draft": 3}))
    job = {"horizon": horizon, "batch": 1}
    (alone, paired), batches = accelerator_decoders.trained_decoders(config, job)
    assert alone.draft is None
    assert paired.config.num_draft == num_draft
    assert len(batches) == config.repeats + 1


def rehearse(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """The rows of a run that is stopped after its training, and of the same command again."""
    for name in (*accelerator.ENVIRONMENT, "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.setenv(name, "unused")
    monkeypatch.setattr(accelerator_decoders, "load", lambda setup: loaded())
    config = AcceleratorConfig(setup=setup(out=str(folder)), golden=GOLDEN, **TOY)

    def stop(text: str) -> None:
        if '"training"' in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), quick_compilation():
        accelerator.accelerator(config, stop)
    before = read_rows(folder / "rows.jsonl")
    assert {row["kind"] for row in before} == {"trained pair", "untrained pair", "training"}
    with quick_compilation():
        report = accelerator.accelerator(config)
    rows = report.content["rows"]
    assert rows[: len(before)] == before
    assert report.content["missing"] == 0
    assert "error" not in {name for row in rows for name in row}

    # The page is made from the result file alone.
    write_results(folder, report.content)
    table = make_table(json.loads((folder / "results.json").read_text()))
    for title in ("Trained pair", "Untrained pair", "Training", "Exactness", "Parity"):
        assert f"**{title}**" in table
    later = dataclasses.replace(config, batches=(2, 3), minutes=1e-9)
    assert "2 jobs are not measured yet" in make_table(accelerator.accelerator(later).content)
    with pytest.raises(InputError, match="otherwise: d_model was 32 and is 64 now"):
        accelerator.accelerator(dataclasses.replace(config, d_model=64))
    pairs = [row for row in rows if row["kind"] == "untrained pair"]
    assert [row["method"] for row in pairs] == ["target", "speculative"]
    assert pairs[1]["accepted"] == 1.0
    return rows


def test_a_rehearsal_that_is_stopped_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first minutes on a rented machine would go into an error of this code.

    The decoders of the untrained pair are real, everything else that compiles is not.
    """
    quick = {"_trained": {"milliseconds": 1.0}, "_training": {"steps_per_second": 2.0}}
    for name, row in quick.items():
        monkeypatch.setattr(accelerator, name, lambda config, job, row=row: lambda: [row])
    monkeypatch.setattr(accelerator, "check", lambda *_, **rest: {"p": 0.5, "acceptance": 0.7})
    errors = {"case": "a", "outputs": 1e-6, "rolled": 2e-6}
    monkeypatch.setattr(parity, "compare", lambda path: errors)
    last = rehearse(tmp_path, monkeypatch)[-1]
    assert (last["kind"], last["outputs"], last["rolled"]) == ("parity", 1e-6, 2e-6)
    assert last["cases"] == len(parity.cases(Path(GOLDEN))) > 5


@pytest.mark.slow
def test_a_rehearsal_of_every_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kind of measurement would fail on the rented machine that works in no other test."""
    rows = rehearse(tmp_path, monkeypatch)
    assert [row["rule"] for row in rows if row["kind"] == "trained pair"] == [None, "mean"]
    (exact,) = (row for row in rows if row["kind"] == "exactness")
    assert exact["p"] > 0.001
    assert rows[-1]["outputs"] < 1e-4
    assert next(row["steps_per_second"] for row in rows if row["kind"] == "training") > 0
