"""Settings within an error budget: fitted to toys, and counted against plain numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.toys import BATCH, CONFIG, DRAFT, NUM_VARS, SIGMA, TARGET

from stride_jax.decoding.draft_length import Fallback
from stride_jax.decoding.rules import Mean
from stride_jax.errors import InputError
from stride_jax.evaluation.bench import Batch, Decoder, Label
from stride_jax.evaluation.budget import Trial, cheapest, cost_at, try_all

TRUTH = np.zeros((len(BATCH), CONFIG.horizon, NUM_VARS), np.float32)
ALL = Batch(jax.random.key(0), jnp.asarray(BATCH), TRUTH, jnp.arange(5), np.ones(5))
PARTS = [ALL._replace(weight=np.float32([1, 1, 1, 1, 0]))]
PAIRS = [(f, t) for f in (0.3, 0.7, 5.0) for t in (0.05, 0.1, 0.2, 0.4, 5.0)]


def decoder(rule=None, draft_length=None) -> Decoder:
    """The pair of toys by a rule; the target alone without one."""
    label, sigma = Label("window"), jnp.float32(SIGMA)
    if rule is None:
        return Decoder(TARGET, None, jnp.float32(0), None, CONFIG, label)
    return Decoder(TARGET, DRAFT, sigma, rule, CONFIG, label, draft_length)


def test_fitted_thresholds_meet_the_budget():
    """A pair of thresholds would be chosen that errs by more than was allowed, or costs more."""
    (alone,) = try_all([decoder()], PARTS)
    assert alone.passes.tolist() == [7.0] * 4  # the fifth window only fills the batch
    trials = try_all([decoder(Mean(t), Fallback(f)) for f, t in PAIRS], PARTS)
    distances = [np.mean(trial.distance(alone)) for trial in trials]
    costs = [np.mean(trial.passes) + 0.2 * np.mean(trial.steps) for trial in trials]
    most = float(np.median(distances))
    best = cheapest(trials, alone, most, draft_cost=0.2)
    assert distances[best] <= most < max(distances)
    assert costs[best] == min(c for c, d in zip(costs, distances, strict=True) if d <= most)
    assert costs[best] > min(costs)
    with pytest.raises(InputError, match="no setting is within a distance of -1"):
        cheapest(trials, alone, -1.0, draft_cost=0.2)

    # Where nothing is sure, each round has one proposal and drops the next one, but for the last
    # patch, before which nothing is dropped.
    (one,) = try_all([decoder(Mean(1e6), Fallback(0.0))], PARTS)
    assert one.passes.tolist() == [4.0] * 4  # two patches in a round, and one in the last
    assert one.steps.tolist() == [7.0] * 4


def known(distance: float, passes: float, steps: float) -> Trial:
    """One window at a distance from a forecast of 0."""
    values = np.full((1, 2, 1), np.sqrt(distance))
    return Trial(values, np.zeros(1), np.full(1, passes), np.full(1, steps))


def test_the_cost_at_an_error_lies_between_its_neighbours():
    """Two rules would be compared at different errors."""
    trials = [known(0.4, 2.0, 10.0), known(0.1, 6.0, 20.0), known(0.2, 4.0, 10.0)]
    zero = known(0.0, 7.0, 0.0)
    assert cost_at(trials, zero, np.sqrt(0.08), draft_cost=0.0) == pytest.approx(3.0)
    assert cost_at(trials, zero, np.sqrt(0.02), draft_cost=0.1) == pytest.approx(6.5)
    assert cost_at(trials, zero, 9.0, draft_cost=0.0) == pytest.approx(2.0)
    assert cost_at(trials, zero, 0.0, draft_cost=0.0) == pytest.approx(6.0)


def test_a_truth_that_is_missing_is_no_error() -> None:
    """One missing value would make the error of its window, and every mean of it, NaN."""
    truth = np.zeros((len(BATCH), CONFIG.horizon, NUM_VARS), np.float32)
    gappy = truth.copy()
    gappy[:, 0] = np.nan
    whole = Batch(jax.random.key(0), jnp.asarray(BATCH), truth, jnp.arange(5), np.ones(5))
    alone = Decoder(TARGET, None, jnp.float32(0), None, CONFIG, Label("window"))
    (trial,) = try_all([alone], [whole._replace(truth=gappy)])
    np.testing.assert_allclose(
        trial.error, np.mean(trial.forecasts[:, 1:] ** 2, axis=(1, 2)), rtol=1e-6
    )


def test_a_setting_that_just_meets_its_budget_is_within_it() -> None:
    """The strictest setting of a table could not be chosen with its own error as the budget."""
    trial, zero = (Trial(np.full((1, 2, 1), x), *np.ones((3, 1))) for x in (0.3, 0.0))
    assert cheapest([trial], zero, float(np.mean(trial.distance(zero))), draft_cost=0.1) == 0
