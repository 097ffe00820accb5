"""Frames of any library that narwhals reads, in and out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import narwhals as nw
import pandas as pd

from stride_jax.data.stamps import zone_name
from stride_jax.errors import InputError, nearest


def as_pandas(df: Any, columns: Sequence[str]) -> pd.DataFrame:
    """Some columns of any frame, as pandas.

    Raises:
        InputError: no frame, a lazy one, or one without the columns, or with one of them twice.
    """
    try:
        frame = df if isinstance(df, pd.DataFrame) else nw.from_native(df, eager_only=True)
    except TypeError as error:
        raise InputError(
            "df must be a DataFrame of pandas, polars or another library that narwhals reads, in "
            f"memory (collect a lazy one), got {type(df).__module__}.{type(df).__name__}."
        ) from error
    names = [str(column) for column in frame.columns]
    for column in columns:
        if column not in names:
            raise InputError(f"the frame has no column {column!r}. {nearest(column, names)}")
        if names.count(column) > 1:
            raise InputError(f"the frame has several columns {column!r}; rename or drop one.")
    if isinstance(frame, pd.DataFrame):
        return frame[list(columns)].reset_index(drop=True)
    return pd.DataFrame({column: _column(frame[column]) for column in columns})


def _column(series: Any) -> pd.Series:
    """A column of another library as one of pandas."""
    if isinstance(series.dtype, nw.Datetime):
        zone = series.dtype.time_zone
        if zone is None:
            return pd.Series(series.to_numpy())
        utc = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None).to_numpy()
        return pd.Series(utc).dt.tz_localize("UTC").dt.tz_convert(zone)
    if series.dtype.is_float():
        return pd.Series(series.to_numpy())
    return pd.Series(series.to_list(), dtype=object).infer_objects()


def like(frame: pd.DataFrame, df: Any, columns: tuple[str, str]) -> Any:
    """The frame as one of the library of `df`, with the types of its id and time.

    Stamps with offsets that stood in text are text again where the library is not pandas.
    """
    if isinstance(df, pd.DataFrame):
        return frame
    given = nw.from_native(df, eager_only=True)
    names = [str(name) for name in frame.columns]
    converted = nw.from_dict({n: _plain(frame[n]) for n in names}, backend=given.implementation)
    zones = {name: _zone(frame[name]) for name in names}
    local = [
        nw.col(name).dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
        for name, zone in zones.items()
        if zone is not None
    ]
    converted = converted.with_columns(*local) if local else converted
    id_col, time_col = columns
    kinds = {id_col: given.schema[id_col]}
    for name in {time_col, "cutoff"} & set(names):
        kinds[name] = given.schema[time_col]
    back = [nw.col(n).cast(kind) for n, kind in kinds.items() if _fits(frame[n], kind)]
    return (converted.with_columns(*back) if back else converted).to_native()


def _zone(column: pd.Series) -> str | None:
    """The name of the zone of a column of datetimes."""
    return zone_name(getattr(column.dtype, "tz", None))


def _plain(column: pd.Series) -> Any:
    """A column in types that any library takes: numbers, datetimes in UTC, or Python objects."""
    if _zone(column) is not None:
        return column.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy()
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return [stamp.isoformat() for stamp in column]
    if column.dtype.kind in "Mif":
        return column.to_numpy()
    return [x.isoformat() if isinstance(x, pd.Timestamp) else x for x in column]


def _fits(column: pd.Series, kind: Any) -> bool:
    """Whether a column can have this type again without a loss."""
    if kind == nw.Date:
        return column.dtype.kind == "M" and bool((column == column.dt.normalize()).all())
    numeric = kind.is_numeric() and column.dtype.kind in "if"
    return numeric or isinstance(kind, nw.Categorical)
