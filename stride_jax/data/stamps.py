"""One column, of text, numbers or datetimes, to stamps, and how they were read."""

from __future__ import annotations

import datetime
import re
from typing import Any

import numpy as np
import pandas as pd

from stride_jax.data.dates import arrange, read_parts
from stride_jax.data.orders import ORDERS, USUAL, Reading, Stamps, choose_order
from stride_jax.errors import InputError

_FIRST, _LAST = np.datetime64("0001-01-01"), np.datetime64("9999-12-31T23:59:59.999999")
_ISO = re.compile(r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?)?")
_DIGITS = re.compile(r"([+-]?\d{1,19})(?:\.0*)?")
_COMPACT = {
    6: ("%Y%m", "months such as 202601"),
    8: ("%Y%m%d", "dates such as 20260131"),
    10: ("%Y%m%d%H", "hours such as 2026013123"),
    12: ("%Y%m%d%H%M", "minutes such as 202601312359"),
    14: ("%Y%m%d%H%M%S", "seconds such as 20260131235959"),
}
_UNIX = {10: "s", 13: "ms", 16: "us", 19: "ns"}
_UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}


def read_stamps(column: Any, name: str, codes: np.ndarray, how: Reading = USUAL) -> Stamps:
    """The stamps of one column.

    Args:
        column: `[T]`, of datetimes with or without a zone, periods, dates, text, categories of
            these, or numbers: whole ones as they are, unless all are plausible compact dates
            (20260131) or Unix times and no whole number is given as frequency.
        name: of the column, for messages.
        codes: `[T]`, the number of each row's series.
        how: the user's wishes.

    Raises:
        InputError: an entry is no stamp, or dates can be read month first and day first.
    """
    stamps = _read(pd.Series(column).reset_index(drop=True), name, codes, how)
    late = stamps.wall.dtype.kind == "M" and ((stamps.wall < _FIRST) | (stamps.wall > _LAST))
    if np.any(late):
        row = int(np.argmax(late))
        raise InputError(
            f"column {name!r} has the time {stamps.wall[row]} in data row {row + 1}; years are "
            "from 1 to 9999."
        )
    return stamps


def _read(column: pd.Series, name: str, codes: np.ndarray, how: Reading) -> Stamps:
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = pd.Series(column.to_numpy())
    if isinstance(column.dtype, pd.PeriodDtype):
        column = column.dt.to_timestamp()
    kind = pd.api.types
    if kind.is_datetime64_any_dtype(column):
        return _of_datetimes(column, name)
    if kind.is_bool_dtype(column) or kind.is_complex_dtype(column):
        raise InputError(f"column {name!r} holds no timestamps but {column.dtype}.")
    if kind.is_numeric_dtype(column):
        return _of_numbers(_whole(column, name), name, how)
    place, texts = pd.factorize(column)
    if all(isinstance(text, str) for text in texts):
        return _of_text(place, [str(text) for text in texts], name, codes, how)
    return _of_objects(column, name)


def zone_name(zone: Any) -> str | None:
    """The name of a zone of the time zone data base, or None for plain offsets."""
    name: str | None = getattr(zone, "key", None) or getattr(zone, "zone", None)  # zoneinfo, pytz
    return name


def _whole(column: pd.Series, name: str) -> np.ndarray:
    """Whole numbers, int64."""
    values = column.to_numpy()
    if values.dtype.kind == "f":
        if not (np.mod(values, 1) == 0).all() or (np.abs(values) >= 2**53).any():
            raise InputError(f"column {name!r} must be timestamps or whole numbers.")
        return values.astype(np.int64)
    try:
        return column.to_numpy(np.int64)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"column {name!r} must be timestamps or whole numbers.") from error


def _of_datetimes(column: pd.Series, name: str) -> Stamps:
    """Stamps of a column of datetimes, with a zone or without."""
    zone: Any = column.dt.tz
    instant = column if zone is None else column.dt.tz_convert("UTC").dt.tz_localize(None)
    wall = column if zone is None else column.dt.tz_localize(None)
    unit: Any = np.datetime_data(wall.to_numpy().dtype)[0]
    if unit == "ns" and (wall.dt.nanosecond != 0).any():
        raise InputError(f"column {name!r} is finer than microseconds; round it.")
    at, utc = (x.to_numpy().astype("datetime64[us]") for x in (wall, instant))
    return Stamps(at, None if zone is None else at - utc, zone, unit)


