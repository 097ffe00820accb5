"""From histories to forecasts: means, quantiles and sample paths in the units of the history."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.checkpoints.build import Pair, ProcessKind, make_pair, make_target, trained_kind
from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.checkpoints.store import find_model
from stride_jax.config import whole_number
from stride_jax.decoding.base import (
    DecodeConfig,
    DecodeInfo,
    Draft,
    Process,
    Rule,
    check_parameters,
    num_patches,
    traits_of,
)
from stride_jax.decoding.checks import array_shape, as_key, check_size
from stride_jax.decoding.drafts import as_draft
from stride_jax.decoding.rules import Block, Mean, rule_name
from stride_jax.decoding.speculative import decode
from stride_jax.errors import InputError, InputWarning
from stride_jax.forecasting.histories import (
    Contexts,
    Histories,
    Missing,
    make_contexts,
    read_histories,
)
from stride_jax.forecasting.history_sigma import RESIDUALS, sigmas
from stride_jax.forecasting.lengths import groups, longest, make_view, visible_steps

PATHS_AT_ONCE = 2000
"""Sample paths decoded at once unless told otherwise: caches must not grow with the series."""
FILLED_WARNS, FILLED_FAILS = 0.25, 0.5
"""Shares of interpolated values in what is decoded from: more than that is said, or refused."""


Part = tuple[np.ndarray, np.ndarray, DecodeInfo]
"""Numbers of some series, their forecasts `[b, S, H, C]` and what was counted."""
LEVELS = (0.1, 0.5, 0.9)


class Forecast(NamedTuple):
    """Forecasts in the units of the history, float64.

    Attributes:
        mean: `[H]`, `[H, C]`, or with a leading B, as the history came: the mean of the sample
            paths, or the mean path where there are none.
        quantiles: the same with an axis of quantiles before H, or None.
        levels: their probabilities, ascending.
        paths: the same with an axis of S sample paths before H, or None.
        sigma: std of a step's law given the steps before; the shape of the mean without H.
        info: counts of the decode, a series and path; see `DecodeInfo`. Where a history ends
            without values, the patches over its end count too; other series have the origin -1
            there.
        non_negative: bool, whether forecasts were cut off at 0; the shape of sigma.
    """

    mean: np.ndarray
    quantiles: np.ndarray | None
    levels: tuple[float, ...]
    paths: np.ndarray | None
    sigma: np.ndarray
    info: DecodeInfo
    non_negative: np.ndarray


def forecast(
    target: str | Path | Checkpoint | Process,
    history: Any,
    horizon: int,
    *,
    draft: str | Path | Checkpoint | Draft | Process | None = None,
    key: jax.Array | int = 0,
    num_samples: int = 100,
    quantiles: Sequence[float] = LEVELS,
    sigma: float | None = None,
    variables: str = "separate",
    process: ProcessKind | None = None,
    context_len: int | None = None,
    num_draft: int = 5,
    rule: Rule | None = None,
    missing: Missing = "interpolate",
    batch_size: int | None = None,
    path_chunk: int | None = None,
    ids: Sequence[str] | None = None,
    non_negative: bool | None = None,
) -> Forecast:
    """Forecasts one series or many.

    Args:
        target: a checkpoint, its path or asset name; or a process of your own, which sees the
            history as it is (one that normalises sees it standardised, see `processes.Traits`).
        history: `[T]`, `[T, C]`, `[B, T, C]`, or a list of `[T]` or `[T, C]` of different lengths;
            NaN is a missing value. Its last `context_len` steps count, in whole patches; sigma is
            measured on up to eight patches more, as far back as they are like those steps (see
            `history.alike`). A target that sees all it is given and masks no padding sees a
            history shorter than that in one of few lengths, so that it is not compiled for each:
            see `lengths.few_patches`.
        horizon: H, steps to forecast; any number.
        draft: what proposes: as `pairs.make_pair` takes it, or a draft or process of your own.
            None decodes the target alone. The law of the forecast is the same with an exact rule.
        key: PRNG key, or a seed from 0 to 2**32 - 1; series i takes `fold_in(key, i)`, see also
            `ids`.
        num_samples: S, sample paths a series; 0 for the mean path alone.
        quantiles: different probabilities in (0, 1); they never cross, being those of the sample
            paths.
        sigma: std of a step's law in the units of the history; None measures it on each history:
            the root of the mean squared error of the target's one-patch forecasts of the last eight
            patches, where values were observed, with a patch's weight on half the std of the
            context. As long as fewer patches could be forecast, more of the std counts. With none
            it is the std of the observed values, made larger so that the mean of as many values of
            white noise +- 1.28 sigma holds 80 % of the next ones (Student's t), and the distance of
            the target's forecast from their mean (root mean square of a patch, at most twice the
            former), squares added. Of one value, or of several that are all the same, sigma is
            their absolute value (1 for zeros) over their number until a patch could be forecast.
        variables: separate forecasts each variable as a series of its own, joint all together.
        process: window or cached; None takes cached for models with causal normalisation.
        context_len: L; None for what the target was trained on or sees, else the longest history.
        num_draft: K, patches proposed a round.
        rule: acceptance rule; None takes `Block()` for sample paths (exact) and `Mean()` for the
            mean path (within its tolerance).
        missing: interpolate gaps, or error; see `history.read_histories`. Missing values before
            the first known one are no history. Those after the last one are forecast too, as many
            steps more, and only what comes after them is returned.
        batch_size: series decoded at once; None for as many as make 2,000 sample paths.
        path_chunk: paths of a series decoded at once; None for 2,000.
        ids: text, a different one for each series. Series `id` then takes a hash of that text in
            place of its number (and variables that are apart their number beside it), so that its
            paths do not depend on which series are forecast with it, or in which order.
        non_negative: cut the sample paths, or the mean path, off at 0; None does so for each
            variable whose history is never below 0. Mean and quantiles are those of the cut
            paths. The decoded paths themselves go on from uncut values: with an exact rule what is
            returned has the distribution of max(x, 0), x a path of the target.

    Raises:
        InputError: anything that cannot be forecast, before anything is compiled; also a history
            of which most of what is decoded from would be interpolated; and a target that predicts
            no finite numbers.

    Warns:
        InputWarning: more than a quarter of that is interpolated; sigma is to be measured on a
            history that tells no spread; the sample paths are too few for a quantile q,
            `num_samples * min(q, 1 - q) < 1`.
    """
    levels = _levels(quantiles)
    horizon = whole_number("horizon", horizon, least=1)
    num_samples = whole_number("num_samples", num_samples, least=0)
    num_draft = whole_number("num_draft", num_draft, least=0)
    context_len, batch_size, path_chunk = (
        None if count is None else whole_number(name, count, least=1)
        for name, count in (
            ("context_len", context_len),
            ("batch_size", batch_size),
            ("path_chunk", path_chunk),
        )
    )
    _check_sigma(sigma)
    if variables not in ("separate", "joint"):
        raise InputError(f"variables must be 'separate' or 'joint', got {variables!r}.")
    _check_non_negative(non_negative)
    chosen = _rule(rule, num_samples)
    key = as_key(key)
    histories = read_histories(history, missing, apart=variables == "separate", ids=ids)
    pair, context_len = _pair(target, draft, process, context_len, histories.series)
    patch_len = pair.target.patch_len
    config = DecodeConfig(
        horizon,
        num_draft if draft is not None else 0,
        num_paths=max(1, num_samples),
        batch_size=batch_size or _batch_size(len(histories.series), num_samples),
        path_chunk=path_chunk or (PATHS_AT_ONCE if num_samples > PATHS_AT_ONCE else None),
    )
    check_size((len(histories.series), *histories.series[0].shape), patch_len, config)
    check_parameters(pair.target)
    shown = _shown(pair.target, context_len, histories)
    view = make_view(pair.target, pair.draft, context_len, shown.series)
    # some more than is decoded from: sigma is measured on the last patches given those before
    measured = view.room + RESIDUALS * patch_len
    whole = make_contexts(
        shown.series,
        view.length,
        patch_len,
        observed=shown.observed,
        more=max(measured, view.shared) - view.length,
        standardise=traits_of(pair.target).normalises,
    )
    _check_filled(whole.filled, histories.names)
    _warn_of_few_paths(levels, num_samples)
    before = np.minimum(whole.similar, view.length + RESIDUALS * patch_len)
    spread = _sigmas(
        pair.target, _last(whole, measured, before), view.length, sigma, batch_size, histories.names
    )
    _check_finite("sigma", np.arange(len(spread)), spread, histories.names)
    contexts = _last(whole, view.shared, view.length if view.masked else view.shared)
    streams, ahead = _streams(ids, histories), np.array(histories.ahead)
    patches = np.array([num_patches(config.horizon + more, patch_len) for more in ahead])
    parts = [
        _decode(pair, contexts, spread, rows, ahead, streams, key, config, chosen, view.masked)
        for rows in groups(view.masked, contexts.lengths, patches)
    ]
    for rows, paths, _ in parts:
        _check_finite("forecast", rows, paths, histories.names)
    return _result(
        parts, contexts, spread, histories, levels, non_negative, sampled=num_samples > 0
    )


def _result(
    parts: list[Part],
    contexts: Contexts,
    spread: np.ndarray,
    histories: Histories,
    levels: tuple[float, ...],
    non_negative: bool | None,
    *,
    sampled: bool,
) -> Forecast:
    """Back in the order, units and shapes of the histories."""
    order = np.argsort(np.concatenate([rows for rows, _, _ in parts]))
    paths = np.concatenate([paths for _, paths, _ in parts])[order]  # [B, S, H, C]
    info = jax.tree.map(lambda x: x[order], _joined([info for _, _, info in parts]))
    paths = paths * contexts.scale[:, None] + contexts.mean[:, None]
    cut = np.array([one.min(axis=0) >= 0 for one in histories.series])[:, None, None]
    if non_negative is not None:
        cut = np.full_like(cut, non_negative)
    paths = _as_came(np.where(cut, np.maximum(paths, 0), paths), histories)
    axis = -2 if histories.flat else -3  # of the paths
    ranked = None
    if sampled and levels:
        ranked = np.moveaxis(np.quantile(paths, levels, axis=axis), 0, axis)
    once = axis, axis + 1  # S and H of 1
    return Forecast(
        mean=paths.mean(axis=axis),
        quantiles=ranked,
        levels=levels,
        paths=paths if sampled else None,
        sigma=np.squeeze(_as_came((spread * contexts.scale)[:, None], histories), axis=once),
        info=info,
        non_negative=np.squeeze(_as_came(cut, histories), axis=once),
    )


def _joined(infos: list[DecodeInfo]) -> DecodeInfo:
    """One info of several groups of series, with room for the most patches of any."""
    room = max(info.origin.shape[2] for info in infos)

    def filled(values: Any, value: float) -> Any:
        after = [(0, 0)] * values.ndim
        after[2] = (0, room - values.shape[2])
        return np.pad(values, after, constant_values=value)

    infos = [
        info._replace(origin=filled(info.origin, -1), proposal=filled(info.proposal, np.nan))
        for info in infos
    ]
    joined: DecodeInfo = jax.tree.map(lambda *parts: np.concatenate(parts), *infos)
    return joined


def _levels(quantiles: Sequence[float]) -> tuple[float, ...]:
    listed = len(array_shape("quantiles", quantiles)) == 1
    if not listed or np.asarray(quantiles).dtype.kind not in "iuf":
        raise InputError(
            f"quantiles must be a list of numbers such as (0.1, 0.9), got {quantiles!r}."
        )
    bad = [q for q in quantiles if not 0 < q < 1]
    if bad:
        raise InputError(f"quantiles must be inside (0, 1), got {bad[0]}.")
    levels = tuple(sorted(float(q) for q in quantiles))
    twice = [q for q, after in itertools.pairwise(levels) if q == after]
    if twice:
        raise InputError(f"quantiles must differ, got {twice[0]} twice.")
    return levels


def _warn_of_few_paths(levels: tuple[float, ...], num_samples: int) -> None:
    """Says it where fewer than one path is expected below a quantile, or above it."""
    rare = [q for q in levels if 0 < num_samples * min(q, 1 - q) < 1 - 1e-9]
    if rare:
        outer = min(rare, key=lambda q: min(q, 1 - q))
        _warn(
            f"{num_samples} sample paths do not tell the quantiles {', '.join(map(str, rare))}; "
            f"num_samples {math.ceil(1 / min(outer, 1 - outer) - 1e-9)} is the least for them."
        )


def _warn(text: str) -> None:
    warnings.warn(text, InputWarning, stacklevel=4)


def _check_filled(filled: np.ndarray, names: list[str]) -> None:
    """Refuses a forecast from values that are mostly interpolated, and says it of fewer."""
    share = filled.max(axis=1)  # of each series the variable with the most
    most = int(np.argmax(share))
    if share[most] > FILLED_FAILS:
        raise InputError(
            f"{names[most]} has no values in {share[most]:.1%} of the steps it is forecast from; "
            "interpolated values cannot stand for them. Look for a wrong time, take a coarser "
            "clock (freq), or leave out what comes before the gap."
        )
    gappy = np.flatnonzero(share > FILLED_WARNS)
    if len(gappy):
        _warn(
            f"{_listed(names, gappy)}: up to {share[most]:.1%} of the steps it is forecast from "
            "have no values and are interpolated."
        )


def _listed(names: list[str], rows: np.ndarray) -> str:
    """The first names, and how many more."""
    more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
    return ", ".join(names[row] for row in rows[:3]) + more


def _check_non_negative(non_negative: Any) -> None:
    if not (non_negative is None or isinstance(non_negative, bool)):
        raise InputError(f"non_negative must be True, False or None, got {non_negative!r}.")


def _streams(ids: Sequence[str] | None, histories: Histories) -> np.ndarray:
    """What each series folds into the key, int32: its number, or a hash of its id's text."""
    count = len(histories.series)
    if ids is None:
        return np.arange(count, dtype=np.int32)
    apart = count // len(ids)  # variables that are series of their own
    return np.array([_stream(one, c) for one in ids for c in range(apart)], np.int32)


