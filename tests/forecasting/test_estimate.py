"""What `auto` expects where nothing is measured, against simulation and against an H100."""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.models import zeros_of

import stride_jax as sj
from stride_jax.checkpoints.pair import Pair
from stride_jax.decoding.rules import Several
from stride_jax.evaluation import programs
from stride_jax.evaluation.programs import Setting, build
from stride_jax.forecasting import choice as choice_module
from stride_jax.forecasting.choice import NUM_DRAFTS, Work, decide, slowest

MEASURED = Path(__file__).parents[2] / "docs" / "results" / "accelerator" / "results.json"


def simulated(patches: int, num_draft: int, lanes: int, acceptance: float) -> tuple[float, float]:
    """The mean rounds of the slowest of some paths that are drawn, and its standard error."""
    random = np.random.default_rng(0)
    slowest_rounds = []
    for _ in range(4000):
        filled, rounds = np.zeros(lanes, int), 0
        while (filled < patches).any():
            accepted = np.cumprod(random.random((lanes, num_draft)) < acceptance, axis=1).sum(
                axis=1
            )
            filled += np.where(filled < patches, accepted + 1, 0)
            rounds += 1
        slowest_rounds.append(rounds)
    return float(np.mean(slowest_rounds)), float(np.std(slowest_rounds) / np.sqrt(4000))


@pytest.mark.parametrize(
    ("patches", "num_draft", "lanes", "acceptance"),
    [(7, 3, 1, 0.8), (7, 6, 8, 0.6), (20, 2, 16, 0.9), (1, 4, 8, 0.5), (3, 8, 4, 0.7)],
)
def test_the_rounds_of_the_slowest_path(
    patches: int, num_draft: int, lanes: int, acceptance: float
) -> None:
    """`auto` would expect a batch to end with its average path, and lose to the target alone."""
    mean, error = simulated(patches, num_draft, lanes, acceptance)
    assert abs(slowest(patches, num_draft, lanes, acceptance) - mean) < 4 * error + 1e-9


@pytest.mark.parametrize("lanes", [1, 64])
def test_long_paths_go_on_in_proportion(lanes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long horizon would look much dearer than it is, or be estimated below its cost."""
    short = slowest(700, 4, lanes)
    monkeypatch.setattr(choice_module, "MANY", 1000)
    exact = slowest(700, 4, lanes)
    assert exact <= short < 1.1 * exact


@functools.cache
def trained(draft: str) -> Pair:
    """The pair that was measured, from the package."""
    return sj.load_pair("beijing_target.safetensors", draft, context_len=504)


def work(
    patches: int, batch: int, num_vars: int, device: str = "gpu NVIDIA H100 80GB HBM3"
) -> Work:
    """The work of a batch of series of one path each."""
    return Work(device, "pair", "rule", patches, batch, num_vars, 16)


@functools.cache
def untrained(**fields: Any) -> Pair:
    """A pair of untrained models, as shapes; its batch makes no difference."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(programs, "init_params", zeros_of)
        return build(Setting(**fields))


def measured() -> list[tuple[Pair, Work, int, float]]:
    """Every cell of the committed table: its pair, its work, K, and the slowest rule's speedup."""
    rows = json.loads(MEASURED.read_text())["rows"]
    cells: dict[Any, tuple[Pair, Work, int, float]] = {}
    for row in rows:
        if row.get("method") != "speculative":
            continue
        batch, draft, num_draft = row["batch"], row["draft"], row["num_draft"]
        if row["kind"] == "trained pair":
            pair = trained(draft.replace("runs/beijing_linear", "beijing_linear.safetensors"))
            case = work(row["horizon"] // 24, batch, 1)
        else:
            sizes = {name: row[name] for name in ("layers", "num_vars", "dtype")}
            pair = untrained(**sizes, draft=draft, num_draft=num_draft)
            case = work(35, batch, row["num_vars"])
        name = (row["job"], draft, num_draft)
        worst = min(row["speedup"], cells[name][3] if name in cells else np.inf)
        cells[name] = (pair, case, num_draft, worst)
    return list(cells.values())


def test_what_auto_chooses_without_a_measurement_never_lost_on_the_card() -> None:
    """`auto` would speculate on a GPU where that was measured to be slower, by any rule or K."""
    cells = measured()
    kept = [speedup for pair, case, _, speedup in cells if decide(pair, case, {}).num_draft]
    assert len(cells) > 30
    assert len(kept) > 4
    assert min(kept) > 1


@pytest.mark.parametrize("lanes", [8, 64, 512])
def test_a_batch_on_a_gpu_is_decoded_by_the_target_alone(lanes: int) -> None:
    """`auto` would lose where it cannot know: a batch of the trained pair lost at every horizon."""
    for patches in (7, 35, 168):
        choice = decide(trained("beijing_linear.safetensors"), work(patches, lanes, 1), {})
        assert choice.num_draft == 0
        assert "`calibrate` measures it" in choice.reason


def test_the_prefill_is_in_the_costs_of_a_cpu() -> None:
    """A draft that costs nothing would seem to gain over a week, of which the prefill is half."""
    for draft in ("last-value", "seasonal:24"):
        week = work(7, 1, 1)._replace(device="cpu", context=21)
        assert decide(trained(draft), week, {}).num_draft == 0
    assert decide(trained("seasonal:24"), week._replace(patches=70), {}).num_draft in NUM_DRAFTS


@pytest.mark.parametrize("lanes", [1, 64])
def test_every_chain_is_in_the_costs_of_a_cpu(lanes: int) -> None:
    """`Several` would seem as cheap as its rest, though the target verifies n times the rows."""
    pair = trained("beijing_draft.safetensors")
    rules = sj.Block(), Several(sj.Block(), chains=1), Several(sj.Block(), chains=4)
    works = [choice_module.work_of(pair, rule, 28, lanes, 1, 21) for rule in rules]
    assert [x.chains for x in works] == [1, 1, 4]
    plain, one, four = (choice_module.estimate(pair, x._replace(device="cpu")) for x in works)
    assert one == plain
    assert four.plain == plain.plain
    for num_draft, cost in four.speculative.items():
        prefill = plain.plain - 28
        rows = [lanes * n * (num_draft + 1) for n in (1, 4)]
        of_one, of_four = (choice_module.pass_of(x) for x in rows)
        most = of_four / of_one  # a draft's steps grow less than the verification
        assert 1 < (cost - prefill) / (plain.speculative[num_draft] - prefill) <= most