def _of_objects(column: pd.Series, name: str) -> Stamps:
    """Stamps of a column of datetimes, dates and timestamps as Python objects."""
    kinds = (datetime.date, datetime.datetime, np.datetime64)
    values = column.tolist()
    odd = [i for i, value in enumerate(values) if not isinstance(value, kinds)]
    if odd:
        raise InputError(
            f"column {name!r} holds no timestamps: {values[odd[0]]!r} in data row {odd[0] + 1}."
        )
    stamps = [pd.Timestamp(value) for value in values]
    aware = [stamp.tzinfo is not None for stamp in stamps]
    if any(aware) and not all(aware):
        raise InputError(f"column {name!r} has stamps with and without an offset; give all one.")
    zones = {zone_name(stamp.tzinfo) for stamp in stamps}
    if len(zones) == 1 and (zone := zones.pop()) is not None:
        return _of_datetimes(pd.Series(pd.DatetimeIndex(stamps).tz_convert(zone)), name)
    wall = np.array([stamp.tz_localize(None).to_datetime64() for stamp in stamps], "M8[us]")
    if not all(aware):
        return Stamps(wall)
    offset = np.array([stamp.utcoffset() for stamp in stamps], "timedelta64[us]")
    return Stamps(wall, offset)


# --- numbers -------------------------------------------------------------------------------------


def _of_numbers(values: np.ndarray, name: str, how: Reading) -> Stamps:
    """Compact dates, Unix times, or the whole numbers themselves."""
    if isinstance(how.freq, int | np.integer):
        return Stamps(values)
    if how.date_format is not None:
        return _formatted([str(value) for value in values], np.arange(len(values)), name, how)
    dates = compact_dates(values)
    if dates is not None:
        return dates
    digits = _length(values)
    if digits in (8, 12, 14):
        fits = _compact(values, digits)
        if (~np.isnat(fits)).mean() > 0.5:
            row = int(np.argmax(np.isnat(fits)))
            raise InputError(
                f"{values[row]} in data row {row + 1} of column {name!r} is no date, though most "
                "others are; repair that row, or give freq=1 (--freq 1) if they only count."
            )
    return Stamps(values)


def compact_dates(values: np.ndarray) -> Stamps | None:
    """Whole numbers as dates, if all are plausible: of 1900 to 2100, or Unix times from 2001 on."""
    digits = _length(values)
    if digits in _COMPACT:
        stamps = _compact(values, digits)
        if not np.isnat(stamps).any():
            return Stamps(stamps, note=f"numbers read as {_COMPACT[digits][1]}")
    if digits in _UNIX and values.min() > 0:
        unit = _UNIX[digits]
        stamps = values.astype(f"datetime64[{unit}]").astype("datetime64[us]")
        if (stamps < np.datetime64("2100-01-01")).all():
            return Stamps(stamps, note=f"numbers read as Unix {_UNITS[unit]} (UTC)")
    return None


def _length(values: np.ndarray) -> int:
    """The number of digits, if that is the same in all; else 0."""
    if not len(values) or values.min() < 0:
        return 0
    lengths = {len(str(values.min())), len(str(values.max()))}
    return lengths.pop() if len(lengths) == 1 else 0


def _compact(values: np.ndarray, digits: int) -> np.ndarray:
    """Dates of 1900 to 2100 in numbers, else NaT."""
    texts = pd.Series(values).astype(str)
    form = _COMPACT[digits][0]
    stamps = pd.to_datetime(texts, format=form, errors="coerce").to_numpy().astype("M8[us]")
    late = (stamps < np.datetime64("1900-01-01")) | (stamps >= np.datetime64("2101-01-01"))
    stamps[late] = np.datetime64("NaT")
    return stamps


# --- text ----------------------------------------------------------------------------------------


