"""A learned judge: a logistic classifier that decides which gaps matter (AutoJudge, 2504.20039).

`stride_jax.training.judge` fits its weights. What it guarantees is measured, not proved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.decoding.base import Outcome, Round, Rule
from stride_jax.decoding.checks import array_shape, check_scalar, on_host
from stride_jax.decoding.rules.common import gaps, num_leading
from stride_jax.decoding.scale import as_float32
from stride_jax.decoding.uncertainty import draft_uncertainty, rms
from stride_jax.errors import InputError

Scalar = float | jax.Array

FEATURES = (
    "gap", "level", "end", "first", "place", "after", "uncertainty", "change", "amplitude",
    "slope",
)  # fmt: skip
"""Features of a proposal, in the order of the weights; see `features`."""

LEAST = 1e-6
"""The smallest size of which a logarithm is taken, in sigmas."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Judge(Rule):
    """Point forecasts: proposals are the draft's means, accepted where a classifier says so.

    Accepts while `features @ weights + bias >= 0`. Emits like `Mean`: the target's own mean for the
    accepted prefix, which stays in the context, and its mean after the last accepted proposal.
    Nothing bounds the gap of an accepted proposal, so the guarantee is measured, not proved.

    Attributes:
        weights: `[F]`, of the features in the order of `FEATURES`.
        bias: added to the weighted sum; a larger one accepts more.
    """

    weights: Any
    bias: Scalar = 0.0
    guarantee: ClassVar = "measured, not proved"
    correlated: ClassVar = True
    densities: ClassVar = True
    proposes: ClassVar = "mean"

    def check(self) -> None:
        """Raises InputError unless weights are `[F]` finite numbers and the bias is one."""
        shape = array_shape("weights", self.weights)
        if shape != (len(FEATURES),):
            raise InputError(
                f"weights of a Judge must be {len(FEATURES)} numbers, one for each of "
                f"{', '.join(FEATURES)}; got shape {shape}."
            )
        if on_host(self.weights) and not np.isfinite(as_float32(self.weights)).all():
            raise InputError(f"weights of a Judge must be finite, got {self.weights}.")
        check_scalar("bias", self.bias, at_least=-np.inf)

    def decide(self, key: jax.Array, current: Round) -> Outcome:
        """See `Rule`; no key is consumed."""
        table = features(current)
        score = table @ jnp.asarray(self.weights, jnp.float32) + self.bias
        accepted = (score >= 0) & jnp.isfinite(table[:, 0])
        count = num_leading(accepted, current.length)
        return Outcome(
            count,
            current.target_mean[count],
            current.target_mean[:-1],
            log_ratio=score,
            threshold=jnp.zeros_like(score),
        )


def as_tolerance(tolerance: Scalar) -> Judge:
    """The judge that decides like `Mean(tolerance)`: it weighs the gap alone.

    Args:
        tolerance: largest RMS gap of the two means, in sigmas; above 0.
    """
    weights = np.zeros(len(FEATURES), np.float32)
    weights[0] = -1
    return Judge(weights, jnp.log(jnp.asarray(tolerance, jnp.float32)))


def features(current: Round) -> jax.Array:
    """The features of each proposal of a round, `[K, F]` float32.

    Sizes are logarithms of an RMS over the patch in sigmas, and at least `log(1e-6)`.

    - gap: of the target's mean from the draft's.
    - level, end: squares of the mean gap and of the gap at the last step, averaged over the
      variables, as shares of the mean squared gap; the logarithm of 1 plus the share.
    - first: 1 for the first patch of the proposal, else 0.
    - place: log of the place in the proposal, from 1.
    - after: log of the patches of the forecast that follow this one, at least 1.
    - uncertainty: of the draft, see `draft_uncertainty`; 0 for the first patch.
    - change: of the target's mean from that of the patch before in the round; 0 for the first.
    - amplitude: of the target's mean around its level.
    - slope: difference of the target's mean from its first to its last step.
    """
    gap, sigma = gaps(current), current.target_sigma[:-1]
    target = current.target_mean[:-1] / sigma

    # Places, as numbers of patches.
    place = jnp.arange(len(gap), dtype=jnp.float32)
    missing = current.length if current.missing is None else current.missing
    missing = missing.astype(jnp.float32)
    later = (place > 0).astype(jnp.float32)

    # Sizes: of the gap and of its parts, and of the predictions.
    square = jnp.maximum(jnp.mean(jnp.square(gap), axis=(1, 2)), LEAST**2)
    level = jnp.mean(jnp.square(jnp.mean(gap, axis=1)), axis=1)
    end = jnp.mean(jnp.square(gap[:, -1]), axis=1)
    uncertainty = draft_uncertainty(current.draft_mean, current.draft_logvar, sigma)
    change = rms(target - jnp.roll(target, 1, axis=0))
    amplitude = rms(target - jnp.mean(target, axis=1, keepdims=True))
    slope = rms(target[:, -1:] - target[:, :1])

    columns = [
        0.5 * jnp.log(square),
        jnp.log1p(level / square),
        jnp.log1p(end / square),
        1 - later,
        jnp.log1p(place),
        jnp.log(jnp.maximum(missing - 1 - place, 1)),
        later * _log(uncertainty),
        later * _log(change),
        _log(amplitude),
        _log(slope),
    ]
    return jnp.stack(columns, axis=1)


def _log(sizes: jax.Array) -> jax.Array:
    """The logarithm of sizes, at least that of `LEAST`."""
    return jnp.log(jnp.maximum(sizes, LEAST))
