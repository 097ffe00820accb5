"""The experiments on a trained pair: a first look, an evaluation, its speed."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.trained import CONTEXT, HORIZON, MODEL, PATCH, loaded, save_draft, setup, waves

from stride_jax.cli.flags import load_config
from stride_jax.config import from_dict
from stride_jax.data.config import DataConfig
from stride_jax.decoding.draft_length import Gain
from stride_jax.errors import InputError
from stride_jax.evaluation import experiments, grids, latency
from stride_jax.evaluation.config import EvaluateConfig, QuickConfig, SpeedConfig
from stride_jax.evaluation.experiments import evaluate, parse_draft_length, quick, run, speed
from stride_jax.evaluation.figures import save_pictures
from stride_jax.evaluation.figures.forecasts import save_forecast
from stride_jax.evaluation.picture import plotted
from stride_jax.evaluation.subject import build
from stride_jax.evaluation.tables import make_table
from stride_jax.testing import accelerator, fidelity

ROOT = Path(__file__).parents[2]
EXPERIMENTS = (accelerator, grids, latency, fidelity)
"""Modules whose experiments join `run` when they are imported."""
CONFIG = EvaluateConfig(
    setup=setup(),
    rules=("mean:tolerance=0", "maximal"),
    num_draft=2,
    num_paths=2,
    both_processes=True,
    season=5,
    timing_batch=2,
    repeats=1,
    plot_variable="b",
)


@pytest.fixture(scope="module")
def report():
    """One evaluation."""
    return evaluate(CONFIG, loaded=loaded())


@pytest.fixture(scope="module")
def rows(report):
    """Its rows as they are read from a file."""
    return json.loads(json.dumps(report.content))["rows"]


def windows():
    """The scored windows, `[windows, L + H, 2]`."""
    first, stop = waves().splits.test
    starts = range(first, stop - CONTEXT - HORIZON + 1, CONFIG.setup.stride)
    return np.stack([waves().values[s : s + CONTEXT + HORIZON] for s in starts])


# --- an evaluation -------------------------------------------------------------------------------


def test_there_is_a_row_for_every_decoder(report, rows):
    """Guards against a baseline, a draft or a rule that is left out, and results without origin."""
    names = ("output", "method", "process", "draft", "rule")
    draft = "last-value"
    expected = [
        ("mean", "target", "window", None, None),
        ("mean", "target", "cached", None, None),
        ("mean", "draft", "window", draft, None),
        ("mean", "speculative", "window", draft, "mean"),
        ("sample", "target", "window", None, None),
        ("sample", "target", "cached", None, None),
        ("sample", "draft", "window", draft, None),
        ("sample", "speculative", "window", draft, "maximal"),
    ]
    assert [tuple(row[name] for name in names) for row in rows] == expected
    assert {"hardware", "versions", "sigma"} <= set(report.content)
    config = json.loads(json.dumps(report.content["config"]))
    assert from_dict(EvaluateConfig, config) == CONFIG


def test_counts_of_the_rows_fit_together(rows):
    """Guards against counts of another path: passes and patches per round give N = 3 patches."""
    for row in rows:
        sampled, speculative = row["output"] == "sample", row["method"] == "speculative"
        if speculative:
            assert row["patches_per_round"] * row["target_passes"] == pytest.approx(3)
            assert 0 <= row["acceptance"] <= 1
            assert 0 <= row["expected_acceptance"] <= 1
        else:
            assert row["target_passes"] == (3 if row["method"] == "target" else 0)
        assert row["num_paths"] == (2 if sampled else 1)
        assert (row["crps"] is None) != sampled
        for name in ("acceptance", "drafted", "overflow", "num_draft"):
            assert (row[name] is None) != speculative
        assert row["tolerance"] == (0 if row["rule"] == "mean" else None)
        assert row["windows"] == len(windows())
        assert min(row["seconds"], row["compile_seconds"]) > 0


def test_speedups_are_over_the_same_output(rows):
    """Guards against an unfair ratio: sample paths timed against mean paths, or another process."""
    for row in rows:
        targets = {
            other["process"]: other["seconds"]
            for other in rows
            if (other["method"], other["output"]) == ("target", row["output"])
        }
        assert set(targets) == {"window", "cached"}
        assert row["speedup"] == pytest.approx(targets[row["process"]] / row["seconds"])
        assert row["speedup_over_fastest"] == pytest.approx(min(targets.values()) / row["seconds"])


def test_the_distance_is_from_the_target_s_forecast(rows):
    """Guards against a distance from the wrong path: tolerance 0 is the target itself."""
    mean = {(row["method"], row["process"]): row for row in rows if row["output"] == "mean"}
    assert mean["target", "window"]["distance"] is None
    assert mean["target", "cached"]["distance"] is None
    assert 0 <= mean["speculative", "window"]["distance"] < 1e-9
    assert mean["draft", "window"]["distance"] > 1e-3


def test_errors_are_those_of_every_window(report, rows):
    """Guards against a shifted truth, in the draft's row (the last value) and the naive score."""
    series = windows()
    truth = series[:, CONTEXT:]
    last = next(row for row in rows if (row["method"], row["output"]) == ("draft", "mean"))
    error = series[:, CONTEXT - 1 : CONTEXT] - truth
    assert last["mse"] == pytest.approx(np.mean(error**2), rel=1e-5)
    assert last["mae"] == pytest.approx(np.mean(np.abs(error)), rel=1e-5)
    error = series[:, [CONTEXT - 5 + ahead % 5 for ahead in range(HORIZON)]] - truth
    naive = report.content["seasonal_naive"]
    assert set(naive) == {str(HORIZON)}
    assert naive[str(HORIZON)]["mse"] == pytest.approx(np.mean(error**2), rel=1e-5)
    assert naive[str(HORIZON)]["mae"] == pytest.approx(np.mean(np.abs(error)), rel=1e-5)


