"""A covariance of a patch's errors as sigma: its algebra, its draws, its refusals."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.rounds import check_rate, decide_each
from helpers.toys import (
    BATCH,
    CONTEXT,
    DRAFT,
    NUM_VARS,
    PATCH_LEN,
    SIGMA,
    TARGET,
    assert_same,
    roll,
    speculate,
    take,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stride_jax.decoding.base import Round
from stride_jax.decoding.linear_draft import linear_draft
from stride_jax.decoding.naive_drafts import last_value_draft
from stride_jax.decoding.rules import AsReleased, Block, Maximal, Residual, SharedNoise
from stride_jax.decoding.rules.common import gaps
from stride_jax.decoding.scale import PatchCovariance, apply, make_scale, whiten
from stride_jax.decoding.types import DecodeConfig
from stride_jax.errors import InputError

PROPERTY = settings(deadline=None, max_examples=15, derandomize=True)
CONFIG = DecodeConfig(horizon=20, num_draft=3)


def a_factor(*shape: int, seed: int = 0) -> np.ndarray:
    """A random factor `[..., P, P]` with correlations up to .9 and stds of .3 to 1."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(*shape, PATCH_LEN, PATCH_LEN)) + 1.5
    lower = np.linalg.cholesky(mixed @ np.swapaxes(mixed, -1, -2) + 0.1 * np.eye(PATCH_LEN))
    norm = np.linalg.norm(lower, axis=-1, keepdims=True)
    return (lower / norm * rng.uniform(0.3, 1, norm.shape)).astype(np.float32)


# ---------------------------------------------------------------- algebra


@jax.jit
def there_and_back(factor, sigma, noise):
    """The errors of noise `[K, P, C]`, and the noise of these errors."""
    sigma, correlation = make_scale(PatchCovariance(factor, sigma), noise.shape[1:])
    errors = apply(noise, sigma[None], correlation)
    return errors, whiten(errors, sigma[None], correlation)


@pytest.mark.parametrize("size", [1, 24, 96])
@PROPERTY
@given(seed=st.integers(0, 1000), correlation=st.floats(-0.9, 0.99))
def test_whitening_undoes_applying(size, seed, correlation):
    """The gap of the means would not be that of the proposals that were drawn."""
    rng = np.random.default_rng(seed)
    apart = np.abs(np.subtract.outer(np.arange(size), np.arange(size)))
    factor = np.linalg.cholesky(correlation**apart)[None].repeat(2, axis=0)
    sigma = rng.uniform(0.01, 10, (size, 2))
    noise = rng.normal(size=(3, size, 2)).astype(np.float32)
    errors, back = there_and_back(*(np.float32(x) for x in (factor, sigma, noise)))
    slow = sigma * np.einsum("cpq,kqc->kpc", factor, noise.astype(np.float64))
    np.testing.assert_allclose(errors, slow, rtol=1e-4, atol=1e-5 * sigma.max())
    np.testing.assert_allclose(back, noise, atol=2e-4)


def test_the_scale_is_the_factor_in_all_its_shapes():
    """Steps, variables or series would be taken for one another."""
    shape = (4, PATCH_LEN, NUM_VARS)
    for leading in ((), (NUM_VARS,), (4, NUM_VARS)):
        for sigma in (1.0, np.float32([2, 3]), np.full(shape, 0.7)):
            factor = a_factor(*leading)
            scale = make_scale(PatchCovariance(factor, sigma), shape)
            found = np.swapaxes(scale.sigma, -1, -2)[..., None] * scale.correlation.factor
            times = np.swapaxes(np.broadcast_to(sigma, shape), -1, -2)[..., None]  # [B, C, P, 1]
            full = np.broadcast_to(factor, (4, NUM_VARS, PATCH_LEN, PATCH_LEN))
            np.testing.assert_allclose(found, times * full, atol=1e-6)


# ---------------------------------------------------------------- diagonal


@pytest.mark.parametrize("rule", [Maximal(), Residual()])
def test_a_diagonal_factor_is_the_diagonal_sigma(rule):
    """The two ways to give the same distribution would disagree; equal up to float rounding."""
    sigma = np.random.default_rng(1).uniform(0.3, 1, (PATCH_LEN, NUM_VARS)).astype(np.float32)
    factor = np.stack([np.diag(column) for column in sigma.T])
    both = [
        speculate(jax.random.key(0), sigma=one, rule=rule, config=CONFIG)
        for one in (sigma, PatchCovariance(factor))
    ]
    assert_same(*both)


