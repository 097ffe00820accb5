"""Checks of histories and forecasts that name the series, and warnings."""

from __future__ import annotations

import math
import sys
import warnings

import numpy as np

from stride_jax.decoding.scale import HUGE, TINY, as_float32
from stride_jax.errors import InputError, InputWarning

PACKAGE = "stride_jax."
FILLED_WARNS, FILLED_FAILS = 0.25, 0.5
"""Shares of interpolated values in what is decoded from: above them a warning, and an error."""


def warn_of_few_paths(levels: tuple[float, ...], num_samples: int) -> None:
    """Warns where fewer than one path is expected below a quantile, or above it."""
    rare = [q for q in levels if 0 < num_samples * min(q, 1 - q) < 1 - 1e-9]
    if rare:
        outer = min(rare, key=lambda q: min(q, 1 - q))
        warn(
            f"{num_samples} sample paths do not tell the quantiles {', '.join(map(str, rare))}; "
            f"num_samples {math.ceil(1 / min(outer, 1 - outer) - 1e-9)} is the least for them."
        )


def warn(text: str) -> None:
    """Warns from the first place outside this package, which called it."""
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, InputWarning, stacklevel=level)


def check_filled(filled: np.ndarray, names: list[str]) -> None:
    """Refuses a forecast from values that are mostly interpolated, and warns of fewer."""
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
        warn(
            f"{listed(names, gappy)}: up to {share[most]:.1%} of the steps it is forecast from "
            "have no values and are interpolated."
        )


def listed(names: list[str], rows: np.ndarray) -> str:
    """Up to three names, and the number of the others."""
    more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
    return ", ".join(names[row] for row in rows[:3]) + more


def check_given_sigma(sigma: float, relative: np.ndarray, names: list[str]) -> None:
    """Raises InputError for a sigma of the caller that is 0 or infinite as a decode takes it.

    Args:
        sigma: in the units of the histories.
        relative: `[B, 1, C]`, over the scale of each history.
        names: of the histories; rows past them are those of mirrored ones, in the same order.
    """
    values = as_float32(relative)
    bad = np.argwhere(~np.isfinite(values) | (values < TINY))
    if len(bad):
        row = tuple(bad[0])
        series = names[row[0] % len(names)]
        raise InputError(
            f"sigma {sigma} is {relative[row]:.3g} times the scale of {series}; "
            f"float32 holds {TINY:.2g} to {HUGE:.2g}. Give a sigma in the units of the history, or "
            "None to have it measured."
        )


def check_finite(name: str, rows: np.ndarray, values: np.ndarray, names: list[str]) -> None:
    """Raises InputError for values `[b, ..., C]` that are not finite after a finite history.

    Rows past the names are those of mirrored histories, in the same order.
    """
    if np.isfinite(values).all():
        return
    bad = tuple(np.argwhere(~np.isfinite(values))[0])
    variable = f", variable {bad[-1]}" if values.shape[-1] > 1 else ""
    series = names[rows[bad[0]] % len(names)]
    raise InputError(
        f"{series}{variable} has the {name} {values[bad]}: the target predicts no "
        "finite numbers; check its parameters and what it does with this history."
    )
