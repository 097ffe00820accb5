"""Objectives of distillation: how far the draft's output is from the target's labels.

Each takes patches `[B, N, P, C]` and consumes its key where it draws.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from stride_jax import metrics
from stride_jax.errors import InputError
from stride_jax.training import losses
from stride_jax.training.config import DistillConfig
from stride_jax.training.step import Metrics
from stride_jax.training.teacher import Output, mean_of


def mean_matching(
    config: DistillConfig, key: jax.Array, out: Output, labels: Output, truth: jax.Array
) -> jax.Array:
    """Mean squared distance of the means; a log variance is not trained."""
    del config, key, truth
    return metrics.mse(mean_of(out), mean_of(labels))


def gap(
    config: DistillConfig, key: jax.Array, out: Output, labels: Output, truth: jax.Array
) -> jax.Array:
    """Mean logarithm of 1 + the distance of a patch in stds of the target, see `losses.patch_gaps`.

    The logarithm keeps series whose next values the target knows almost exactly from dominating. A
    log variance of the draft is not trained.
    """
    del config, key, truth
    assert isinstance(labels, tuple)  # see `check_distillation`
    return jnp.mean(jnp.log1p(losses.patch_gaps(mean_of(out), *labels)))


def nll(
    config: DistillConfig, key: jax.Array, out: Output, labels: Output, truth: jax.Array
) -> jax.Array:
    """Negative log-likelihood of the target's mean with noise; consumes the key."""
    del truth
    mean, logvar = _gaussian(config, out)
    noise = config.teacher_noise * jax.random.normal(key, mean.shape)
    likelihood = jnp.mean(losses.gaussian_nll(mean, logvar, mean_of(labels) + noise))
    return likelihood + _regulariser(config, logvar)


def kl_mse(
    config: DistillConfig, key: jax.Array, out: Output, labels: Output, truth: jax.Array
) -> jax.Array:
    """Divergence from the target's distribution at sigma, plus the error against the truth."""
    del key
    mean, logvar = _gaussian(config, out)
    divergence = jnp.mean(losses.gaussian_kl(mean_of(labels), config.sigma, mean, logvar))
    error = config.mse_weight * metrics.mse(mean, truth)
    return divergence + error + _regulariser(config, logvar)


def _gaussian(config: DistillConfig, out: Output) -> tuple[jax.Array, jax.Array]:
    """Mean and log variance, or InputError for a draft that has no variance."""
    if not isinstance(out, tuple):
        raise InputError(f"objective {config.objective!r} needs a draft with head 'gaussian'.")
    return out


def _regulariser(config: DistillConfig, logvar: jax.Array) -> jax.Array:
    """The weighted penalty of a variance that collapses."""
    return config.variance_reg * jnp.mean(losses.variance_regulariser(logvar))


OBJECTIVES: dict[str, Callable[..., jax.Array]] = {
    "mean": mean_matching,
    "nll": nll,
    "kl_mse": kl_mse,
    "gap": gap,
}
"""Objectives by their names in `DistillConfig`."""


def window_error(
    config: DistillConfig, proposals: jax.Array, labels: Output, patch_len: int
) -> jax.Array:
    """The validation error of each window: as the objective gap, or the squared distance of means.

    Args:
        config: Objective.
        proposals: The draft's mean `[B, T, C]` of the patches after a context.
        labels: The target's mean, the same shape, or `(mean, logvar)`.
        patch_len: P; T is a multiple of it.

    Returns:
        `[B]`.
    """
    if config.objective == "gap":
        assert isinstance(labels, tuple)  # see `check_distillation`
        proposals, *target = (_in_patches(z, patch_len) for z in (proposals, *labels))
        return jnp.mean(jnp.log1p(losses.patch_gaps(proposals, *target)), axis=1)
    return jnp.mean(jnp.square(proposals - mean_of(labels)), axis=(1, 2))


def _in_patches(z: jax.Array, patch_len: int) -> jax.Array:
    """`[B, T, C]` -> `[B, T / P, P, C]`."""
    return z.reshape(z.shape[0], -1, patch_len, z.shape[2])


def objective(
    config: DistillConfig,
    key: jax.Array,
    out: Output,
    labels: Output,
    truth: jax.Array,
    patch_len: int,
) -> tuple[jax.Array, Metrics]:
    """The distillation loss of the draft's output at all positions.

    Args:
        config: Objective and weights.
        key: For the teacher noise of nll; consumed.
        out: The draft's mean `[B, T, C]`, or `(mean, logvar)`.
        labels: The target's mean, the same shape, or `(mean, logvar)`.
        truth: The series' next values, the same shape; used by kl_mse.
        patch_len: P; T is a multiple of it.

    Returns:
        `(loss, metrics)`; the metric `rms_gap` is the RMS distance of the means.

    Raises:
        InputError: an objective of distributions and a draft without a variance.
    """
    out, labels, truth = jax.tree.map(lambda z: _in_patches(z, patch_len), (out, labels, truth))
    distance = {"rms_gap": jnp.sqrt(metrics.mse(mean_of(out), mean_of(labels)))}
    return OBJECTIVES[config.objective](config, key, out, labels, truth), distance
