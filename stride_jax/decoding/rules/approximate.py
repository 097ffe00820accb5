"""Rules that are not exact: what is bounded, and in which distance, stands in each docstring."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from stride_jax.decoding.base import Outcome, Round, Rule
from stride_jax.decoding.checks import check_scalar
from stride_jax.decoding.rules.common import gaps, log_ratios, log_uniform, num_leading, target_draw
from stride_jax.decoding.scale import apply

Scalar = float | jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Resample(Rule):
    """The paper's practical rule: accept by the ratio, redraw a rejected patch from the target.

    With bias 1 and no tolerance a patch is within total variation `beta (1 - beta)` of the target's
    distribution, beta the acceptance rate. A larger bias leaves the bound TV(p, q), a tolerance
    leaves none. Source: arXiv 2511.18191, algorithm 1.

    Attributes:
        bias: factor on the acceptance ratio, at least 1.
        mse_tolerance: accept outright while the mean squared distance of the proposal from the
            target's mean is at most this (squared units of the series); 0 for never.
    """

    bias: Scalar = 1.0
    mse_tolerance: Scalar = 0.0
    guarantee: ClassVar = "a patch within TV beta (1 - beta) at bias 1"
    correlated: ClassVar = True

    def check(self) -> None:
        """Raises InputError for a bias below 1 or a negative tolerance."""
        check_scalar("bias", self.bias, at_least=1)
        check_scalar("mse_tolerance", self.mse_tolerance, at_least=0)

    def decide(self, key: jax.Array, current: Round) -> Outcome:
        """See `Rule`."""
        return _ratio_rule(key, log_ratios(current), current, self.bias, self.mse_tolerance)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AsReleased(Rule):
    """The acceptance ratio of the original's released code; it guarantees nothing.

    `|x - mu_q|^2 / (2 v) - |x - mu_p|^2 / (2 sigma^2)` with v the draft's variance averaged over
    the patch. The log-determinant is dropped, so a draft whose std is below sigma is accepted
    nearly always. A rejected patch is redrawn as in `Resample`. Only for reproducing the original.

    Attributes:
        bias: factor on the acceptance ratio, at least 1.
        mse_tolerance: see `Resample`.
        adaptive_sigma: c, for a ratio whose sigma is c times the mean squared gap of the means;
            None for the sigma that is given.
    """

    bias: Scalar = 1.0
    mse_tolerance: Scalar = 0.0
    adaptive_sigma: Scalar | None = None
    guarantee: ClassVar = "none"

    def check(self) -> None:
        """Raises InputError for a bias below 1, a negative tolerance or a negative factor."""
        check_scalar("bias", self.bias, at_least=1)
        check_scalar("mse_tolerance", self.mse_tolerance, at_least=0)
        if self.adaptive_sigma is not None:
            check_scalar("adaptive_sigma", self.adaptive_sigma, at_least=0)

    def decide(self, key: jax.Array, current: Round) -> Outcome:
        """See `Rule`."""
        axes = (1, 2)
        mean = current.target_mean[:-1]

        # The two variances of the ratio, one number for each patch.
        variance_p = jnp.mean(jnp.square(current.target_sigma[:-1]), axis=axes)
        if self.adaptive_sigma is not None:
            gap = jnp.mean(jnp.square(mean - current.draft_mean), axis=axes)
            variance_p = jnp.square(self.adaptive_sigma * gap)
        drawn = jnp.square(current.draft_sigma)
        variance = drawn if current.draft_logvar is None else jnp.exp(current.draft_logvar)
        variance_q = jnp.mean(variance, axis=axes)
        if self.adaptive_sigma is not None and current.draft_logvar is None:
            variance_q = variance_p

        # The ratio without the log-determinant.
        to_p = jnp.sum(jnp.square(current.proposals - mean), axis=axes)
        to_q = jnp.sum(jnp.square(current.proposals - current.draft_mean), axis=axes)
        least = 1e-12  # equal means make an adaptive sigma of 0
        ratio = 0.5 * (
            to_q / jnp.maximum(variance_q, least) - to_p / jnp.maximum(variance_p, least)
        )
        return _ratio_rule(key, ratio, current, self.bias, self.mse_tolerance)


def _ratio_rule(
    key: jax.Array, ratio: jax.Array, current: Round, bias: Scalar, mse_tolerance: Scalar
) -> Outcome:
    """Accepts by a biased ratio or outright within a squared distance; redraws on rejection."""
    ratio = jnp.log(bias) + ratio
    log_u = log_uniform(key, len(ratio))
    square = jnp.square(current.proposals - current.target_mean[:-1])
    close = (jnp.mean(square, axis=(1, 2)) <= mse_tolerance) & (jnp.asarray(mse_tolerance) > 0)
    count = num_leading((log_u <= ratio) | close, current.length)
    return Outcome(count, target_draw(current, count), log_ratio=ratio, threshold=log_u)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Mean(Rule):
    """Point forecasts: proposals are the draft's means, accepted while close to the target's.

    Accepts while the RMS gap of the means is at most `tolerance`, or with a temperature T at random
    with probability `exp(-|gap|^2 / (2 T^2))`. Emits the target's own mean for that prefix, and the
    target's mean after the last accepted proposal. The context of what follows keeps the PROPOSAL:
    an emitted patch is the target's mean given a context that is off by at most the tolerance (RMS)
    per patch. Over a horizon this compounds, so it is measured, not guaranteed. The form with a
    temperature has no such radius.

    Attributes:
        tolerance: largest RMS gap of the two means, in units of sigma.
        temperature: T, in units of sigma; None for the tolerance.
        emit_proposal: emit the accepted proposals, not the target's means there; static.
    """

    tolerance: Scalar = 0.1
    temperature: Scalar | None = None
    emit_proposal: bool = dataclasses.field(default=False, metadata={"static": True})
    guarantee: ClassVar = "the target's mean, context within tolerance"
    correlated: ClassVar = True
    densities: ClassVar = True
    proposes: ClassVar = "mean"

    def check(self) -> None:
        """Raises InputError for a negative tolerance or a temperature that is not positive."""
        check_scalar("tolerance", self.tolerance, at_least=0)
        if self.temperature is not None:
            check_scalar("temperature", self.temperature, at_least=1e-6)

    def decide(self, key: jax.Array, current: Round) -> Outcome:
        """See `Rule`."""
        if self.temperature is None:
            score, limit = _closeness(gaps(current), self.tolerance)
        else:
            square = jnp.sum(jnp.square(gaps(current)), axis=(1, 2))
            score = -0.5 * square / jnp.square(self.temperature)
            limit = log_uniform(key, len(score))
        count = num_leading(score >= limit, current.length)
        emitted = current.proposals if self.emit_proposal else current.target_mean[:-1]
        patch = current.target_mean[count]
        return Outcome(count, patch, emitted, log_ratio=score, threshold=limit)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SharedNoise(Rule):
    """Sample paths: draft and target use the SAME noise, accepted while the means are close.

    z is the noise that the target alone gives to that patch, so tolerance 0 decodes as the target
    alone, draw by draw. Proposes `mu_q + s z` and emits `mu_p + s z` while the RMS gap of the means
    in units of s is at most `tolerance`. Every emitted patch has the target's distribution given
    its context. The context keeps the PROPOSAL and so is off by at most the tolerance (RMS) per
    patch: per patch W2 <= Lipschitz(target) x context gap; over a horizon measured, not guaranteed.

    Attributes:
        tolerance: largest RMS gap of the two means, in units of sigma.
    """

    tolerance: Scalar = 0.1
    guarantee: ClassVar = "the target's distribution, context within tolerance"
    correlated: ClassVar = True
    proposes: ClassVar = "patch_noise"

    def check(self) -> None:
        """Raises InputError for a negative tolerance."""
        check_scalar("tolerance", self.tolerance, at_least=0)

    def decide(self, key: jax.Array, current: Round) -> Outcome:
        """See `Rule`."""
        score, limit = _closeness(gaps(current), self.tolerance)
        count = num_leading(score >= limit, current.length)
        errors = apply(current.noise, current.target_sigma[:-1], current.correlation)
        emitted = current.target_mean[:-1] + errors
        return Outcome(
            count, target_draw(current, count), emitted, log_ratio=score, threshold=limit
        )


def _closeness(gap: jax.Array, tolerance: Scalar) -> tuple[jax.Array, jax.Array]:
    """Minus the RMS gap of each proposal `[K]`, and minus the tolerance to compare it with."""
    score = -jnp.sqrt(jnp.mean(jnp.square(gap), axis=(1, 2)))
    return score, jnp.broadcast_to(-jnp.asarray(tolerance, jnp.float32), score.shape)