def test_a_diagonal_factor_of_powers_of_two_is_bit_for_bit_the_same():
    """Rows of length 1 and their inverse are then exact: any other difference is a mistake."""
    sigma = np.float32([[0.5, 1], [1, 0.25], [2, 0.5]])
    factor = np.stack([np.diag(column) for column in sigma.T])
    choices = sigma, PatchCovariance(factor)
    both = [roll(jax.random.key(0), sigma=one, config=CONFIG) for one in choices]
    assert_same(*both, atol=0)


# ---------------------------------------------------------------- one round


def correlated_rounds(count: int, factor: np.ndarray, delta: float) -> Round:
    """`count` equal rounds of K = 2 but for their noise, the means delta apart by Mahalanobis."""
    rng = np.random.default_rng(0)
    covariance = PatchCovariance(factor)
    sigma, correlation = make_scale(covariance, (PATCH_LEN, NUM_VARS))
    direction = rng.normal(size=(2, PATCH_LEN, NUM_VARS)).astype(np.float32)
    direction /= np.sqrt(np.square(direction).sum(axis=(1, 2), keepdims=True))
    mean = rng.normal(size=(3, PATCH_LEN, NUM_VARS)).astype(np.float32)
    draft_mean = mean[:-1] - np.asarray(apply(delta * direction, sigma[None], correlation))
    noise = rng.normal(size=(count, *draft_mean.shape)).astype(np.float32)
    fresh = rng.normal(size=(count, *mean.shape)).astype(np.float32)

    def repeated(x):
        return jnp.broadcast_to(x, (count, *x.shape))

    return Round(
        proposals=draft_mean[None] + apply(noise, sigma[None, None], correlation),
        noise=jnp.asarray(noise),
        draft_mean=repeated(jnp.asarray(draft_mean)),
        draft_sigma=repeated(jnp.broadcast_to(sigma, draft_mean.shape)),
        target_mean=repeated(jnp.asarray(mean)),
        target_sigma=repeated(jnp.broadcast_to(sigma, mean.shape)),
        draft_logvar=None,
        fresh=jnp.asarray(fresh),
        length=jnp.full(count, 2, jnp.int32),
        correlation=jax.tree.map(repeated, correlation),
    )


@pytest.mark.parametrize("rule", [Maximal(), Residual()])
def test_acceptance_is_that_of_the_mahalanobis_gap(rule):
    """2 Phi(-delta / 2) with delta in series units would be the acceptance of another rule."""
    factor, delta, count = a_factor(NUM_VARS), 1.2, 20_000
    rounds = correlated_rounds(count, factor, delta)
    found_gaps = np.asarray(gaps(jax.tree.map(lambda x: x[0], rounds)))
    np.testing.assert_allclose(np.sqrt(np.square(found_gaps).sum(axis=(1, 2))), delta, atol=1e-4)
    keys = jax.random.split(jax.random.key(1), count)
    out = decide_each(rule, keys, rounds)
    expected = 2 * stats.norm.cdf(-delta / 2)
    check_rate(np.asarray(out.num_accepted) > 0, expected)

    # The first patch put out is a draw from the target, with its covariance.
    first = np.where(
        np.asarray(out.num_accepted)[:, None, None] > 0, rounds.proposals[:, 0], out.patch
    )
    errors = first - np.asarray(rounds.target_mean)[0, 0]
    for c in range(NUM_VARS):
        white = np.linalg.solve(factor[c].astype(np.float64), errors[:, :, c].T)  # [P, S]
        off = np.abs(white @ white.T / count - np.eye(PATCH_LEN))
        assert off.max() < 5 * np.sqrt(2 / count)
        assert np.abs(white.mean(axis=1)).max() < 5 / np.sqrt(count)


# ---------------------------------------------------------------- decodes


@pytest.mark.parametrize("models", ["target", "draft", "linear draft"])
def test_one_model_draws_with_the_covariance(models):
    """The baseline, and the draft alone, would be of another distribution than speculation."""
    factor = a_factor()
    config = DecodeConfig(horizon=PATCH_LEN, num_draft=1, num_paths=20_000)
    choices = {"target": (TARGET, None), "draft": (None, DRAFT)}
    linear = linear_draft(np.eye(10)[:, -PATCH_LEN:])
    target, draft = choices.get(models, (None, linear))
    paths, _ = roll(
        jax.random.key(3), target=target, draft=draft, sigma=PatchCovariance(factor), config=config
    )
    found = np.asarray(paths, np.float64)
    expected = factor.astype(np.float64) @ factor.T
    for c in range(NUM_VARS):
        np.testing.assert_allclose(np.cov(found[:, :, c].T), expected, atol=0.04)
    assert abs(np.corrcoef(found[:, 0, 0], found[:, 0, 1])[0, 1]) < 0.03


