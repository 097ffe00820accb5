"""Arguments of `forecast`, checked before anything is read or compiled."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from stride_jax.checkpoints.pair import Pair
from stride_jax.config import whole_number
from stride_jax.decoding.base import Process, Rule
from stride_jax.decoding.checks import array_shape
from stride_jax.decoding.keys import as_key
from stride_jax.decoding.rules import Block, Mean, Residual, rule_name
from stride_jax.decoding.traits import traits_of
from stride_jax.decoding.types import DecodeConfig
from stride_jax.errors import InputError

NUM_SAMPLES = 100
"""Sample paths unless told otherwise."""
LEVELS = (0.1, 0.5, 0.9)
"""Levels of the quantiles unless told otherwise."""
PATHS_AT_ONCE = 2000
"""Sample paths decoded at once unless told otherwise: caches must not grow with the series."""


class Settings(NamedTuple):
    """Checked settings of a forecast; see `forecast`.

    Attributes:
        horizon: H.
        num_samples: S, sample paths per series; 0 for the mean path.
        levels: probabilities of the quantiles, ascending.
        sigma: in the units of the history, or None to measure it.
        num_draft: K.
        rule: acceptance rule.
        key: PRNG key.
        batch_size: series decoded at once, or None.
        path_chunk: paths of a series decoded at once, or None.
        non_negative: cut off at 0; None decides by the history.
    """

    horizon: int
    num_samples: int
    levels: tuple[float, ...]
    sigma: float | None
    num_draft: int
    rule: Rule
    key: jax.Array
    batch_size: int | None
    path_chunk: int | None
    non_negative: bool | None

    def each_way(self) -> Settings:
        """Settings of a decode of the histories and of their mirror images, row by row."""
        rows = None if self.batch_size is None else 2 * self.batch_size
        return self._replace(num_samples=-(-self.num_samples // 2), batch_size=rows)

    def decode_config(self, count: int, *, drafted: bool) -> DecodeConfig:
        """Sizes of the decode of `count` series."""
        batch_size = self.batch_size or series_at_once(count, self.num_samples)
        most = PATHS_AT_ONCE if self.num_samples > PATHS_AT_ONCE else None
        path_chunk = self.path_chunk or most
        several = (batch_size or count) < count or path_chunk is not None
        return DecodeConfig(
            self.horizon,
            self.num_draft if drafted else 0,
            num_paths=max(1, self.num_samples),
            batch_size=batch_size,
            path_chunk=path_chunk,
            # A loop that runs once takes longer to compile for smaller sizes than they save.
            compactions=None if several else 0,
        )


def check_settings(
    *,
    horizon: Any,
    num_samples: Any,
    quantiles: Any,
    sigma: Any,
    num_draft: Any,
    rule: Any,
    key: Any,
    batch_size: Any,
    path_chunk: Any,
    non_negative: Any,
) -> Settings:
    """The settings of a forecast.

    Raises:
        InputError: one of them is out of range, or rule and sample paths do not fit.
    """
    levels = _levels(quantiles)
    horizon = whole_number("horizon", horizon, least=1)
    num_samples = whole_number("num_samples", num_samples, least=0)
    num_draft = _num_draft(num_draft)
    batch_size, path_chunk = (
        None if count is None else whole_number(name, count, least=1)
        for name, count in (("batch_size", batch_size), ("path_chunk", path_chunk))
    )
    _check_sigma(sigma)
    if not (non_negative is None or isinstance(non_negative, bool)):
        raise InputError(f"non_negative must be True, False or None, got {non_negative!r}.")
    _check_rule(rule, num_samples)
    return Settings(
        horizon=horizon,
        num_samples=num_samples,
        levels=levels,
        sigma=sigma,
        num_draft=num_draft,
        rule=rule,
        key=as_key(key),
        batch_size=batch_size,
        path_chunk=path_chunk,
        non_negative=non_negative,
    )


def choose_output(
    target: Process, num_samples: Any, quantiles: Sequence[float] | None
) -> tuple[Any, Sequence[float]]:
    """Sample paths and levels of a forecast, where the caller leaves them to the target.

    Args:
        target: its `Traits.reports` decide.
        num_samples: as in `forecast`.
        quantiles: as in `forecast`.

    Raises:
        InputError: without sample paths, a level that is none of those that the target reports.
    """
    reported = reported_levels(target)
    if num_samples is None:
        num_samples = 0 if reported else NUM_SAMPLES
    direct = bool(reported) and not isinstance(num_samples, bool) and num_samples == 0
    if quantiles is None:
        return num_samples, reported if direct else LEVELS
    if direct:
        check_reported(reported, _levels(quantiles))
    return num_samples, quantiles


def default_rule(target: Process, num_samples: Any) -> Rule:
    """The rule for sample paths of a target, or for its mean path (0 of them)."""
    if isinstance(num_samples, int | np.integer) and num_samples == 0:
        return Mean()
    return Residual() if traits_of(target).predicts_density else Block()


def reported_levels(target: Process) -> tuple[float, ...]:
    """Levels of the quantiles that a target reports; none where it reports words alone."""
    return tuple(x for x in traits_of(target).reports if not isinstance(x, str))


def check_reported(reported: tuple[float, ...], levels: Sequence[float]) -> None:
    """Raises InputError for a level that is not among the reported ones."""
    unknown = [q for q in levels if q not in reported]
    if unknown:
        raise InputError(
            f"the target does not report the quantile {unknown[0]}; without sample paths take of "
            f"{', '.join(map(str, reported))}, or ask for paths (num_samples 100)."
        )


def as_pair(pair: Pair | Process) -> Pair:
    """A pair as it is; a process as a target without a draft.

    Raises:
        InputError: neither of the two.
    """
    if isinstance(pair, Pair):
        return pair
    if not hasattr(pair, "verify"):
        raise InputError(
            "pair must be a Pair or a process, such as load_pair('beijing') or "
            f"Pair(target, draft), got {pair!r}."
        )
    return Pair(pair)


def _levels(quantiles: Sequence[float]) -> tuple[float, ...]:
    """Probabilities of the quantiles, ascending."""
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


def _check_sigma(sigma: Any) -> None:
    number = array_shape("sigma", sigma) == () and np.asarray(sigma).dtype.kind in "iuf"
    if sigma is not None and not (number and 0 < sigma < np.inf):
        raise InputError(f"sigma must be a finite number > 0 or None, got {sigma!r}.")


def _num_draft(num_draft: Any) -> int:
    """K; `auto` has been replaced by the one that is chosen."""
    if isinstance(num_draft, str):
        raise InputError(
            f"num_draft must be 'auto' or a whole number from 0 on, got {num_draft!r}."
        )
    return whole_number("num_draft", num_draft, least=0)


def _check_rule(rule: Any, num_samples: int) -> None:
    """Raises InputError for what is no rule, or no rule for sample paths or for the mean path."""
    if not isinstance(rule, Rule):
        raise InputError(f"rule must be an acceptance rule such as Block(), got {rule!r}.")
    rule.check()
    if (rule.proposes == "mean") == (num_samples > 0):
        output, other = ("a mean path", "Block()") if num_samples else ("sample paths", "Mean()")
        raise InputError(
            f"rule {rule_name(rule)!r} makes {output}; with num_samples {num_samples} use {other}."
        )


def series_at_once(series: int, num_samples: int) -> int:
    """Series decoded at once, in even chunks. 862 series with 100 paths: 44 of 20."""
    chunks = -(-series * max(1, num_samples) // PATHS_AT_ONCE)
    return -(-series // chunks)
