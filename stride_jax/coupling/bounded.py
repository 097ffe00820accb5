"""Rules that are not exact: what is bounded, and in which distance, stands in each docstring."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from stride_jax.coupling.base import (
    Outcome,
    Round,
    RuleParams,
    gaps,
    log_ratios,
    log_uniform,
    num_leading,
    target_draw,
)


def resample(key: jax.Array, current: Round, params: RuleParams) -> Outcome:
    """The paper's practical variant: on rejection draw afresh from the target's law.

    With bias 1 and no tolerance one patch is within total variation `beta (1 - beta)` of the
    target's law, beta the acceptance rate; a larger bias leaves TV(p, q), a tolerance nothing.
    """
    return _ratio_rule(key, log_ratios(current), current, params)


def as_released(key: jax.Array, current: Round, params: RuleParams) -> Outcome:
    """The ratio of the original's released code, to reproduce it; bounds nothing.

    `|x - mu_q|^2 / (2 v) - |x - mu_p|^2 / (2 sigma^2)` with v the draft's variance averaged over
    the patch: the log-determinant is dropped, so a draft whose sd is below sigma is accepted
    nearly always. With `adaptive_sigma` c the ratio's sigma is c times the mean squared gap of the
    means. A rejected proposal is redrawn as in `resample`.
    """
    axes = (1, 2)
    mean = current.target_mean[:-1]
    variance_p = jnp.mean(jnp.square(current.target_sigma[:-1]), axis=axes)
    if params.adaptive_sigma is not None:
        gap = jnp.mean(jnp.square(mean - current.draft_mean), axis=axes)
        variance_p = jnp.square(params.adaptive_sigma * gap)
    drawn = jnp.square(current.draft_sigma)
    variance = drawn if current.draft_logvar is None else jnp.exp(current.draft_logvar)
    variance_q = jnp.mean(variance, axis=axes)
    if params.adaptive_sigma is not None and current.draft_logvar is None:
        variance_q = variance_p
    to_p = jnp.sum(jnp.square(current.proposals - mean), axis=axes)
    to_q = jnp.sum(jnp.square(current.proposals - current.draft_mean), axis=axes)
    least = 1e-12  # equal means make an adaptive sigma of 0
    ratio = 0.5 * (to_q / jnp.maximum(variance_q, least) - to_p / jnp.maximum(variance_p, least))
    return _ratio_rule(key, ratio, current, params)


def _ratio_rule(key: jax.Array, ratio: jax.Array, current: Round, params: RuleParams) -> Outcome:
    """Accepts by a biased ratio or outright within a squared distance; redraws on rejection."""
    ratio = jnp.log(params.bias) + ratio
    log_u = log_uniform(key, len(ratio))
    square = jnp.square(current.proposals - current.target_mean[:-1])
    close = (jnp.mean(square, axis=(1, 2)) <= params.mse_tolerance) & (params.mse_tolerance > 0)
    count = num_leading((log_u <= ratio) | close, current.length)
    return Outcome(count, target_draw(current, count), log_ratio=ratio, threshold=log_u)


def mean(key: jax.Array, current: Round, params: RuleParams) -> Outcome:
    """Point forecasts: proposals are the draft's means, accepted while close to the target's.

    Accepts while the RMS gap in units of sigma is at most `tolerance`, or with `temperature` T at
    random with probability `exp(-|gap|^2 / (2 T^2))`. Emits the target's own mean for that prefix
    (or the proposal, `emit_proposal`), and the target's mean after the last accepted one. The
    context of what follows keeps the PROPOSAL: an emitted patch is the target's mean given a
    context off by at most the tolerance (RMS) a patch; over a horizon that compounds, so it is
    measured, not guaranteed. The temperature form has no such radius.
    """
    gap = gaps(current)
    if params.temperature is None:
        score, limit = _closeness(gap, params)
    else:
        square = jnp.sum(jnp.square(gap), axis=(1, 2))
        score = -0.5 * square / jnp.square(params.temperature)
        limit = log_uniform(key, len(score))
    count = num_leading(score >= limit, current.length)
    own = jnp.asarray(params.emit_proposal) > 0
    emitted = jnp.where(own, current.proposals, current.target_mean[:-1])
    patch = current.target_mean[count]
    return Outcome(count, patch, emitted, log_ratio=score, threshold=limit)


def shared_noise(key: jax.Array, current: Round, params: RuleParams) -> Outcome:
    """Sample paths: draft and target use the SAME noise, accepted while the means are close.

    z is the noise that the autoregressive decoder gives to that patch, so tolerance 0 decodes as it
    does, draw by draw. Proposes `mu_q + s z`, emits `mu_p + s z` while the RMS gap of the means in
    units of s is at most `tolerance`. Every emitted patch has the target's law given its context;
    the context keeps the PROPOSAL and so is off by at most the tolerance (RMS) a patch: per patch
    W2 <= Lipschitz(target) x context gap, over a horizon measured, not guaranteed.
    """
    score, limit = _closeness(gaps(current), params)
    count = num_leading(score >= limit, current.length)
    emitted = current.target_mean[:-1] + current.target_sigma[:-1] * current.noise
    return Outcome(count, target_draw(current, count), emitted, log_ratio=score, threshold=limit)


def _closeness(gap: jax.Array, params: RuleParams) -> tuple[jax.Array, jax.Array]:
    """Minus the RMS gap of each proposal `[K]`, and minus the tolerance to compare it with."""
    score = -jnp.sqrt(jnp.mean(jnp.square(gap), axis=(1, 2)))
    return score, jnp.broadcast_to(-jnp.asarray(params.tolerance, jnp.float32), score.shape)
