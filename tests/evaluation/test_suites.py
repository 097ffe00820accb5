"""Scores of the zero-shot suites, against closed forms."""

from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from stride_jax.evaluation.results import read_results
from stride_jax.evaluation.suites import (
    BANDS,
    LEVELS,
    Foreign,
    Quantiles,
    cutoffs,
    inside,
    load,
    naive,
    of_paths,
    pinball,
    save,
    scores,
    summary,
)
from stride_jax.evaluation.tables import make_table

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("length", "season", "horizon"), [(1000, 24, 96), (100, 12, 24), (60, 1, 10), (120, 52, 16)]
)
def test_cutoffs_leave_a_history_and_a_future(length: int, season: int, horizon: int) -> None:
    """A cut-off too late has no truth, one too early no season to repeat."""
    ends = cutoffs(Foreign("", season, horizon, np.zeros(length)))
    assert 1 <= len(ends) <= 12
    assert ends[-1] + horizon == length
    assert ends[0] >= min(length - horizon, max(2 * season, 16))
    assert np.all(np.diff(ends) > 0)


def test_cutoffs_of_a_test_split_start_there(tmp_path: Path) -> None:
    """A benchmark would be scored on values that a map was fitted to; also after a file."""
    one = Foreign("benchmark", 24, 96, np.arange(2000.0), start=1600)
    save(tmp_path / "suite.npz", {"one": one})
    again = load(tmp_path / "suite.npz")["one"]
    assert again.start == 1600
    ends = cutoffs(again)
    assert (ends[0], ends[-1]) == (1600, 1904)


def test_naive_repeats_the_season_and_widens() -> None:
    """A shift by one makes every model look better."""
    history = np.tile([1.0, 5.0, 3.0], 20)
    history[::2] += 0.5
    forecast = naive(history, 3, 7)
    np.testing.assert_array_equal(forecast[len(LEVELS) // 2], history[-3:][np.arange(7) % 3])
    width = forecast[-1] - forecast[0]
    np.testing.assert_allclose(width[3] / width[0], np.sqrt(2))
    np.testing.assert_allclose(width[6] / width[0], np.sqrt(3))


def test_naive_intervals_of_a_walk_cover() -> None:
    """The scale of the naive CRPS comes from them."""
    rng = np.random.default_rng(0)
    walks = np.cumsum(rng.normal(size=(400, 220)), axis=1)
    steps = np.stack([naive(w[:200], 1, 20) for w in walks])
    for band in BANDS:
        hit = inside(steps, walks[:, 200:], band)
        np.testing.assert_allclose(hit.mean(), band, atol=0.05)


def test_pinball_is_the_crps_of_a_gaussian() -> None:
    """Nineteen levels approximate the integral; a missing factor would halve it."""
    quantiles = scipy.stats.norm.ppf(LEVELS)[None, :, None]
    for truth in (0.0, 1.0, -2.5):
        exact = truth * (2 * scipy.stats.norm.cdf(truth) - 1) + 2 * scipy.stats.norm.pdf(truth)
        exact -= np.pi**-0.5
        got = pinball(quantiles, np.asarray([[truth]]))[0, 0]
        np.testing.assert_allclose(got, exact, rtol=0.06)  # the tails beyond 5 % are left out


def test_paths_become_quantiles_of_steps_and_of_the_sum() -> None:
    """Sums of quantiles are no quantiles of sums."""
    rng = np.random.default_rng(1)
    paths = rng.normal(size=(2, 20_000, 9)) * np.asarray([1.0, 3.0])[:, None, None]
    got = of_paths(paths)
    expected = scipy.stats.norm.ppf(LEVELS)
    np.testing.assert_allclose(got.steps[1, :, 4], 3 * expected, atol=0.15)
    np.testing.assert_allclose(got.total[0], 3 * expected, atol=0.15)


def test_scores_count_the_first_and_the_last_steps() -> None:
    """Intervals too wide at first and too narrow at last look right on average."""
    steps = np.zeros((4, len(LEVELS), 10)) + scipy.stats.norm.ppf(LEVELS)[:, None]
    truth = np.zeros((4, 10))
    truth[:, -3:] = 9.0
    row = scores(Quantiles(steps), truth)
    assert row["cover_80_first"] == 1
    assert row["cover_80_last"] == 0
    np.testing.assert_allclose(row["cover_80"], 0.7)
    np.testing.assert_allclose([row["mae"], row["mse"]], [2.7, 24.3])
    assert "cover_80_sum" not in row


def test_summary_is_a_geometric_mean_over_naive() -> None:
    """An arithmetic mean is that of the worst series."""
    rows = []
    for name, mae in (("a", 2.0), ("b", 0.5), ("c", 0.5)):
        rows.append({"series": name, "method": "seasonal-naive", "mae": 1.0, "mse": 1, "crps": 1})
        rows.append({"series": name, "method": "x", "mae": mae, "mse": mae, "crps": mae})
    got = summary(rows, "x")
    np.testing.assert_allclose(got["mae"], 0.5 ** (1 / 3))
    np.testing.assert_allclose(got["worse"], 1 / 3)
    assert got["mae_low"] <= got["mae"] <= got["mae_high"]
    base = summary(rows, "seasonal-naive")
    assert (base["mae"], base["worse"]) == (1.0, 0.0)


def test_the_table_shows_the_summary_of_its_file() -> None:
    """A column under another name would report one coverage for another."""
    content = read_results(ROOT / "docs" / "results" / "zero_shot" / "foreign.json")
    methods = [row["method"] for row in content["summary"]]
    assert content["summary"] == [summary(content["rows"], method) for method in methods]
    first = make_table(content).partition("**MAE by kind")[0]
    header, _, *lines = [x for x in first.splitlines() if x.startswith("|")]
    names = [cell.strip() for cell in header.strip("|").split("|")]
    for line, row in zip(lines, content["summary"], strict=True):
        cells = dict(zip(names, (x.strip() for x in line.strip("|").split("|")), strict=True))
        assert cells["method"] == row["method"]
        assert cells["MAE"] == f"{row['mae']:.3f}"
        assert cells["in 80 %"] == f"{row['cover_80']:.0%}"
        assert cells["last 3"] == f"{row['cover_80_last']:.0%}"


def test_the_table_by_kind_is_that_of_the_series_of_a_kind() -> None:
    """A kind of series on which the model loses would be hidden behind another."""
    content = read_results(ROOT / "docs" / "results" / "zero_shot" / "benchmarks.json")
    table = make_table(content).partition("**MAE by kind of series**")[2]
    lines = [x.strip("|").split("|") for x in table.splitlines() if x.startswith("|")]
    header, line = ([cell.strip() for cell in x] for x in (lines[0], _line_of(lines, "ETTm1")))
    of_kind = [row for row in content["rows"] if row["kind"] == "ETTm1"]
    assert line[1] == "7"
    assert line[header.index("target")] == f"{summary(of_kind, 'target')['mae']:.2f}"


def _line_of(lines: list[list[str]], kind: str) -> list[str]:
    """The cells of the line of a kind."""
    return next(cells for cells in lines if cells[0].strip() == kind)