def test_shared_noise_of_no_tolerance_is_the_target_alone_draw_by_draw():
    """Draft, target and emitted patch would not share one factor."""
    sigma = PatchCovariance(a_factor(NUM_VARS), SIGMA)
    rule = SharedNoise(tolerance=0.0)
    found, _ = speculate(jax.random.key(0), sigma=sigma, rule=rule, config=CONFIG)
    alone, _ = roll(jax.random.key(0), sigma=sigma, config=CONFIG)
    np.testing.assert_allclose(found, alone, atol=1e-5)


def test_a_series_does_not_depend_on_those_beside_it():
    """A series would be drawn with the factor of its neighbour."""
    sigma = PatchCovariance(a_factor(5, NUM_VARS), np.full((5, 1, NUM_VARS), 0.8))
    config = dataclasses.replace(CONFIG, num_paths=2, batch_size=2)
    batch = speculate(jax.random.key(0), BATCH, sigma=sigma, rule=Maximal(), config=config)
    assert bool(batch[1].valid_input.all())
    config = dataclasses.replace(config, batch_size=None)
    one = speculate(
        jax.random.key(0),
        BATCH[3],
        sigma=PatchCovariance(sigma.factor[3], 0.8),
        rule=Maximal(),
        config=config,
        series_index=3,
    )
    assert_same(take(batch, 3), one)


# ---------------------------------------------------------------- refusals

BAD = {
    "another P": (np.eye(4), r"must be \[P, P\].*\(4, 4\)"),
    "another C": (np.stack([np.eye(3)] * 3), r"must be \[P, P\].*\(3, 3, 3\)"),
    "a vector": (np.ones(3), r"must be \[P, P\]"),
    "not triangular": (a_factor() @ a_factor().T, "lower triangular with a positive diagonal"),
    "a zero": (np.diag([1.0, 0, 1]), "positive diagonal.*diagonal entry is 0"),
    "0 in float32": (np.diag([1.0, 1e-50, 1]), "numbers of float32.*diagonal entry is 1e-50"),
    "infinite in float32": (np.eye(3) * 1e30, "numbers of float32.*largest entry 1e\\+30"),
    "rows of two lengths": ([[1.0], [1.0, 2.0]], "is not an array"),
    "no number": (np.eye(3) * np.nan, "finite real numbers"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_factor_is_refused(name):
    """Paths would be NaN, or follow the covariance of something else."""
    factor, message = BAD[name]
    with pytest.raises(InputError, match=message):
        speculate(jax.random.key(0), sigma=PatchCovariance(factor))


def test_a_factor_on_the_device_is_not_read_but_reported():
    """A decode on an accelerator would wait for the values, or say nothing."""
    good, bad = a_factor(5, NUM_VARS), a_factor(5, NUM_VARS)
    bad[2, 0, 1, 1], bad[4, 1, 0, 2] = -1, 0.3
    for factor, expected in ((good, [1, 1, 1, 1, 1]), (bad, [1, 1, 0, 1, 0])):
        sigma = PatchCovariance(jnp.asarray(factor))
        _, info = speculate(jax.random.key(0), BATCH, sigma=sigma, config=CONFIG)
        np.testing.assert_array_equal(info.valid_input, np.bool_(expected))


def test_rules_that_take_no_covariance_say_so():
    """A rule written for independent steps would use the std and lose the correlation."""
    sigma = PatchCovariance(a_factor())
    with pytest.raises(InputError, match=r"'as_released' takes no PatchCovariance; use Maximal"):
        speculate(jax.random.key(0), sigma=sigma, rule=AsReleased())
    with pytest.raises(InputError, match="sigma must be > 0"):
        speculate(jax.random.key(0), sigma=PatchCovariance(a_factor(), 0.0), rule=Maximal())
    assert np.isfinite(roll(jax.random.key(0), CONTEXT, sigma=sigma)[0]).all()


@pytest.mark.parametrize("rule", [Maximal(), Block()])
def test_a_covariance_costs_a_round_products_alone(rule):
    """An accelerator would solve a triangular system, or run a loop, in every round."""
    config = DecodeConfig(horizon=20, num_draft=3, num_paths=2)
    draft = last_value_draft(PATCH_LEN)  # all K at once, so that it brings no loop of its own
    sigma = PatchCovariance(a_factor())
    program = jax.jit(functools.partial(speculate, draft=draft, config=config, rule=rule))
    traced = program.trace(jax.random.key(0), BATCH[:2], sigma=sigma)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    before, rounds = text.split("stablehlo.while")  # one loop
    assert before.count("triangular_solve") == 1
    assert "triangular_solve" not in rounds
    assert "stablehlo.scatter" not in text