def _stream(text: str, variable: int) -> int:
    """31 bits of a hash that no platform or process changes."""
    seen = f"{variable} {text}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(seen, digest_size=4).digest(), "big") >> 1


def _check_finite(name: str, rows: np.ndarray, values: np.ndarray, names: list[str]) -> None:
    """Raises InputError for what the target predicts after a finite history, `[b, ..., C]`."""
    if np.isfinite(values).all():
        return
    bad = tuple(np.argwhere(~np.isfinite(values))[0])
    variable = f", variable {bad[-1]}" if values.shape[-1] > 1 else ""
    raise InputError(
        f"{names[rows[bad[0]]]}{variable} has the {name} {values[bad]}: the target predicts no "
        "finite numbers; check its parameters and what it does with this history."
    )


def _batch_size(series: int, num_samples: int) -> int:
    """Series decoded at once, in even chunks. 862 series with 100 paths: 44 of 20."""
    chunks = -(-series * max(1, num_samples) // PATHS_AT_ONCE)
    return -(-series // chunks)


def _check_sigma(sigma: Any) -> None:
    number = array_shape("sigma", sigma) == () and np.asarray(sigma).dtype.kind in "iuf"
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


def _pair(
    target: Any, draft: Any, kind: ProcessKind | None, context_len: int | None, series: Any
) -> tuple[Pair, int | None]:
    """The models ready to decode, and L; None where the histories or the target decide it."""
    num_vars, named = series[0].shape[1], isinstance(draft, str | Path | Checkpoint)
    draft = str(draft) if isinstance(draft, Path) else draft
    if isinstance(target, str | Path | Checkpoint):
        checkpoint = target if isinstance(target, Checkpoint) else find_model(str(target))
        model = checkpoint.model
        length = context_len or checkpoint.context_len
        if kind is None:
            kind = trained_kind(model)
        if length is None and kind == "cached":  # its caches have room for the longest history
            length = longest(series, model.patch_len)
        if named:
            return make_pair(checkpoint, draft, kind, length, num_vars), length
        made = make_target(checkpoint, kind, length, num_vars)
    elif not hasattr(target, "verify"):
        raise InputError(
            f"target must be a checkpoint, its path or asset name, or a process, got {target!r}."
        )
    elif named:
        raise InputError("a draft by name needs a target by name; give a draft or process instead.")
    else:
        made, length = target, context_len
    proposing = as_draft(made if draft is None else draft)
    if proposing.patch_len != made.patch_len:
        raise InputError(
            f"target and draft must share a patch length, got {made.patch_len} and "
            f"{proposing.patch_len}."
        )
    return Pair(made, proposing), length


def _shown(target: Process, context_len: int | None, histories: Histories) -> Histories:
    """The histories cut to what counts of them, see `lengths.visible_steps`."""
    steps = visible_steps(target, context_len, histories.series)
    series = [one[len(one) - n :] for one, n in zip(histories.series, steps, strict=True)]
    observed = [one[len(one) - n :] for one, n in zip(histories.observed, steps, strict=True)]
    return histories._replace(series=series, observed=observed)


def _last(contexts: Contexts, steps: int, most: int | np.ndarray) -> Contexts:
    """The last steps of the contexts, of which at most `most` are history."""
    return contexts._replace(
        values=contexts.values[:, -steps:],
        observed=contexts.observed[:, -steps:],
        lengths=np.minimum(contexts.lengths, most).astype(np.int32),
    )


def _sigmas(
    target: Process,
    contexts: Contexts,
    context_len: int,
    sigma: float | None,
    batch_size: int | None,
    names: list[str],
) -> np.ndarray:
    """Sigma of each series over its scale, `[B, 1, C]` float64: given, or measured."""
    if sigma is not None:
        return sigma / contexts.scale
    measured, unsure = sigmas(target, contexts, context_len, batch_size)
    if unsure.any():
        _warn(
            f"{_listed(names, np.flatnonzero(unsure))}: one value, or all the same, tell nothing "
            "of how they vary; sigma is the value over the number of values. Give sigma if you "
            "know better."
        )
    return measured


def _decode(
    pair: Pair,
    contexts: Contexts,
    spread: np.ndarray,
    rows: np.ndarray,
    ahead: np.ndarray,
    streams: np.ndarray,
    key: jax.Array,
    config: DecodeConfig,
    rule: Rule,
    masked: bool,
) -> Part:
    """`(rows, forecasts [b, S, H, C] in units of the context's scale, info)` of some series."""
    length = contexts.values.shape[1] if masked else int(contexts.lengths[rows[0]])
    context = jnp.asarray(contexts.values[rows][:, contexts.values.shape[1] - length :])
    horizon, skipped = config.horizon, ahead[rows]
    decoded, info = decode(
        key,
        context,
        target=pair.target,
        draft=pair.draft,
        sigma=jnp.asarray(spread[rows], jnp.float32),
        config=dataclasses.replace(config, horizon=horizon + int(skipped.max())),
        rule=rule,
        series_index=jnp.asarray(streams[rows]),
        lengths=jnp.asarray(contexts.lengths[rows]) if masked else None,
    )
    steps = skipped[:, None] + np.arange(horizon)  # [b, H]
    last = np.take_along_axis(np.asarray(decoded, np.float64), steps[:, None, :, None], axis=2)
    return rows, last, jax.tree.map(np.asarray, info)


def _as_came(values: np.ndarray, found: Histories) -> np.ndarray:
    """Decoded series `[n, S, H, C]` -> `[B, S, H, C]`, without the axes the user left out."""
    if values.shape[-1] != found.num_vars:
        # [B * C, S, H, 1] -> [B, C, S, H] -> [B, S, H, C]
        values = np.moveaxis(values[..., 0].reshape(-1, found.num_vars, *values.shape[1:3]), 1, -1)
    values = values[..., 0] if found.flat else values
    return values if found.batched else values[0]
