"""The season of a clock, by which seasonal-naive repeats."""

import pandas as pd
import pytest

from stride_jax.data.frequencies import given_clock
from stride_jax.data.seasons import season_of

STAMPS = pd.DatetimeIndex(["2024-01-01"]).to_numpy().astype("M8[us]")
SEASONS = {
    "ms": 1, "s": 3600, "10s": 360, "7s": 1, "min": 1440, "15min": 96, "30min": 48, "h": 24,
    "6h": 4, "7h": 1, "D": 7, "2D": 1, "B": 5, "W": 52, "W-MON": 52, "2W": 1, "MS": 12, "ME": 12,
    "2MS": 6, "5MS": 1, "QS": 4, "YS": 1, "BME": 12, "SMS": 1,
}  # fmt: skip


@pytest.mark.parametrize("freq", SEASONS)
def test_the_season_of_a_frequency(freq: str) -> None:
    """A forecast would be compared with a naive one that misses the season."""
    assert season_of(given_clock(freq, STAMPS)) == SEASONS[freq]


def test_numbers_have_no_season() -> None:
    """Rows without dates would be taken for hours."""
    assert season_of(given_clock(5, STAMPS.astype("i8"))) == 1
