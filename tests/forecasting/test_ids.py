"""Ids fold a hash of their text into the key: company and order do not matter."""

import hashlib
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.frames import SHORT_REPEAT, hours, long

from stride_jax.checkpoints.pair import Pair
from stride_jax.decoding.naive_drafts import seasonal_draft
from stride_jax.errors import InputError
from stride_jax.forecasting.forecast import forecast
from stride_jax.forecasting.frames import backtest, forecast_df
from stride_jax.forecasting.inputs import _stream

SHORT: dict[str, Any] = {"num_samples": 10, "sigma": 1.0, "non_negative": False}
PAIRS = {"alone": Pair(SHORT_REPEAT), "drafted": Pair(SHORT_REPEAT, seasonal_draft(4, 3))}


def walk(seed: int, *shape: int) -> np.ndarray:
    """A random walk."""
    return np.random.default_rng(seed).normal(size=shape or (12,)).cumsum(axis=0)


@pytest.mark.parametrize("name", PAIRS)
def test_paths_do_not_depend_on_company_or_order(name: str) -> None:
    """A shop would get another forecast because another shop opened."""
    pair, settings = PAIRS[name], {**SHORT, "num_draft": 2}
    series = {"north": walk(0), "süd": walk(1), "": walk(2), "a" * 200: walk(3)}

    def paths(*names: str) -> dict[str, np.ndarray]:
        found = forecast(pair, [series[n] for n in names], 6, ids=names, **settings)
        return dict(zip(names, found.paths, strict=True))

    first, *rest = series
    for name in rest:
        before, after = paths(first, name), paths(name, first)
        for one in (first, name):
            np.testing.assert_array_equal(before[one], after[one])
        np.testing.assert_array_equal(before[first], paths(first, rest[0])[first])


def test_series_of_different_ids_have_different_noise() -> None:
    """All series would go up and down together."""
    history, ids = walk(0), ["a", "b", "1", "01", "a ", "A"]
    paths = forecast(SHORT_REPEAT, [history] * 6, 6, ids=ids, **SHORT).paths
    assert len(np.unique(paths[:, :, 0])) == 60
    table = forecast(SHORT_REPEAT, np.stack([history] * 2, axis=1), 6, **SHORT).paths
    named = forecast(SHORT_REPEAT, [np.stack([history] * 2, axis=1)], 6, ids=["a"], **SHORT).paths[
        0
    ]
    for found in (table, named):  # and so would the variables of one
        assert len(np.unique(found[:, 0])) == 20


def test_the_hash_is_the_same_on_every_machine() -> None:
    """Python's own hash of a text changes from one run to the next."""
    digest = hashlib.blake2b("0 süd".encode(), digest_size=4).digest()
    assert _stream("süd", 0) == int(digest.hex(), 16) // 2 == 147688945
    assert _stream("süd", 1) != _stream("süd", 0)


def test_arrays_stay_by_index() -> None:
    """Seeds that are written down would no longer give the paths they gave."""
    plain = forecast(SHORT_REPEAT, [walk(0), walk(1)], 6, **SHORT)
    again = forecast(SHORT_REPEAT, [walk(2), walk(1)], 6, **SHORT)
    np.testing.assert_array_equal(plain.paths[1], again.paths[1])
    other = forecast(SHORT_REPEAT, [walk(1), walk(0)], 6, **SHORT)
    assert np.abs(plain.paths[1] - other.paths[0]).max() > 1e-3


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (["a", "a"], "ids must differ, got 'a' 2 times"),
        (["a"], "2 series, 1 id"),
        ("ab", "list of text"),
        ([1, 2], "list of text"),
        ([["a"], ["b"]], "list of text"),
        (5, "list of text"),
        ({"a", "b"}, "list of text"),
    ],
)
def test_what_is_no_id_is_refused(ids: Any, said: str) -> None:
    """Two series would have the same noise, or a traceback come out."""
    with pytest.raises(InputError, match=said):
        forecast(SHORT_REPEAT, [walk(0), walk(1)], 6, ids=ids, **SHORT)


# --- frames --------------------------------------------------------------------------------------


def rows(found: pd.DataFrame, name: Any) -> np.ndarray:
    """The numbers of one series."""
    return found[found["unique_id"] == name].filter(like="stride").to_numpy()


@pytest.mark.parametrize("names", [("b", "a", "c"), (12, 3, 100), ("2", "10", "ü")])
def test_a_frame_s_series_do_not_depend_on_their_company(names: tuple[Any, ...]) -> None:
    """Results would change in the first place when a series is added to a file."""
    df = long(a=hours(12), b=hours(12), c=hours(12))
    df["unique_id"] = df["unique_id"].map(dict(zip("abc", names, strict=True)))
    settings = {**SHORT, "pair": SHORT_REPEAT, "quantiles": (0.1, 0.9)}
    whole = forecast_df(df, 6, **settings)
    for kept in (names[1:], names[:1], names[::2]):
        part = forecast_df(df[df["unique_id"].isin(kept)], 6, **settings)
        for name in kept:
            np.testing.assert_array_equal(rows(part, name), rows(whole, name))


def test_a_backtest_s_windows_do_not_depend_on_each_other() -> None:
    """A longer backtest would change the windows that were there, or repeat one window's noise."""
    df, settings = long(a=hours(30), b=hours(30)), {**SHORT, "pair": SHORT_REPEAT}
    df["y"] = np.tile(np.arange(30) % 4, 2)  # so that all means are the same
    whole = backtest(df, 4, n_windows=3, **settings)
    part = backtest(df[df["unique_id"] == "b"], 4, n_windows=1, **settings)
    np.testing.assert_array_equal(rows(part, "b"), rows(whole, "b")[-4:])
    assert len(np.unique(whole["stride"])) == 24
