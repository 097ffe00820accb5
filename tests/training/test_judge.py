"""Labels of a judge against plain Python, with a wrong order that fails; the fit against scipy."""

import functools

import numpy as np
import pytest
from helpers.toys import BATCH, DRAFT, DRAFT_LEN, PATCH_LEN, SIGMA, TARGET, TARGET_LEN, parameters
from scipy import optimize

from stride_jax.decoding.rules.judge import FEATURES
from stride_jax.errors import InputError
from stride_jax.training.judge import fit, label

COUNT, NUM_DRAFT = 5, 3
LIMITS = {"target": 0.004, "truth": -0.012}
TRUTH = np.random.default_rng(6).normal(size=(len(BATCH), COUNT * PATCH_LEN, BATCH.shape[-1]))
TRUTH = TRUTH.astype(np.float32) / 3


def window_mean(length: int, gap: float):
    """`series -> mean` of the next patch in float64; see `helpers.toys.process`."""
    weight, mix = map(np.float64, parameters(length, gap))
    return lambda series: np.tanh(weight @ series[-length:] @ mix)


def slow_labels(series, truth, reference: str, *, greedy: bool = True) -> list[list[float]]:
    """The harm of every proposal that a greedy decode comes to, a list for each round.

    Without `greedy` each proposal is wrongly tried with none of those before it accepted.
    """
    target, draft = window_mean(TARGET_LEN, 0.0), window_mean(DRAFT_LEN, 0.1)

    def finish(context, shown):
        while len(shown) < COUNT:
            mean = target(context)
            context, shown = np.concatenate([context, mean]), [*shown, mean]
        return np.concatenate(shown[:COUNT])

    def error(context, shown):
        return np.mean(np.square((finish(context, shown) - expected) / SIGMA))

    series = np.float64(series)
    expected = finish(series, []) if reference == "target" else np.float64(truth)
    shown, harms = [], []
    while len(shown) < COUNT:
        grown, means, missing = [series], [target(series)], COUNT - len(shown)
        harms.append([])
        for _ in range(min(NUM_DRAFT, missing)):
            context = np.concatenate(grown)
            proposal = draft(context)
            accept = np.concatenate([context, proposal])
            harm = error(accept, [*shown, *means]) - error(context, [*shown, *means[:-1]])
            if not greedy:
                own = np.concatenate([series, *means[:-1]])
                accept = np.concatenate([own, draft(own)])
                harm = error(accept, [*shown, *means]) - error(own, [*shown, *means[:-1]])
            if len(grown) < missing:
                harms[-1].append(harm)
            if harm > LIMITS[reference]:
                break
            grown.append(proposal)
            means.append(target(np.concatenate(grown)))
        series = np.concatenate([*grown, means[-1]])
        shown += means
    return harms


@functools.cache
def labels(reference: str):
    """The labels of all series."""
    options = {"num_draft": NUM_DRAFT, "reference": reference}
    return label(TARGET, DRAFT, BATCH, TRUTH, SIGMA, LIMITS[reference], **options)


def agree(found, slow: list[list[float]]) -> bool:
    """Whether the harms of one series are those of the slow decode, round by round."""
    harms = [h[t].tolist() for h, t in zip(found.harm, found.tested, strict=True)]
    harms, slow = [h for h in harms if h], [h for h in slow if h]
    if [len(h) for h in harms] != [len(h) for h in slow]:
        return False
    return np.allclose(np.concatenate(harms), np.concatenate(slow), atol=2e-5)


@pytest.mark.parametrize("reference", ["target", pytest.param("truth", marks=pytest.mark.slow)])
def test_labels_are_those_of_a_greedy_decode(reference):
    """A judge would learn what accepting a proposal does in contexts that it never decodes."""
    found = labels(reference)
    assert found.features.shape == (len(BATCH), COUNT, NUM_DRAFT, len(FEATURES))
    harms, wrong = np.asarray(found.harm)[np.asarray(found.tested)], 0
    assert 0.2 < np.mean(harms <= LIMITS[reference]) < 0.9
    for i, series in enumerate(BATCH):
        one = type(found)(*(np.asarray(x)[i] for x in found))
        assert agree(one, slow_labels(series, TRUTH[i], reference))
        wrong += not agree(one, slow_labels(series, TRUTH[i], reference, greedy=False))
    assert wrong >= 2  # a wrong order is seen wherever two proposals follow each other


def noisy_labels(count: int = 400):
    """Features, and noisy labels of a known judge."""
    rng = np.random.default_rng(0)
    table = rng.normal(size=(count, len(FEATURES))) * np.linspace(0.5, 3, len(FEATURES))
    score = -2 * table[:, 0] + 0.5 * table[:, 3] + 0.3
    return table, rng.random(count) < 1 / (1 + np.exp(-score)), score


def test_the_fit_is_the_minimum_of_the_penalised_loss():
    """Newton's method would stop elsewhere, or the weights be those of scaled features."""
    table, harmless, score = noisy_labels()
    judge = fit(table, harmless, ridge=2.0)
    size = table.std(axis=0)

    def loss(w):
        signs = np.where(harmless, 1, -1)
        values = table @ w[:-1] + w[-1]
        return np.sum(np.logaddexp(0, -signs * values)) + np.sum(np.square(w[:-1] * size))

    best = optimize.minimize(loss, np.zeros(len(FEATURES) + 1), tol=1e-10).x
    np.testing.assert_allclose([*judge.weights, judge.bias], best, atol=2e-3)
    right = (table @ judge.weights + judge.bias >= 0) == (score >= 0)
    assert np.mean(right) > 0.9


def test_labels_in_a_wrong_order_give_no_judge():
    """A table whose rows are shifted against its labels would pass as a fit."""
    table, harmless, score = noisy_labels()
    judge = fit(table, np.roll(harmless, 1))
    assert np.mean((table @ judge.weights + judge.bias >= 0) == (score >= 0)) < 0.7


def test_what_cannot_be_fitted_is_refused():
    """The weights would be infinite, or belong to other features."""
    table, harmless, _ = noisy_labels(20)
    with pytest.raises(InputError, match="0 of 20 labels"):
        fit(table, np.zeros(20, bool))
    with pytest.raises(InputError, match=r"got shape \(20, 9\)"):
        fit(table[:, 1:], harmless)
    with pytest.raises(InputError, match="whole patches of 3 steps, got 14"):
        label(TARGET, DRAFT, BATCH, TRUTH[:, :14], SIGMA, 0.1, num_draft=2)
    with pytest.raises(InputError, match="got 'future'"):
        label(TARGET, DRAFT, BATCH, TRUTH, SIGMA, 0.1, num_draft=2, reference="future")