def test_the_picture_shows_the_named_variable(report, tmp_path):
    """Guards against a picture of another variable or window, or in standardised units."""
    data, picture = waves(), report.picture
    first, stop = data.splits.test
    starts = range(first, stop - CONTEXT - HORIZON + 1, CONFIG.setup.stride)
    start = starts[len(starts) // 2]
    values = data.values[start : start + CONTEXT + HORIZON, 1] * data.std[1] + data.mean[1]
    np.testing.assert_allclose(picture.context, values[:CONTEXT][-HORIZON:], rtol=1e-5)
    np.testing.assert_allclose(picture.truth, values[CONTEXT:], rtol=1e-5)
    np.testing.assert_allclose(picture.draft, values[CONTEXT - 1], rtol=1e-5)
    paths = save_pictures(tmp_path, report.content, picture)
    assert [path.name for path in paths] == ["forecast.png", "trace.png"]
    for path in paths:
        assert path.read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "trace.csv").read_text().startswith("round,position")


def test_mean_paths_only(tmp_path):
    """Guards against sample paths that nobody asked for, which cost most of an evaluation."""
    config = dataclasses.replace(CONFIG, rules=(), num_paths=0, both_processes=False)
    report = evaluate(config, loaded=loaded())
    assert [row["method"] for row in report.content["rows"]] == ["target", "draft"]
    assert {row["output"] for row in report.content["rows"]} == {"mean"}
    assert save_pictures(tmp_path, report.content, report.picture) == []


@pytest.mark.slow
def test_scores_do_not_depend_on_the_batch_size(rows):
    """Guards against sample paths that change with what else is in the batch."""
    config = dataclasses.replace(CONFIG, setup=setup(batch_size=64))
    for row, other in zip(rows, evaluate(config, loaded=loaded()).content["rows"], strict=True):
        for name in ("mse", "crps", "acceptance", "expected_acceptance", "target_passes"):
            if other[name] is None:
                assert row[name] is None, name
            else:
                assert row[name] == pytest.approx(other[name], rel=1e-4), name


# --- a first look, and speed ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def look():
    """One first look."""
    return quick(QuickConfig(setup(), num_draft=2, windows=6), loaded=loaded())


def test_a_first_look_is_short(look):
    """Guards against a first command that compiles and shows more than a newcomer reads."""
    names = [(row["output"], row["method"], row["rule"]) for row in look.content["rows"]]
    assert names == [
        ("mean", "target", None),
        ("mean", "draft", None),
        ("mean", "speculative", "mean"),
        ("sample", "target", None),
        ("sample", "speculative", "block"),
    ]
    assert {row["num_paths"] for row in look.content["rows"]} == {1}
    assert look.picture.trace is None
    assert look.picture.unit == "a"


