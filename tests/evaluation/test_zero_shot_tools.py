"""The tools of the zero-shot page: paths of a suite, variants of the target, and the ablation."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.tools import load_tool

import stride_jax as sj
from stride_jax.data.synthetic_series import FAMILIES
from stride_jax.evaluation.suites import (
    SMALLEST,
    Foreign,
    every_history,
    geometric,
    histories,
    shortened,
)
from stride_jax.evaluation.tables import make_table
from stride_jax.forecasting.results import Forecast

PATHS, ABLATION = load_tool("zero_shot_paths"), load_tool("ablation")
RATES = load_tool("aggregations")


# --- suites --------------------------------------------------------------------------------------


def test_a_shortened_suite_has_the_same_histories() -> None:
    """Errors of fewer steps would be those after other histories."""
    suite = {"a": Foreign("", 7, 30, np.arange(300.0)), "b": Foreign("", 1, 8, np.arange(100.0))}
    short = shortened(suite, 10)
    assert [one.horizon for one in short.values()] == [10, 8]
    for name in suite:
        past, truth = histories(suite[name])
        past_again, first = histories(short[name])
        for x, y in zip(past, past_again, strict=True):
            np.testing.assert_array_equal(x, y)
        np.testing.assert_array_equal(first, truth[:, : short[name].horizon])


def test_rows_of_a_suite_find_their_series() -> None:
    """The forecasts of one series would be scored against the truth of another."""
    suite = {"a": Foreign("", 7, 30, np.arange(300.0)), "b": Foreign("", 1, 8, -np.arange(100.0))}
    rows, places = every_history(suite)
    for name, one in suite.items():
        for x, y in zip(rows[places[name]], histories(one)[0], strict=True):
            np.testing.assert_array_equal(x, y)


# --- paths ---------------------------------------------------------------------------------------


def test_a_path_is_that_of_a_day_a_season_or_the_horizon() -> None:
    """Sums over a day would be those of a week, or of a year of months."""
    hourly = Foreign("load, hourly", 168, 96, np.zeros(1000))
    assert (PATHS.day(hourly), PATHS.span(hourly)) == (24, 24)
    assert PATHS.day(hourly._replace(season=18)) == 18
    monthly = Foreign("sales, monthly", 12, 24, np.zeros(200))
    assert (PATHS.day(monthly), PATHS.span(monthly)) == (None, 12)
    assert PATHS.span(monthly._replace(season=1)) == 24


def test_sums_over_days_are_of_whole_days() -> None:
    """Paths that are right by step and independent cover too few of the sums, joint ones do not.

    Every step of a day has the same error, so a day's sum is 24 times a standard normal number.
    Independent paths have a std of sqrt(24) there: their 80 % interval of +-1.28 covers a share of
    2 Phi(1.28 / sqrt(24)) - 1 = .206.
    """
    rng = np.random.default_rng(0)
    one = Foreign("load, hourly", 24, 60, np.zeros(1000))
    truth = np.repeat(rng.normal(size=(300, 3)), 24, axis=1)[:, :60]
    joint = np.repeat(rng.normal(size=(300, 200, 3)), 24, axis=2)[..., :60]
    apart = rng.normal(size=(300, 200, 60))
    cover = [PATHS.day_sums(one, paths, truth)["cover_80_day"] for paths in (joint, apart)]
    np.testing.assert_allclose(cover, [0.8, 0.206], atol=0.04)


def test_one_sigma_has_the_mean_variance_of_the_first_patch(monkeypatch: Any) -> None:
    """The row would compare another width, and not another shape."""
    calls = []

    def forecast(pair: object, past: list[np.ndarray], horizon: int, **settings: Any) -> object:
        calls.append((past, settings.get("sigma")))
        count = len(past)
        paths, mean = np.ones((count, 2, horizon)), np.ones((count, horizon))
        sigma, info = np.asarray([2.0, 5.0]), None
        return Forecast(mean, None, (), paths, sigma, info, np.zeros(count, bool))

    monkeypatch.setattr(PATHS.sj, "forecast", forecast)
    pair = sj.Pair(sj.window_process(lambda window: window[-4:], 4))
    made = PATHS.one_sigma(pair, [np.full(8, 2.0), np.full(8, 10.0)], horizon=3)
    np.testing.assert_array_equal(calls[1][0], [np.ones(8), np.full(8, 2.0)])
    assert calls[1][1] == 1.0
    np.testing.assert_array_equal(made.paths[:, 0, 0], [2.0, 5.0])
    np.testing.assert_array_equal(made.mean[:, 0], [2.0, 5.0])


def test_walks_are_counted_by_how_far_ahead_a_step_is() -> None:
    """Intervals that do not widen would look right on average."""
    walks = {"w": Foreign("walk", 1, 96, np.random.default_rng(0).normal(size=3000).cumsum())}
    truth = histories(walks["w"])[1]
    paths = np.repeat(truth[:, None], 30, axis=1) + np.linspace(-1, 1, 30)[:, None]
    paths[:, :, 8:] += 9.0
    rows = PATHS.walk_coverage(walks, paths, 12)
    assert [row["steps"] for row in rows][:3] == ["1", "2 to 3", "4 to 8"]
    assert [row["cover_80"] for row in rows] == [1.0] * 3 + [0.0] * 4


# --- the ablation --------------------------------------------------------------------------------


def source(count: int = 60) -> tuple:
    """Synthetic series around 0 of all families in turn, and real ones around 100."""
    kinds = np.arange(count) % len(FAMILIES)
    pool = np.random.default_rng(0).normal(size=(count, ABLATION.CONTEXT + ABLATION.AHEAD))
    real = 100 + np.random.default_rng(1).normal(size=(2000, 3))
    return ABLATION.Source(pool.astype(np.float32), kinds, real.astype(np.float32))


def windows(**fields: object) -> np.ndarray:
    """The windows of a step of an arm."""
    return ABLATION.training_windows(source(), ABLATION.Arm("x", **fields), 3)


def test_arms_see_the_same_windows_but_for_what_they_lack() -> None:
    """Arms would differ by chance, and a share of real series would not be what it says."""
    full = windows()
    real = full.mean(axis=1) > 50
    assert real.sum() == ABLATION.BATCH - ABLATION.SYNTHETIC
    np.testing.assert_array_equal(windows(), full)
    assert (windows(seed=1) != full).any(axis=1).all()
    assert (windows(synthetic=ABLATION.BATCH).mean(axis=1) < 50).all()
    assert (windows(synthetic=0).mean(axis=1) > 50).all()
    changed = (windows(without="walk") != full).any(axis=1)
    assert 0 < changed.sum() < ABLATION.SYNTHETIC
    np.testing.assert_array_equal(windows(without="walk")[real], full[real])


def test_a_family_that_is_left_out_is_in_no_window() -> None:
    """The row would say of a family what is true of another."""
    number, given = list(FAMILIES).index("walk"), source()
    pool = np.where((given.kinds == number)[:, None], np.nan, given.pool)
    marked = given._replace(pool=pool)
    for step in range(20):
        made = ABLATION.training_windows(marked, ABLATION.Arm("x", without="walk"), step)
        assert np.isfinite(made).all()


def test_every_family_and_patch_has_an_arm() -> None:
    """The table would be silent about what was asked."""
    names = [(arm.name, arm.seed) for arm in ABLATION.arms()]
    assert len(set(names)) == len(names)
    assert {f"without {name}" for name in FAMILIES} <= {name for name, _ in names}
    assert sum(name == ABLATION.REFERENCE for name, _ in names) >= 2
    sizes = {arm.model.patch_len for arm in ABLATION.arms()}
    assert sizes == {8, 16, 24, 32}
    assert all(ABLATION.CONTEXT % size == 0 for size in sizes)


def test_a_model_is_scored_on_every_suite_by_its_own_forecasts(monkeypatch: Any) -> None:
    """A suite would get the errors of another, or of paths cut at the wrong place."""
    series = np.random.default_rng(2).normal(size=400).cumsum()
    suites = {
        "right": {"a": Foreign("x", 1, 20, series)},
        "wrong": {"b": Foreign("x", 1, ABLATION.AHEAD, series)},
    }
    truths = [histories(one)[1] for suite in suites.values() for one in suite.values()]

    def forecast(pair: object, past: list[np.ndarray], horizon: int, num_samples: int) -> Any:
        rows = np.zeros((len(past), num_samples, horizon))
        rows[: len(truths[0]), :, :20] = truths[0][:, None]
        rows[len(truths[0]) :] = truths[1][:, None] + 100.0
        return SimpleNamespace(paths=rows)

    monkeypatch.setattr(ABLATION.sj, "forecast", forecast)
    row = ABLATION.scored(None, suites)
    assert row["right_mae"] == pytest.approx(1e-3)  # the least that counts
    assert row["wrong_mae"] > 5


# --- tables --------------------------------------------------------------------------------------


def scored_rows(**scores: float) -> list[dict[str, Any]]:
    """A method x with scores on two series, beside seasonal-naive and one sigma, all 1."""
    ones = dict.fromkeys(scores, 1.0)
    rows = []
    for name, factor in (("a", 2.0), ("b", 0.5)):
        rows += [{"series": name, "method": x} | ones for x in ("seasonal-naive", PATHS.ONE_SIGMA)]
        rows.append({"series": name, "method": "x"} | {k: factor * v for k, v in scores.items()})
    return rows


def test_a_geometric_ratio_and_its_interval() -> None:
    """An arithmetic mean of 2 and 1/2 is 1.25, not 1."""
    found = geometric(scored_rows(mae=1.0), "x", "seasonal-naive", "mae")
    np.testing.assert_allclose(found, (1.0, 0.5, 2.0))
    assert geometric(scored_rows(mae=1.0), "x", "other", "mae") is None


def test_the_table_of_paths_compares_with_one_sigma_and_naive() -> None:
    """A column would be the ratio to another method."""
    rows = scored_rows(mae=0.5, crps=0.6, energy=0.7, variogram=0.8)
    walks = [{"method": "x", "steps": "1", "cover_80": 0.75}]
    content = {"table": "zero_shot_paths", "rows": rows, "walks": walks, "paths": 9, "cutoffs": 2}
    lines = [line for line in make_table(content).splitlines() if line.startswith("| x")]
    cells = [cell.strip() for cell in lines[0].strip("|").split("|")]
    assert cells == ["x", "0.500", "0.600", "0.700", "0.800"]
    assert "75%" in lines[1]


def test_the_table_of_the_ablation_counts_from_the_mean_of_the_seeds() -> None:
    """A change would be that from one lucky seed."""
    arms = ((ABLATION.REFERENCE, 0.5), (ABLATION.REFERENCE, 0.7), ("without walk", 0.9))
    rows = [
        {"arm": arm, "seed": i, "steps": 9}
        | {f"{suite}_crps": value for suite in ("real", "synthetic", "foreign")}
        for i, (arm, value) in enumerate(arms)
    ]
    sizes = {"real": 3, "synthetic": 4, "foreign": 5}
    table = make_table({"table": "ablation", "rows": rows, "series": sizes, "paths": 2})
    line = next(line for line in table.splitlines() if line.startswith("| without walk"))
    assert line.count("+50.0%") == 3


def test_what_was_demanded_is_told_from_what_was_reached() -> None:
    """A number that was missed would be reported as met."""
    tool = load_tool("demanded")
    rows = [
        {"series": "a", "method": "target", "mae": 0.9},
        {"series": "a", "method": "seasonal-naive", "mae": 1.0},
    ]
    assert tool.ratio(rows, "seasonal-naive", "", 0.9)["met"]
    assert not tool.ratio(rows, "seasonal-naive", "", 0.8)["met"]
    assert tool.worse(rows).tolist() == [0.0]
    assert not tool.share(np.asarray([0.6, 0.7]), "", 0.7, 0.9)["met"]
    assert tool.share(np.asarray([0.7, 0.8]), "", 0.7, 0.9)["interval"] == "70% to 80%"
    cover = [{"method": "target", "cover_80": x} for x in (0.8, 0.69)]
    assert not tool.walks({"walks": cover})["met"]
    assert tool.walks({"walks": cover[:1]})["met"]


# --- rates ---------------------------------------------------------------------------------------


def test_rates_are_chosen_on_rows_that_were_not_trained_on() -> None:
    """The rates would be those of series that the target remembers."""
    values = np.random.default_rng(0).normal(size=(16_000, 3)).astype(np.float32)
    values[: int(0.8 * len(values))] = np.nan
    windows = RATES.both_kinds(values, 20)
    assert windows["real"].shape == (20, RATES.HISTORY + RATES.AHEAD)
    for some in windows.values():
        assert np.isfinite(some).all()
        seen = some[:, RATES.HISTORY - RATES.SEEN : RATES.HISTORY]
        np.testing.assert_allclose(seen.std(axis=1), 1)


def test_a_row_is_relative_to_the_target_without_means() -> None:
    """A set of rates would be compared with another one, or windows with those beside them."""
    base = [{"mae": 1.0, "crps": 0.5, "cover_80": 0.8, "cover_80_sum": 1.0}] * 3
    half = [{**one, "mae": 0.5 - SMALLEST / 2} for one in base]
    row = RATES.row_of((2, 8), "real", (48, 96), half, base)
    assert (row["means of"], row["steps"], row["number"]) == ("2, 8", "49 to 96", 3)
    assert row["MAE"] == pytest.approx(0.5)
    assert row["CRPS"] == pytest.approx(1)
