"""From histories to forecasts: means, quantiles and sample paths in the units of the history."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.checkpoints import Checkpoint
from stride_jax.config import DecodeConfig
from stride_jax.convert import find_model
from stride_jax.coupling import Block, Mean, Rule, rule_name
from stride_jax.decoding import DecodeInfo, compiled, in_chunks
from stride_jax.drafts import Draft, as_draft
from stride_jax.errors import InputError
from stride_jax.history import Contexts, Histories, Missing, make_contexts, read_histories
from stride_jax.pairs import Pair, ProcessKind, make_pair, make_target, trained_kind
from stride_jax.processes import CachedProcess, Process
from stride_jax.speculative import decode

PRIOR_SIGMA = 0.5
"""sigma over the std of the context before anything is known of the series."""
RESIDUALS = 8
"""The last patches of a history whose one-patch errors give its sigma."""
PATHS_AT_ONCE = 2000
"""Sample paths decoded at once unless told otherwise: caches must not grow with the series."""
SERIES_AT_ONCE = 256
"""Series whose sigma is measured at once, at most."""


Part = tuple[np.ndarray, np.ndarray, DecodeInfo]
"""Numbers of some series, their forecasts `[b, S, H, C]` and what was counted."""


class Forecast(NamedTuple):
    """Forecasts in the units of the history, float64.

    Attributes:
        mean: `[H]`, `[H, C]`, or with a leading B, as the history came: the mean of the sample
            paths, or the mean path where there are none.
        quantiles: the same with an axis of quantiles before H, or None.
        levels: their probabilities, ascending.
        paths: the same with an axis of S sample paths before H, or None.
        sigma: std of a step's law given the steps before; the shape of the mean without H.
        info: counts of the decode, a series and path; see `DecodeInfo`.
    """

    mean: np.ndarray
    quantiles: np.ndarray | None
    levels: tuple[float, ...]
    paths: np.ndarray | None
    sigma: np.ndarray
    info: DecodeInfo


def forecast(
    target: str | Path | Checkpoint | Process,
    history: Any,
    horizon: int,
    *,
    draft: str | Path | Checkpoint | Draft | Process | None = None,
    key: jax.Array | int = 0,
    num_samples: int = 100,
    quantiles: Sequence[float] = (0.1, 0.5, 0.9),
    sigma: float | None = None,
    variables: str = "separate",
    process: ProcessKind | None = None,
    context_len: int | None = None,
    num_draft: int = 5,
    rule: Rule | None = None,
    missing: Missing = "interpolate",
    batch_size: int | None = None,
    path_chunk: int | None = None,
) -> Forecast:
    """Forecasts one series or many.

    Args:
        target: a checkpoint, its path or asset name; or a process of your own, which sees the
            history as it is (a model that normalises sees it standardised).
        history: `[T]`, `[T, C]`, `[B, T, C]`, or a list of `[T]` or `[T, C]` of different lengths;
            NaN is a missing value. Its last `context_len` steps count, in whole patches; sigma is
            measured on up to eight patches more.
        horizon: H, steps to forecast; any number.
        draft: what proposes: as `pairs.make_pair` takes it, or a draft or process of your own.
            None decodes the target alone. The law of the forecast is the same with an exact rule.
        key: PRNG key, or a seed; series i takes `fold_in(key, i)`.
        num_samples: S, sample paths a series; 0 for the mean path alone.
        quantiles: probabilities in (0, 1); they never cross, being those of the sample paths.
        sigma: std of a step's law in the units of the history; None measures it on each history:
            the root of the mean squared error of the target's one-patch forecasts of the last
            patches, with a patch's weight on half the std of the context.
        variables: separate forecasts each variable as a series of its own, joint all together.
        process: window or cached; None takes cached for models with causal normalisation.
        context_len: L; None for what the target was trained on.
        num_draft: K, patches proposed a round.
        rule: acceptance rule; None takes `Block()` for sample paths (exact) and `Mean()` for the
            mean path (within its tolerance).
        missing: interpolate gaps, or error; see `history.read_histories`.
        batch_size: series decoded at once; None for as many as make 2,000 sample paths.
        path_chunk: paths of a series decoded at once; None for 2,000.

    Raises:
        InputError: anything that cannot be forecast, before anything is compiled.
    """
    levels = _levels(quantiles)
    _check_count("horizon", horizon, 1)
    _check_count("num_samples", num_samples, 0)
    _check_count("num_draft", num_draft, 0)
    optional = {"context_len": context_len, "batch_size": batch_size, "path_chunk": path_chunk}
    for name, count in optional.items():
        if count is not None:
            _check_count(name, count, 1)
    _check_sigma(sigma)
    if variables not in ("separate", "joint"):
        raise InputError(f"variables must be 'separate' or 'joint', got {variables!r}.")
    chosen = _rule(rule, int(num_samples))
    spoken = _key(key)
    found = read_histories(history, missing, apart=variables == "separate")
    pair, length, standardise = _pair(target, draft, process, context_len, found.series)
    patch_len = pair.target.patch_len
    # some more than is decoded from: sigma is measured on the last patches given those before
    seen = make_contexts(
        found.series, length, patch_len, more=RESIDUALS * patch_len, standardise=standardise
    )
    spread = _sigmas(pair.target, seen, length, sigma, batch_size)
    contexts = seen._replace(
        values=seen.values[:, -length:], lengths=np.minimum(seen.lengths, length)
    )
    config = DecodeConfig(
        int(horizon),
        int(num_draft) if draft is not None else 0,
        num_paths=max(1, int(num_samples)),
        batch_size=batch_size or _batch_size(len(contexts.values), int(num_samples)),
        path_chunk=path_chunk or (PATHS_AT_ONCE if num_samples > PATHS_AT_ONCE else None),
    )
    parts = [
        _decode(pair, contexts, spread, rows, spoken, config, chosen)
        for rows in _groups(pair.target, contexts.lengths)
    ]
    own = _as_came((spread * contexts.scale)[:, None], found)  # with S and H of 1
    return _result(parts, contexts, own, found, levels, sampled=num_samples > 0)


def _result(
    parts: list[Part],
    contexts: Contexts,
    sigma: np.ndarray,
    found: Histories,
    levels: tuple[float, ...],
    *,
    sampled: bool,
) -> Forecast:
    """Back in the order, units and shapes of the histories."""
    order = np.argsort(np.concatenate([rows for rows, _, _ in parts]))
    made = np.concatenate([paths for _, paths, _ in parts])[order]  # [B, S, H, C]
    info = jax.tree.map(lambda *x: np.concatenate(x)[order], *[info for _, _, info in parts])
    made = _as_came(made * contexts.scale[:, None] + contexts.mean[:, None], found)
    axis = -2 if found.flat else -3  # of the paths
    ranked = None
    if sampled and levels:
        ranked = np.moveaxis(np.quantile(made, levels, axis=axis), 0, axis)
    return Forecast(
        mean=made.mean(axis=axis),
        quantiles=ranked,
        levels=levels,
        paths=made if sampled else None,
        sigma=np.squeeze(sigma, axis=(axis, axis + 1)),
        info=info,
    )


def _levels(quantiles: Sequence[float]) -> tuple[float, ...]:
    if np.ndim(quantiles) != 1 or np.asarray(quantiles).dtype.kind not in "iuf":
        raise InputError(
            f"quantiles must be a list of numbers such as (0.1, 0.9), got {quantiles!r}."
        )
    bad = [q for q in quantiles if not 0 < q < 1]
    if bad:
        raise InputError(f"quantiles must be inside (0, 1), got {bad[0]}.")
    return tuple(sorted(float(q) for q in quantiles))


def _check_count(name: str, value: Any, least: int) -> None:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise InputError(f"{name} must be a whole number from {least} on, got {value!r}.")


def _batch_size(series: int, num_samples: int) -> int:
    """Series decoded at once, in even chunks. 862 series with 100 paths: 44 of 20."""
    chunks = -(-series * max(1, num_samples) // PATHS_AT_ONCE)
    return -(-series // chunks)


def _check_sigma(sigma: Any) -> None:
    number = np.ndim(sigma) == 0 and not isinstance(sigma, str | bytes | bool)
    if sigma is not None and not (number and 0 < sigma < np.inf):
        raise InputError(f"sigma must be a finite number > 0 or None, got {sigma!r}.")


def _rule(rule: Rule | None, num_samples: int) -> Rule:
    """The rule, checked against what is asked for."""
    if rule is None:
        return Block() if num_samples else Mean()
    if not isinstance(rule, Rule):
        raise InputError(f"rule must be an acceptance rule such as Block(), got {rule!r}.")
    rule.check()
    if (rule.proposes == "mean") == (num_samples > 0):
        output, other = ("a mean path", "Block()") if num_samples else ("sample paths", "Mean()")
        raise InputError(
            f"rule {rule_name(rule)!r} makes {output}; with num_samples {num_samples} use {other}."
        )
    return rule


def _key(key: Any) -> jax.Array:
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        return jax.random.key(int(key))
    raw = getattr(key, "dtype", None) == np.uint32
    if raw or (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        return jnp.asarray(key)
    raise InputError(f"key must be a PRNG key or a whole number, got {key!r}.")


def _pair(
    target: Any, draft: Any, kind: ProcessKind | None, context_len: int | None, series: Any
) -> tuple[Pair, int, bool]:
    """The models ready to decode, L, and whether they see a standardised history."""
    num_vars, named = series[0].shape[1], isinstance(draft, str | Path | Checkpoint)
    draft = str(draft) if isinstance(draft, Path) else draft
    if isinstance(target, str | Path | Checkpoint):
        checkpoint = target if isinstance(target, Checkpoint) else find_model(str(target))
        model = checkpoint.model
        trained = context_len or checkpoint.context_len
        length = _length(series, model.patch_len) if trained is None else trained
        if kind is None:
            kind = trained_kind(model)
        standardise = model.instance_norm is not None
        if named:
            return make_pair(checkpoint, draft, kind, length, num_vars), length, standardise
        made = make_target(checkpoint, kind, length, num_vars)
    elif not hasattr(target, "verify"):
        raise InputError(
            f"target must be a checkpoint, its path or asset name, or a process, got {target!r}."
        )
    elif named:
        raise InputError("a draft by name needs a target by name; give a draft or process instead.")
    else:
        made, standardise = target, isinstance(target, CachedProcess) and target.norm is not None
        trained = context_len or getattr(target, "context_len", None)
        length = _length(series, target.patch_len) if trained is None else int(trained)
    proposing = as_draft(made if draft is None else draft)
    if proposing.patch_len != made.patch_len:
        raise InputError(
            f"target and draft must share a patch length, got {made.patch_len} and "
            f"{proposing.patch_len}."
        )
    return Pair(made, proposing), length, standardise


def _length(series: list[np.ndarray], patch_len: int) -> int:
    """Whole patches of the longest history."""
    return max(1, max(len(one) for one in series) // patch_len) * patch_len


def _groups(target: Process, lengths: np.ndarray) -> list[np.ndarray]:
    """Series that are decoded together: all, or those of one length where there is no mask."""
    if isinstance(target, CachedProcess):
        return [np.arange(len(lengths))]
    return [np.flatnonzero(lengths == n) for n in np.unique(lengths)]


def _sigmas(
    target: Process,
    contexts: Contexts,
    context_len: int,
    sigma: float | None,
    batch_size: int | None,
) -> np.ndarray:
    """Std of the law of each series over its scale, `[B, 1, C]` float64."""
    if sigma is not None:
        return sigma / contexts.scale
    together = batch_size or SERIES_AT_ONCE
    size = target.patch_len
    total, known = np.square(PRIOR_SIGMA * contexts.spread), np.ones(len(contexts.lengths))
    fixed = getattr(target, "context_len", None)
    for rows in _groups(target, contexts.lengths):
        values, lengths = contexts.values[rows], contexts.lengths[rows]
        if isinstance(target, CachedProcess):
            one = dataclasses.replace(target, context_len=context_len)
            seen = jnp.asarray(values), jnp.asarray(lengths)
            squares, there = _residuals(one, *seen, count=RESIDUALS, together=together)
        else:
            count = min(RESIDUALS, (int(lengths[0]) - (fixed or size)) // size)
            if count < 1:
                continue
            whole = jnp.asarray(values[:, values.shape[1] - int(lengths[0]) :])
            squares, there = _residuals(target, whole, None, count=count, together=together)
        total[rows] += np.asarray(squares, np.float64).sum(axis=1)[:, None]
        known[rows] += np.asarray(there).sum(axis=1)
    found: np.ndarray = np.sqrt(total / known[:, None, None])
    return np.maximum(found, 1e-6)


@compiled
def _residuals(
    target: Process,
    contexts: jax.Array,
    lengths: jax.Array | None,
    *,
    count: int,
    together: int,
) -> tuple[jax.Array, jax.Array]:
    """Mean squares of the one-patch errors of the last M patches, `[B, M, C]`, and `[B, M]` bool.

    The target verifies the true patches as if they were proposals. Errors of a patch that has no
    history before it are 0 and not known.
    """
    size = target.patch_len
    total = contexts.shape[1]

    def one(context: jax.Array, length: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        before = context[: -count * size]
        # [M * P, C] -> [M, P, C]
        patches = context[-count * size :].reshape(count, size, -1)
        memory = target.prepare(before, None if length is None else length - count * size)
        laws, _ = target.verify(memory, target.start(memory, count), patches)
        error = jnp.mean(jnp.square(laws.mean[:-1] - patches), axis=1)  # [M, C]
        known = jnp.ones(count, bool)
        if length is not None:
            first = (total - length) // size  # number of the first real patch
            known = (total // size - count) + jnp.arange(count) > first
            if getattr(target, "norm", None) == "frozen":
                known &= length > count * size  # its statistics are those of the part before
        return jnp.where(known[:, None], error, 0), known

    if lengths is None:
        return in_chunks(jax.vmap(lambda context: one(context, None)), contexts, together)
    return in_chunks(lambda part: jax.vmap(one)(*part), (contexts, lengths), together)


def _decode(
    pair: Pair,
    contexts: Contexts,
    spread: np.ndarray,
    rows: np.ndarray,
    key: jax.Array,
    config: DecodeConfig,
    rule: Rule,
) -> Part:
    """`(rows, forecasts [b, S, H, C] in units of the context's scale, info)` of some series."""
    cached = isinstance(pair.target, CachedProcess)
    length = contexts.values.shape[1] if cached else int(contexts.lengths[rows[0]])
    context = jnp.asarray(contexts.values[rows][:, contexts.values.shape[1] - length :])
    made, info = decode(
        key,
        context,
        target=pair.target,
        draft=pair.draft,
        sigma=jnp.asarray(spread[rows], jnp.float32),
        config=config,
        rule=rule,
        series_index=jnp.asarray(rows, jnp.int32),
        lengths=jnp.asarray(contexts.lengths[rows]) if cached else None,
    )
    return rows, np.asarray(made, np.float64), jax.tree.map(np.asarray, info)


def _as_came(values: np.ndarray, found: Histories) -> np.ndarray:
    """Decoded series `[n, S, H, C]` -> `[B, S, H, C]`, without the axes the user left out."""
    if values.shape[-1] != found.num_vars:
        # [B * C, S, H, 1] -> [B, C, S, H] -> [B, S, H, C]
        values = np.moveaxis(values[..., 0].reshape(-1, found.num_vars, *values.shape[1:3]), 1, -1)
    values = values[..., 0] if found.flat else values
    return values if found.batched else values[0]
