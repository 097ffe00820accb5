"""Predicted speedups of a sweep, and what its rows show of them."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from stride_jax.evaluation.theory import PREDICTIONS, Costs, chance, front, misses

PROPERTY = examples(deadline=None, max_examples=60, derandomize=True)


def steps_of(missing: Iterable[int], num_draft: int) -> int:
    """Draft steps of rounds that begin with so many patches missing."""
    return sum(min(num_draft, m) for m in missing)


@PROPERTY
@given(
    prepare=st.floats(0, 5),
    before=st.floats(0, 5),
    one=st.floats(0.1, 5),
    draft=st.floats(0.01, 1),
    verify=st.floats(0.1, 9),
    count=st.integers(2, 40),
    num_draft=st.integers(1, 9),
)
def test_costs_are_read_off_the_clocks(
    prepare: float,
    before: float,
    one: float,
    draft: float,
    verify: float,
    count: int,
    num_draft: int,
) -> None:
    """A pass, a round or the preparation would be charged with the time of another."""
    found = Costs.of(
        count,
        num_draft,
        prepare + count * one,
        prepare + one,
        before + count * draft,
        before + draft,
        prepare + before + count * verify + steps_of(range(1, count + 1), num_draft) * draft,
    )
    expected = Costs(count, num_draft, prepare + count * one, prepare + before, one, draft, verify)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_preparation_takes_no_negative_time() -> None:
    """A clock that is not exact would make a decode end before it began."""
    found = Costs.of(4, 1, 8.0, 1.5, 4.0, 0.75, 16.0 + 1 / 3)
    assert found.prepare == 0
    assert found.verify == pytest.approx(3)  # 16 1/3 - 4 draft steps of 13/12, over 4


def test_a_coarse_clock_does_not_end_a_sweep() -> None:
    """A tie between two short decodes would throw away everything that was measured."""
    costs = Costs.of(4, 2, 1.0, 1.0, 0.5, 0.5, 0.25)
    found = costs.predictions(row_of(0.5, first=0.5, after_accept=0.5), 1)
    assert all(value > 0 for name, value in found.items() if name.startswith("predicted"))


def row_of(acceptance: float, paths: int = 1, **links: float | None) -> dict[str, Any]:
    """What the predictions look at; `first`, `after_accept`, `after_reject`."""
    names = ("first", "after_accept", "after_reject")
    return {
        "acceptance": acceptance,
        "num_paths": paths,
        **{f"accept_{name}": links.get(name) for name in names},
    }


@PROPERTY
@given(
    num_draft=st.integers(1, 10),
    count=st.integers(2, 40),
    lanes=st.tuples(st.integers(1, 9), st.integers(1, 3)),
    accepted=st.booleans(),
)
def test_predictions_of_certain_acceptance(
    num_draft: int, count: int, lanes: tuple[int, int], accepted: bool
) -> None:
    """A horizon would take other rounds than all of K + 1 patches, or of one patch each."""
    costs = Costs(count, num_draft, 50.0, 1.0, 2.0, 0.5, 3.0)
    a = float(accepted)
    row = row_of(a, lanes[1], first=a, after_accept=a, after_reject=None)
    found = costs.predictions(row, lanes[0])
    missing = range(count, 0, -(num_draft + 1) if accepted else -1)
    expected = 50 / (1 + 3 * len(missing) + 0.5 * steps_of(missing, num_draft))
    assert found["predicted_independent"] == pytest.approx(expected)
    assert found["predicted_markov"] == pytest.approx(expected)
    assert found["predicted_paper"] == pytest.approx((1 + num_draft * a) / (0.25 * num_draft + 1))
    assert (found["verify_seconds"], found["pass_seconds"]) == (3.0, 2.0)


@PROPERTY
@given(
    a=st.floats(0, 1),
    first=st.floats(0, 1),
    after=st.floats(0, 1),
    lanes=st.tuples(st.integers(1, 9), st.integers(1, 3)),
)
def test_predictions_by_hand(a: float, first: float, after: float, lanes: tuple[int, int]) -> None:
    """The wait for the slowest of a batch, or the memory of a rejection, would be left out."""
    size = lanes[0] * lanes[1]
    row = row_of(a, lanes[1], first=first, after_accept=0.3, after_reject=after)
    # Two patches, K = 1: one round, of one draft step, where the proposal is accepted, else two.
    two = Costs(2, 1, 7.0, 1.0, 2.0, 0.5, 3.0).predictions(row, lanes[0])
    assert two["predicted_independent"] == pytest.approx(7 / (1 + 3.5 * (2 - a**size)))
    assert two["predicted_markov"] == pytest.approx(7 / (1 + 3.5 * (2 - first**size)))
    # Three patches: two rounds, or three where the first two proposals are rejected.
    three = Costs(3, 1, 7.0, 1.0, 2.0, 0.5, 3.0).predictions(row, lanes[0])
    quick = 1 - (1 - a) ** 2
    assert three["predicted_independent"] == pytest.approx(7 / (1 + 3.5 * (3 - quick**size)))
    quick = 1 - (1 - first) * (1 - after)
    assert three["predicted_markov"] == pytest.approx(7 / (1 + 3.5 * (3 - quick**size)))


@PROPERTY
@given(
    a=st.floats(0, 1),
    num_draft=st.integers(1, 8),
    count=st.integers(2, 20),
    missing=st.sets(st.sampled_from(["first", "after_accept", "after_reject"])),
)
def test_equal_rates_are_independence(
    a: float, num_draft: int, count: int, missing: set[str]
) -> None:
    """The two formulas would differ where there is nothing that they could differ in."""
    links = {name: None if name in missing else a for name in ("first", "after_accept")}
    links["after_reject"] = None if "after_reject" in missing else a
    costs = Costs(count, num_draft, 50.0, 1.0, 2.0, 0.5, 3.0)
    found = costs.predictions(row_of(a, 2, **links), 3)
    assert found["predicted_markov"] == pytest.approx(found["predicted_independent"])
    other = costs.predictions(row_of(0.5, 2, first=0.1, after_accept=0.9), 3)
    assert other["predicted_markov"] != pytest.approx(other["predicted_independent"])


def pareto(points: list[tuple[float, float]]) -> set[tuple[float, float]]:
    """The `(speedup, error)` that no other point is as good as in both and better in one."""

    def beaten(p: tuple[float, float]) -> bool:
        return any(q != p and q[0] >= p[0] and q[1] <= p[1] for q in points)

    return {p for p in points if not beaten(p)}


@PROPERTY
@given(points=st.lists(st.tuples(st.integers(1, 8), st.integers(-4, 4)), max_size=15))
def test_the_front_is_what_no_other_setting_beats(points: list[tuple[float, float]]) -> None:
    """A better setting would be hidden, or a useless one shown."""
    rows = [{"speedup": s, "relative_error": e, "number": i} for i, (s, e) in enumerate(points)]
    found = front(rows)
    pairs = [(row["speedup"], row["relative_error"]) for row in found]
    assert set(pairs) == pareto(points)
    assert pairs == sorted(set(pairs))  # the fastest last, each once
    assert all(row in rows for row in found)


def test_chance_is_what_exact_rules_seem_to_miss_by() -> None:
    """Noise of two sample paths would be read as a gain or a loss of a rule that is not exact."""

    def row(method: str, rule: str | None, sigma: float, crps: float) -> dict[str, Any]:
        output = "mean" if rule == "mean" else "sample"
        return {"method": method, "rule": rule, "output": output, "sigma": sigma, "crps": crps}

    targets = [row("target", None, 0.3, 1.0), row("target", None, 0.5, 2.0)]
    exact = [row("speculative", "maximal", 0.3, 1.03), row("speculative", "block", 0.5, 1.92)]
    rest = [row("speculative", "resample", 0.3, 9.0), row("speculative", "mean", 0.3, 9.0)]
    assert chance([*targets, *exact, *rest]) == pytest.approx(math.sqrt((0.03**2 + 0.04**2) / 2))
    assert chance([*targets, *rest]) is None


@PROPERTY
@given(values=st.lists(st.tuples(*[st.floats(0.1, 10)] * 4), min_size=1, max_size=9))
def test_misses_are_relative_to_what_was_measured(values: list[tuple[float, ...]]) -> None:
    """A formula would be called better than it is."""
    names = ("speedup", *PREDICTIONS.values())
    rows = [dict(zip(names, value, strict=True)) for value in values]
    table = np.array(values)
    found = misses(rows)
    assert list(found) == list(PREDICTIONS)
    for i, pair in enumerate(found.values(), 1):
        off = np.abs(table[:, i] - table[:, 0]) / table[:, 0]
        np.testing.assert_allclose(pair, (np.quantile(off, 0.5), np.max(off)), atol=1e-12)
