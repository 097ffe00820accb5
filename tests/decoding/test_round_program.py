"""What a round costs an accelerator, seen in the lowered program: no inner loops, no scatters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.toys import BATCH, PATCH_LEN, speculate
from scipy import stats

from stride_jax.decoding.batching import overwrite
from stride_jax.decoding.draft_length import Fixed, Gain, Threshold
from stride_jax.decoding.naive_drafts import last_value_draft
from stride_jax.decoding.rules import RULES, Mean, Several
from stride_jax.decoding.rules.exact import residual_along
from stride_jax.decoding.types import DecodeConfig

CHOICES = [(cls(), Fixed()) for name, cls in RULES.items() if name != "residual"]
CHOICES += [(Mean(temperature=1.0), Threshold()), (RULES["block"](), Gain())]
CHOICES += [(Several(RULES["block"](), chains=3), Fixed())]


@pytest.mark.parametrize(("rule", "draft_length"), CHOICES)
def test_a_round_has_no_loop_and_no_scatter(rule, draft_length):
    """A loop in a rule launches its body again and again; a mapped write would be a scatter."""
    config = DecodeConfig(horizon=20, num_draft=3, num_paths=2, trace=True)
    options = {"config": config, "rule": rule, "draft_length": draft_length}
    draft = last_value_draft(PATCH_LEN)  # all K at once, so that it brings no loop of its own
    program = jax.jit(functools.partial(speculate, draft=draft, **options))
    traced = program.trace(jax.random.key(0), BATCH[:2])
    text = traced.lower(lowering_platforms=("cuda",)).as_text()  # random bits loop on a CPU
    assert text.count("stablehlo.while") == 1  # the rounds
    assert "stablehlo.scatter" not in text


def test_overwrite_is_the_write_of_a_slice():
    """Patches of a round would stand at wrong places, or those before it be lost."""
    rng = np.random.default_rng(0)
    buffer, rows = rng.normal(size=(2, 9, 2)), rng.normal(size=(2, 4, 2))
    for first in ([0, 5], [3, 1]):
        found = jax.vmap(overwrite)(jnp.asarray(buffer), jnp.asarray(rows), jnp.asarray(first))
        expected = buffer.astype(np.float32)
        for lane, place in enumerate(first):
            expected[lane, place : place + 4] = rows[lane]
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("delta", [0.01, 0.3, 3.0, 1e3])
def test_residual_is_solved_at_the_ends_of_its_range(delta):
    """Newton's method would stop short where the density vanishes, or far out in the tail."""
    v = np.float32([1e-6, 1e-3, 0.3, 0.9999, 1 - 2.0**-23])
    for steps in (0.0, -0.3, -1.5):  # log lam in units of delta, as far as ratios reach
        log_lam = max(steps * delta, -12.0)
        lam, start = np.exp(log_lam), -delta / 2 - log_lam / delta

        def above(r, lam=lam):
            return lam * stats.norm.sf(r) - stats.norm.sf(r + delta)

        full = jnp.full(v.shape, log_lam, jnp.float32)
        found = residual_along(full, jnp.full(v.shape, delta, jnp.float32), jnp.asarray(v))
        found = np.float64(found)
        # The rounding of the two terms of the mass, which is lost before anything is solved.
        lost = 3e-7 * lam * stats.norm.sf(min(start, found.min()))
        assert (found >= max(start, -6.0) - 1e-5 * (1 + abs(start))).all()
        np.testing.assert_allclose(above(found), v * above(start), rtol=2e-5, atol=lost)
