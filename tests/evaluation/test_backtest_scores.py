"""Scores of backtests beside seasonal-naive, their table, and their picture."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from stride_jax.data.long_frames import read_panel
from stride_jax.evaluation import backtest as scoring
from stride_jax.evaluation.figures import forecasts as plots
from stride_jax.forecasting.columns import column_levels, quantile_columns


def rows(**columns: list[float]) -> pd.DataFrame:
    """Two cutoffs of two steps, with one true value missing."""
    given = {"cutoff": [2, 2, 4, 4], "y": [1.0, 2.0, np.nan, 4.0], **columns}
    return pd.DataFrame(given)


def test_a_score_is_that_of_a_hand_computation() -> None:
    """A missing value would count as a miss, or a quantile be scored at another level."""
    table = rows(
        **{
            "stride": [9.0, 9, 9, 9],  # the median is scored
            "stride-q-10": [0.0, 1, 0, 4.5],
            "stride-q-50": [1.0, 1, 0, 5],
            "stride-q-90": [2.0, 1.5, 0, 6],
            "seasonal-naive": [2.0, 2, 0, 2],
            "seasonal-naive-q-10": [1.0, 1, 0, 1],
            "seasonal-naive-q-50": [2.0, 2, 0, 2],
            "seasonal-naive-q-90": [3.0, 3, 0, 3],
        }
    )
    score = scoring.score_series("a", table, "y")
    assert (score.name, score.windows) == ("a", 2)
    np.testing.assert_allclose([score.mae, score.naive_mae], [2 / 3, 3 / 3])
    np.testing.assert_allclose(score.ratio, 2 / 3)
    # of each level over three steps: q (y - x) where y is above x, else (1 - q) (x - y)
    loss = (0.1 * 1 + 0.1 * 1 + 0.9 * 0.5) + (0 + 0.5 + 0.5) + (0.1 * 1 + 0.9 * 0.5 + 0.1 * 2)
    naive = (0 + 0.1 * 1 + 0.1 * 3) + (0.5 + 0 + 1.0) + (0.1 * 2 + 0.1 * 1 + 0.9 * 1)
    np.testing.assert_allclose(score.loss_ratio, loss / naive)
    assert score.covered == {0.8: pytest.approx(1 / 3)}


def test_only_symmetric_levels_make_an_interval() -> None:
    """The share between .1 and .5 would be printed as that of an 80 % interval."""
    assert scoring.central_intervals([0.1, 0.5, 0.95]) == {}
    found = scoring.central_intervals([0.025, 0.1, 0.25, 0.75, 0.9, 0.975])
    assert found == {0.95: (0.025, 0.975), 0.8: (0.1, 0.9), 0.5: (0.25, 0.75)}
    levels = (0.025, 0.1, 0.29, 0.333333)
    assert list(column_levels(["y", "stride", *quantile_columns(levels)])) == list(levels)


def score(name: str, ratio: float) -> scoring.Score:
    """A score with these ratios."""
    return scoring.Score(name, 3, 1234567.8, 0.001234567, ratio, ratio, {0.8: 0.75, 0.5: 0.5})


def test_all_series_together_are_a_geometric_mean() -> None:
    """A series with large numbers would decide, or a flat one make the mean infinite."""
    found = scoring.score_all([score("a", 0.5), score("b", 2.0), score("c", np.nan)])
    assert (found.name, found.windows, found.ratio) == ("all", 9, pytest.approx(1))
    assert found.covered == {0.8: pytest.approx(0.75), 0.5: pytest.approx(0.5)}
    flat = rows(stride=[1.0] * 4, **{"seasonal-naive": [1.0, 2, 0, 4]})
    assert np.isnan(scoring.score_series("flat", flat, "y").ratio)


def test_the_table_fits_a_line() -> None:
    """A long name would break every row in two; a single mean would have empty columns."""
    scores = [score("a long name " * 20, 0.5), score("b", np.nan)]
    lines = scoring.score_table([*scores, scoring.score_all(scores)]).splitlines()
    assert max(map(len, lines)) <= scoring.WIDTH
    assert "…" in lines[1]
    cells = [" ".join(line.split()) for line in lines]
    assert cells[2] == "b 3 1,234,568 0.001235 - - 75.0 % 50.0 %"
    assert cells[3] == "all 6 - - 0.500 0.500 75.0 % 50.0 %"
    mean = scoring.Score("a", 1, 1.0, 2.0, 0.5, np.nan, {})
    header, row = scoring.score_table([mean]).splitlines()
    assert " ".join(header.split()) == "series windows MAE naive MAE MAE ratio"
    assert row.split() == ["a", "1", "1", "2", "0.500"]


def test_naive_forecasts_go_on_after_a_gap() -> None:
    """The season would be shifted by the steps without a value at the end of a history."""
    values = [1.0, 2, 3, 1, 2, 3, 1, np.nan]  # the next one is a 3
    df = pd.DataFrame({"unique_id": "a", "ds": np.arange(8), "y": values})
    grids = read_panel(df, "unique_id", "ds", "y").grids
    found = scoring.naive_forecasts(grids, 4, 3, (0.1, 0.9), "interpolate")
    assert list(found.columns) == ["seasonal-naive", "seasonal-naive-q-10", "seasonal-naive-q-90"]
    assert found["seasonal-naive"].tolist() == [3, 1, 2, 3]


@pytest.mark.parametrize(("step", "drawn"), [(4, [8, 12]), (2, [8, 12]), (1, [8, 12])])
def test_a_picture_shows_forecasts_that_do_not_overlap(
    step: int, drawn: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bands of several cutoffs would lie on each other, or the truth would end too early."""
    figures: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **options: figures.append(self) or save(self, *args)
    )
    history = pd.DataFrame({"unique_id": "a", "ds": np.arange(-60, 17), "y": np.arange(77.0)})
    parts = [
        pd.DataFrame({"unique_id": "a", "ds": cut + np.arange(1, 5), "cutoff": cut, "stride": 1.0})
        for cut in range(8, 13, step)
    ]
    tested = pd.concat(parts, ignore_index=True).assign(**{"seasonal-naive": 2.0})
    plots.save_backtest(tmp_path / "a.png", history, tested, ("unique_id", "ds", "y"))
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    (axes,) = figures[0].axes
    truth, *others = axes.lines
    assert truth.get_xdata(orig=False).tolist() == list(range(-33, 17))
    cutoffs = [line for line in others if line.get_linestyle() == ":"]
    assert [line.get_xdata()[0] for line in cutoffs] == drawn
    assert sum(line.get_label() == "mean" for line in others) == 1


def test_a_truth_on_the_edge_of_an_interval_is_inside() -> None:
    """Counts of zero under a tenth percentile of zero would all count as misses."""
    names = ("stride", "stride-q-10", "stride-q-90", "seasonal-naive")
    table = pd.DataFrame({"cutoff": 1, "y": [0.0, 2.0, 3.0], **dict.fromkeys(names, 0.0)})
    table["stride-q-90"] = 2.0
    table["seasonal-naive-q-10"] = table["seasonal-naive-q-90"] = 1.0
    covered = scoring.score_series("a", table, "y").covered
    assert covered == {0.8: pytest.approx(2 / 3)}
