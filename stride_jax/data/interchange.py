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
        InputError: no frame, a lazy one, or one without the columns, or with one of them twice; or
            one column is named twice.
    """
    if len(set(columns)) < len(columns):
        raise InputError(f"id, time and value must be three columns, got {list(columns)}.")
    try:
        frame = df if isinstance(df, pd.DataFrame) else nw.from_native(df, eager_only=True)
    except TypeError as error:
        raise InputError(
            "df must be a DataFrame of pandas, polars or another library that narwhals reads, in "
            f"memory (collect a lazy one), got {type(df).__module__}.{type(df).__name__}."
        ) from error
    names: list[Any] = list(frame.columns)
    for column in columns:
        if column not in names:
            texts = all(isinstance(name, str) for name in [column, *names])
            hint = nearest(column, names) if texts else f"Known: {names}."
            raise InputError(f"the frame has no column {column!r}. {hint}")
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

    Text and numbers that were read as dates come back as datetimes; stamps with offsets that stood
    in text are text again where the library is not pandas.
    """
    id_col, time_col = columns
    stamps = [name for name in (time_col, "cutoff") if name in frame]
    if isinstance(df, pd.DataFrame):
        return _with_periods(frame, df[time_col].dtype, stamps)
    given = nw.from_native(df, eager_only=True)
    zones = {name: _zone(frame[name], given.schema[time_col]) for name in stamps}
    cells = {n: _plain(frame[n], zones.get(n)) for n in map(str, frame.columns)}
    converted = nw.from_dict(cells, backend=given.implementation)
    local = [
        nw.col(name).dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
        for name, zone in zones.items()
        if zone is not None
    ]
    converted = converted.with_columns(*local) if local else converted
    kinds = {id_col: given.schema[id_col], **dict.fromkeys(stamps, given.schema[time_col])}
    back = [nw.col(n).cast(kind) for n, kind in kinds.items() if _fits(frame[n], kind)]
    return (converted.with_columns(*back) if back else converted).to_native()


def _with_periods(frame: pd.DataFrame, kind: Any, stamps: list[str]) -> pd.DataFrame:
    """The frame with its stamps as periods, if they came as such and begin where periods do."""
    if not isinstance(kind, pd.PeriodDtype):
        return frame
    periods = [frame[name].dt.to_period(kind.freq) for name in stamps]
    for name, column in zip(stamps, periods, strict=True):
        if (column.dt.to_timestamp() == frame[name]).all():
            frame[name] = column
    return frame


def _zone(column: pd.Series, kind: Any) -> str | None:
    """The name of the zone of a column of datetimes, as the column that it comes from writes it."""
    zone = getattr(column.dtype, "tz", None)
    return None if zone is None else getattr(kind, "time_zone", None) or zone_name(zone)


def _plain(column: pd.Series, zone: str | None) -> Any:
    """A column in types that any library takes: numbers, datetimes in UTC, or Python objects."""
    if zone is not None:
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
    return numeric or isinstance(kind, nw.Categorical | nw.Enum)