def _of_text(
    place: np.ndarray, texts: list[str], name: str, codes: np.ndarray, how: Reading
) -> Stamps:
    """Stamps of a column of text, each different text read once.

    `place[t]` is the position of row t's text in `texts`.
    """
    texts = [text.strip() for text in texts]
    if how.date_format is not None:
        return _formatted(texts, place, name, how)
    digits = [_DIGITS.fullmatch(text) for text in texts]
    if all(digits):
        numbers = [int(match[1]) for match in digits if match]
        if max(map(abs, numbers)) >= 2**63:
            raise InputError(f"column {name!r} has numbers beyond 64 bits, such as {texts[0]}.")
        return _of_numbers(np.array(numbers, np.int64)[place], name, how)
    if all(_ISO.fullmatch(text) for text in texts):
        stamps = pd.to_datetime(pd.Series(texts), format="ISO8601", errors="coerce")
        if not stamps.isna().any():
            return Stamps(stamps.to_numpy().astype("datetime64[us]")[place])
    return _of_parts(place, texts, name, codes, how)


def _formatted(texts: list[str], place: np.ndarray, name: str, how: Reading) -> Stamps:
    """Stamps of a column of text in one given format."""
    form = str(how.date_format)
    zoned = "%z" in form
    try:
        stamps = pd.to_datetime(pd.Series(texts), format=form, errors="coerce", utc=zoned)
    except (ValueError, TypeError) as error:
        raise InputError(f"date_format {form!r} is no format of dates: {error}") from error
    if stamps.isna().any():
        _refuse(int(np.argmax(stamps.isna())), place, texts, name, f"of the form {form!r}")
    if not zoned:
        return Stamps(stamps.to_numpy().astype("datetime64[us]")[place])
    each = [datetime.datetime.strptime(text, form) for text in texts]
    offset = np.array([stamp.utcoffset() for stamp in each], "timedelta64[us]")[place]
    wall = np.array([stamp.replace(tzinfo=None) for stamp in each], "datetime64[us]")[place]
    return Stamps(wall, offset)


def _refuse(which: int, place: np.ndarray, texts: list[str], name: str, wanted: str) -> None:
    row = int(np.argmax(place == which)) + 1
    raise InputError(
        f"{texts[which]!r} in data row {row} of column {name!r} is no stamp {wanted}; repair or "
        "remove that row"
    )


def _of_parts(
    place: np.ndarray, texts: list[str], name: str, codes: np.ndarray, how: Reading
) -> Stamps:
    parts = [read_parts(text) for text in texts]
    first = next((text for text, part in zip(texts, parts, strict=True) if part), None)
    if first is None:
        raise InputError(f"column {name!r} holds no timestamps: {texts[0]!r} in data row 1.")
    if None in parts:
        _refuse(parts.index(None), place, texts, name, f"like {first!r}")
    read = [part for part in parts if part is not None]
    offsets = [part.offset for part in read]
    some = [offset for offset in offsets if offset is not None]
    if some and len(some) < len(offsets):
        _refuse(offsets.index(None), place, texts, name, "with an offset, as others are")
    time = np.array([part.time for part in read], "timedelta64[us]")
    numbers = np.array([part.numbers for part in read])
    orders = np.array([part.order for part in read])
    offset = np.array(some, "timedelta64[us]")[place] if some else None
    days: dict[str, np.ndarray] = {}
    for order in _candidates(orders, how.dayfirst):
        dates, fits = arrange(numbers, orders, order)
        if fits.all():
            days[order] = dates
        worst = int(np.argmin(fits))
    if not days:
        order_note = {None: "", True: " with the day first", False: " with the month first"}
        _refuse(worst, place, texts, name, f"like {first!r}{order_note[how.dayfirst]}")
    readings = {
        order: Stamps((dates.astype("datetime64[us]") + time)[place], offset)
        for order, dates in days.items()
    }
    order = choose_order(readings, codes, how, name)
    plain = (orders == "ymd").all()
    return readings[order]._replace(
        note="" if plain else _example(texts, readings[order], order, place)
    )


def _candidates(orders: np.ndarray, dayfirst: bool | None) -> list[str]:
    """The orders in which all texts may be read."""
    if (orders == "ymd").all():
        return ["ymd"]
    orders_of_user = {None: ["mdy", "dmy"], True: ["dmy"], False: ["mdy"]}[dayfirst]
    short = ((orders == "short") | (orders == "ymd")).all() and dayfirst is None
    return [*orders_of_user, "ymd"] if short else orders_of_user


def _example(texts: list[str], stamps: Stamps, order: str, place: np.ndarray) -> str:
    text = texts[place[-1]]
    return f"{ORDERS[order]} ({text} is {str(stamps.wall[-1])[:10]})"