def test_a_first_look_counts_the_windows_that_there_are():
    """Guards against a caption of 80 windows where 17 were decoded, some of them five times."""
    lines, few = [], dataclasses.replace(setup(), stride=100)
    config = QuickConfig(few, rules=("mean:tolerance=1e6",), num_draft=1, windows=6)
    report = quick(config, lines.append, loaded())
    count = build(few, loaded()).windows(HORIZON).count
    assert count < 6
    assert {row["windows"] for row in report.content["rows"]} == {count}
    assert f"{count} test window" in make_table(report.content)
    assert any("the test split has" in line for line in lines)


def test_a_first_look_tells_drafts_apart(look):
    """Guards against rows of several drafts under one name."""
    content = json.loads(json.dumps(look.content))
    other = [dict(row, draft="another") for row in content["rows"] if row["method"] != "target"]
    content["rows"] += other
    lines = make_table(content).splitlines()
    rows = [line for line in lines if line.startswith("|")][2:]
    assert len({tuple(cell.strip() for cell in row.split("|")[1:3]) for row in rows}) == len(rows)


def test_a_variable_that_is_not_there_is_not_drawn():
    """Guards against the documented command, which would stop where a file has no temperature."""
    lines = []
    assert plotted("c", loaded(), lines.append) == 0
    assert lines == ["no variable 'c' to plot, so it is 'a' (--plot_variable). Known: a, b."]
    assert plotted("b", loaded(), lines.append) == 1
    assert plotted("", loaded(), lines.append) == 0
    assert len(lines) == 1


def test_tables_that_are_written_again_leave_the_pictures(look, tmp_path):
    """Guards against a picture that goes when the tables of its results are drawn again."""
    (tmp_path / "forecast.png").write_text("a week")
    assert save_pictures(tmp_path, look.content, None) == []
    assert (tmp_path / "forecast.png").read_text() == "a week"


@pytest.mark.slow
def test_speed_has_a_row_for_every_batch():
    """Guards against a missing batch size, and a batch compared with a single series."""
    config = SpeedConfig(
        setup(), ("mean:tolerance=1e6",), 1, both_processes=False, batches=(1, 2), repeats=1
    )
    content = json.loads(json.dumps(speed(config, loaded=loaded()).content))
    methods = ["target", "draft", "speculative", "target", "draft"]
    for size in (1, 2):
        group = [row for row in content["rows"] if row["batch"] == size]
        assert [row["method"] for row in group] == methods
        for row in group:
            target = next(
                r for r in group if (r["method"], r["output"]) == ("target", row["output"])
            )
            assert row["speedup"] == pytest.approx(target["seconds"] / row["seconds"])
    one, two = (r for r in content["rows"] if r["rule"])
    assert (one["acceptance"], one["acceptance_by_place"]) == (1.0, [1.0])
    assert one["target_passes"] == 2.0  # of three patches, K = 1
    assert one["memory_bytes"] < two["memory_bytes"]


# --- models and names ----------------------------------------------------------------------------


def test_auto_takes_the_process_that_a_model_was_trained_for():
    """Guards against a causal model decoded window by window, which it never saw in training."""
    causal = loaded(model=dataclasses.replace(MODEL, instance_norm="causal", variable_stride=0))
    assert build(setup(), causal).process == "cached"
    assert build(setup(), loaded()).process == "window"
    assert build(setup(process="window"), causal).process == "window"
    assert build(setup(process="cached"), loaded()).process == "cached"


def test_every_draft_has_its_own_rows(tmp_path):
    """Guards against a second draft that is missing, or measured under the first one's name."""
    names = ("seasonal:8", save_draft(tmp_path), "last-value")
    subject = build(setup(drafts=names), loaded())
    rules = experiments.parse_rules(("maximal", "block"), 2)
    decoders = experiments.pair_decoders(
        subject, rules, experiments.DecodeConfig(HORIZON, 2, num_paths=2)
    )
    found = [(d.label.draft, type(d.rule).__name__) for d in decoders if d.rule]
    assert found == [(name, rule) for rule in ("Maximal", "Block") for name in names]
    assert [d.label.draft for d in decoders if d.method == "draft"] == [*names, *names]
    for decoder in decoders:
        if decoder.draft is not None:
            assert decoder.draft is subject.pairs[decoder.label.draft].draft


