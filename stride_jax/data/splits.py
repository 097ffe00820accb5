"""Benchmark splits and standardisation, as in the published tables."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.data import load_series
from stride_jax.data.config import DataConfig
from stride_jax.data.gaps import Gaps, with_gaps
from stride_jax.data.synthetic_series import draw_windows
from stride_jax.errors import InputError, counted
from stride_jax.types import Series

ETT_ROWS = {"ett_hour": (8640, 11520, 14400), "ett_minute": (34560, 46080, 57600)}
"""Ends of train, validation and test: 12, 4 and 4 months of 30 days."""


SYNTHETIC = "synthetic"
"""The source of generated series."""
HELD_OUT_KEY = 0x48454C44
"""Seed of the synthetic series that are held out; a run whose own seed is this would see them."""
HELD_OUT = 256
"""Their number."""


class Splits(NamedTuple):
    """Row ranges `(start, stop)`; validation and test reach back into the rows before them."""

    train: tuple[int, int]
    validation: tuple[int, int]
    test: tuple[int, int]


class ForecastData(NamedTuple):
    """A standardised series with its splits.

    Attributes:
        values: `[T, C]` float32, standardised per variable; NaN where nothing was observed.
        mean: `[C]` float64 of what was observed in the training rows, in the file's units.
        std: `[C]` float64, population std of the training rows (1 for a constant variable).
        names: C variable names.
        times: `[T]` datetime64 or None.
        splits: row ranges.
    """

    values: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    names: tuple[str, ...]
    times: np.ndarray | None
    splits: Splits

    @property
    def on_device(self) -> jax.Array | Gaps:
        """The values as `Windows.gather` takes them."""
        placed: jax.Array | Gaps = jax.tree.map(jnp.asarray, with_gaps(self.values))
        return placed


def split_scheme(source: str, split: str) -> str:
    """The scheme that `auto` means for a source, else `split` itself."""
    if split != "auto":
        return split
    stem = Path(source).name
    return {"ETTh": "ett_hour", "ETTm": "ett_minute"}.get(stem[:4], "ratio")


def split_rows(num_rows: int, context_len: int, scheme: str) -> Splits:
    """Row ranges of the three splits.

    Worked line: ratio, 7588 rows, context 672 -> train 0-5311, validation 4639-6071 (its own rows
    begin at 5311), test 5399-7588.

    Args:
        num_rows: T.
        context_len: L; validation and test look back this far.
        scheme: ett_hour, ett_minute or ratio (70 / 10 / 20 percent, train and test rounded down).

    Raises:
        InputError: the series is too short for the scheme or for the context.
    """
    if scheme in ETT_ROWS:
        train, val, test = ETT_ROWS[scheme]
    else:
        train, test = int(num_rows * 0.7), num_rows
        val = num_rows - int(num_rows * 0.2)
    if num_rows < test:
        raise InputError(f"split {scheme} needs {counted(test, 'row')}, the series has {num_rows}.")
    if train < context_len:
        raise InputError(
            f"the training split has {counted(train, 'row')}, fewer than the context of "
            f"{context_len}; give a longer series or a smaller data.context_len."
        )
    return Splits((0, train), (train - context_len, val), (val - context_len, test))


def load_data(config: DataConfig) -> ForecastData:
    """Loads the series that a config names, splits and standardises it.

    Raises:
        InputError: see `data.load_series` and `split_rows`.
    """
    if config.source == SYNTHETIC:
        return held_out(config.context_len)
    columns = config.columns or None
    missing = "keep" if config.missing == "interpolate" else config.missing  # filled by windows
    return prepare(config, load_series(config.source, columns=columns, missing=missing))


def held_out(context_len: int) -> ForecastData:
    """Synthetic series of fixed seed and twice the context's length, a column each.

    They serve as validation and test; the training rows are the same, for a training that takes
    all of its windows from the generator and none of these.
    """
    windows = draw_windows(jax.random.key(HELD_OUT_KEY), HELD_OUT, 2 * context_len)
    values = np.asarray(windows)[:, :, 0].T  # [B, T, 1] -> [T, B]
    names = tuple(f"synthetic_{i}" for i in range(HELD_OUT))
    whole = (0, len(values))
    zero, one = np.zeros(HELD_OUT), np.ones(HELD_OUT)
    return ForecastData(values, zero, one, names, None, Splits(whole, whole, whole))


def prepare(config: DataConfig, series: Series) -> ForecastData:
    """Splits a series and standardises it by its training rows; NaN stays NaN.

    Raises:
        InputError: a variable without a value in the training rows, or see `split_rows`.
    """
    scheme = split_scheme(config.source, config.split)
    splits = split_rows(len(series.values), config.context_len, scheme)
    mean, std = _statistics(series.values[slice(*splits.train)], series.names)
    values = ((series.values - mean[None]) / std[None]).astype(np.float32)
    return ForecastData(values, mean, std, series.names, series.times, splits)


def _statistics(train: np.ndarray, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and std `[C]` of what was observed; std 1 for a constant variable."""
    missing = np.isnan(train)
    if missing.all(axis=0).any():
        name = names[int(np.argmax(missing.all(axis=0)))]
        raise InputError(
            f"variable {name!r} has no value in the {len(train)} training rows; leave it out with "
            "data.columns, or give a series where it begins earlier."
        )
    mean_of, std_of = (np.nanmean, np.nanstd) if missing.any() else (np.mean, np.std)
    low = np.nanmin(train, axis=0)
    constant = low == np.nanmax(train, axis=0)  # its computed std is rounding, not always 0
    mean = np.where(constant, low, mean_of(train, axis=0))
    return mean, np.where(constant, 1.0, std_of(train, axis=0))
