"""What `auto` expects where nothing is measured, against simulation and against an H100."""

import functools
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stride_jax as sj
from stride_jax.checkpoints.pair import Pair
from stride_jax.evaluation.programs import Setting, build
from stride_jax.forecasting.choice import MANY, Work, choose, estimate, slowest

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


def test_long_paths_go_on_in_proportion() -> None:
    """A long horizon would take seconds to decide on, or jump in cost where the rule changes."""
    one, ten = (slowest(MANY * times, 4, 8) for times in (1, 10))
    assert ten == pytest.approx(10 * one)
    assert slowest(MANY + 1, 4, 8) == pytest.approx(one, rel=0.01)


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
    """A pair of random models, as shapes; its batch makes no difference."""
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


def test_what_an_estimate_chooses_never_lost_on_the_card() -> None:
    """`auto` would speculate on a GPU where that was measured to be slower, by any rule."""
    cells = measured()
    chosen = [
        speedup
        for pair, case, num_draft, speedup in cells
        if choose(estimate(pair, case, [num_draft])).num_draft
    ]
    assert len(cells) > 30
    assert len(chosen) > 10
    assert min(chosen) > 1


def test_more_lanes_never_make_speculation_look_better_on_a_gpu() -> None:
    """The estimate would forget that a batch waits for its slowest path."""
    pair = trained("beijing_linear.safetensors")
    gains = [
        (costs := estimate(pair, work(28, lanes, 1), [6])).plain / costs.speculative[6]
        for lanes in (1, 8, 64, 512)
    ]
    assert all(before > after for before, after in itertools.pairwise(gains))