def test_sigma_is_the_root_of_the_one_patch_error():
    """Guards against a sigma from another split or horizon, which changes every acceptance."""
    subject = build(setup(sigma=None, calibration_stride=3), loaded())
    first, stop = waves().splits.validation
    starts = range(first, stop - CONTEXT - PATCH + 1, 3)
    series = np.stack([waves().values[s : s + CONTEXT + PATCH] for s in starts])
    means = np.stack([subject.target.predict_patch(window).mean for window in series[:, :CONTEXT]])
    expected = np.sqrt(np.mean(np.square(means - series[:, CONTEXT:])))
    assert subject.sigma == pytest.approx(expected, rel=1e-5)


def test_a_draft_length_is_read_from_its_text():
    """Guards against a setting that is dropped without a word."""
    assert parse_draft_length("gain:draft_cost=0.25") == Gain(draft_cost=0.25)
    for text in ("gian", "gain:cost=1", "gain:draft_cost=x", "fixed:lower=1", "gain:draft_cost=-1"):
        with pytest.raises(InputError):
            parse_draft_length(text)


# --- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "fields", "message"),
    [
        ({"rules": ("maxmial",)}, {}, "maximal"),
        ({"rules": ("mean:tol=1",)}, {}, "tolerance"),
        ({"learned_scale": True}, {}, "residual"),
        ({"num_paths": 0}, {}, "'maximal' draws sample paths"),
        ({"draft_length": "long"}, {}, "long"),
        ({}, {"horizons": (HORIZON, 5000)}, "5016 rows"),
        ({}, {"drafts": ("nowhere.npz",)}, "nowhere"),
        ({}, {"drafts": ("last-value", "layer-skip:1")}, "more layers"),
        ({}, {"drafts": ("seasonal:16",)}, "period 16"),
        ({}, {"data": DataConfig(source="x.csv", context_len=40)}, "context of 16"),
    ],
)
def test_mistakes_show_before_the_work(changes, fields, message):
    """Guards against half an hour of work that a misspelt rule throws away."""
    lines = []
    config = dataclasses.replace(CONFIG, setup=setup(**fields), **changes)
    with pytest.raises(InputError, match=message):
        run(config, lines.append, loaded())
    assert lines == []


def test_a_config_without_an_experiment_is_refused():
    """Guards against a traceback where a config of another program is given."""
    with pytest.raises(InputError, match="no experiment of a DataConfig"):
        run(DataConfig())


# --- the program ---------------------------------------------------------------------------------


def test_the_program_runs_its_config_and_writes_everything(look, tmp_path, monkeypatch, capsys):
    """Guards against flags that are dropped, and a picture or table that is not written."""
    spec = importlib.util.spec_from_file_location("evaluate_program", ROOT / "evaluate.py")
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    seen = []

    def fake(config, progress):
        seen.append(config)
        return look

    fake.registry = run.registry
    monkeypatch.setattr(program, "run", fake)
    for name in ("results.json", "trace.csv", "trace.png", "heat.png", "mine.png"):
        (tmp_path / name).write_text("of an earlier experiment")
    program.main(["--out", str(tmp_path), "--rules", "maximal", "--target", "mine"])
    default = program.flags.load_config("beijing", program.CONFIGS, QuickConfig)
    changed = dataclasses.replace(default.setup, out=str(tmp_path), target="mine")
    assert seen == [dataclasses.replace(default, setup=changed, rules=("maximal",))]
    text = capsys.readouterr().out
    assert text.startswith("A first look")
    assert f"Results go to {tmp_path}, in place of those of an earlier run." in text
    assert f"picture: {tmp_path / 'forecast.png'}" in text
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"results.json", "results.csv", "forecast.png", "mine.png"}
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert all(len(line) <= 100 and line.count("|") == 6 for line in table)
    assert len(table) == 2 + 5
    assert json.loads((tmp_path / "results.json").read_text())["rows"] == look.content["rows"]


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "evaluate").glob("*.py")), ids=str)
def test_every_config_has_an_experiment(path):
    """Guards against a command in the docs that ends in an error."""
    config = load_config(path.stem, path.parent, object)
    assert run.dispatch(type(config)) is not run.dispatch(object)
    for rule in getattr(config, "rules", ()):
        experiments.parse_rules([rule], 2)


def test_without_matplotlib_the_extra_is_named(look, tmp_path, monkeypatch):
    """Guards against an ImportError: the picture is the only part that needs the extra."""
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match=r"stride-jax\[plot\]"):
        save_forecast(tmp_path / "a.png", look.picture)
