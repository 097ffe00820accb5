"""Forecasters whose path distribution is known and far from Gaussian, and a poor draft for each.

Every patch is Gaussian given the patches before, yet over several patches the distribution of a
path has two modes, heavy tails, or switches between regimes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from stride_jax.decoding.processes import WindowProcess, window_process
from stride_jax.types import PatchDistribution

PATCH_LEN = 4
CONTEXT_LEN = 8


class Synthetic(NamedTuple):
    """A target and a draft.

    Attributes:
        target: a window process of one variable.
        draft: another one.
        sigma: std of the target's distribution, for rules with one sigma for both.
        learned: the predictions have stds of their own, which only rules with free scales take.
    """

    target: WindowProcess
    draft: WindowProcess
    sigma: float
    learned: bool


def double_well(params: jax.Array, window: jax.Array) -> PatchDistribution:
    """Pulled towards -1 or +1: from 0 a path ends in one of two modes.

    params: `(pull, shift)`; each step adds `pull (x - x^3) + shift`.
    """

    def step(x: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        x = jnp.clip(x, -2, 2)
        x = x + params[0] * (x - x**3) + params[1]
        return x, x

    _, mean = jax.lax.scan(step, window[-1], None, length=PATCH_LEN)
    return PatchDistribution(mean)


def heavy_tails(params: jax.Array, window: jax.Array) -> PatchDistribution:
    """An ARCH process: the variance follows the squares of the last patch.

    params: `(base, share, bias)`; variance `base + share mean(x^2)`, mean `bias`.
    """
    variance = params[0] + params[1] * jnp.mean(jnp.square(window[-PATCH_LEN:]))
    shape = (PATCH_LEN, window.shape[1])
    return PatchDistribution(jnp.full(shape, params[2]), jnp.full(shape, jnp.log(variance)))


def regimes(params: jax.Array, window: jax.Array) -> PatchDistribution:
    """Rises until it is above 1, then falls until it is below -1.

    params: `(slope, bias)`; in between it goes on as the last patch went.
    """
    last, level = window[-PATCH_LEN:], jnp.mean(window[-PATCH_LEN:], axis=0)
    trend = jnp.sign(jnp.mean(last[PATCH_LEN // 2 :] - last[: PATCH_LEN // 2], axis=0))
    way = jnp.where(level > 1, -1.0, jnp.where(level < -1, 1.0, trend))  # [C]
    steps = jnp.arange(1, PATCH_LEN + 1)[:, None] * way[None]  # [P, C]
    return PatchDistribution(level[None] + params[0] * steps + params[1])


Forecaster = Callable[[jax.Array, jax.Array], PatchDistribution]
FORECASTERS: dict[str, tuple[Forecaster, tuple[float, ...], tuple[float, ...], float, bool]] = {
    "two modes": (double_well, (0.5, 0.0), (0.35, 0.1), 0.3, False),
    "heavy tails": (heavy_tails, (0.1, 0.85, 0.0), (0.25, 0.4, 0.1), 0.5, True),
    "regimes": (regimes, (0.4, 0.0), (0.3, 0.1), 0.4, False),
}
"""Forecaster, parameters of the target and of the draft, sigma, and whether stds are their own."""


def synthetic(name: str) -> Synthetic:
    """One of `FORECASTERS`."""
    forecaster, target, draft, sigma, learned = FORECASTERS[name]
    pair = [
        window_process(Partial(forecaster, jnp.asarray(p)), PATCH_LEN, context_len=CONTEXT_LEN)
        for p in (target, draft)
    ]
    return Synthetic(pair[0], pair[1], sigma, learned)
