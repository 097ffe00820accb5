"""Names, short horizons, intervals and legends in the pictures of forecasts and backtests."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from stride_jax.decoding.types import ACCEPTED, RECOVERED
from stride_jax.evaluation.figures import forecasts as plots
from stride_jax.evaluation.figures import sweeps

COLUMNS = ("unique_id", "ds", "y")
MANY = ("1", "2", "3", "4", "5", "6", "94", "95", "96", "97", "98", "99")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved."""
    figures: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **options: figures.append(self) or save(self, *args)
    )
    return figures


def past(count: int, name: str = "a") -> pd.DataFrame:
    """A history that ends at the time `count - 1`, high at first and lower later."""
    return pd.DataFrame({"unique_id": name, "ds": np.arange(count), "y": -np.arange(float(count))})


def ahead(start: int, horizon: int, levels: tuple[str, ...] = (), name: str = "a") -> pd.DataFrame:
    """Forecasts of the times from `start` on; a quantile is its level in percent."""
    columns = {f"stride-q-{level}": float(level) for level in levels}
    times = np.arange(start, start + horizon)
    return pd.DataFrame({"unique_id": name, "ds": times, "stride": 50.0, **columns})


def backtested(
    cutoffs: list[int], horizon: int, levels: tuple[str, ...] = (), name: str = "a"
) -> pd.DataFrame:
    """Forecasts after each cutoff, beside seasonal-naive."""
    parts = [ahead(cut + 1, horizon, levels, name).assign(cutoff=cut) for cut in cutoffs]
    return pd.concat(parts, ignore_index=True).assign(**{"seasonal-naive": 2.0})


# --- names ---------------------------------------------------------------------------------------

Draw = Callable[[Path, str], None]


def draw_forecast(path: Path, name: str) -> None:
    """The picture of `stride-jax forecast`."""
    plots.save_intervals(path, past(9, name), ahead(9, 4, name=name), COLUMNS)


def draw_backtest(path: Path, name: str) -> None:
    """The picture of `stride-jax backtest`."""
    plots.save_backtest(path, past(17, name), backtested([8, 12], 4, name=name), COLUMNS)


def draw_window(path: Path, name: str) -> None:
    """The picture of an evaluation, whose unit is the name of a variable."""
    values, patches = np.arange(4.0), np.zeros((1, 4))
    series = dict.fromkeys(("context", "truth", "target", "draft", "speculative"), values)
    origin = np.array([ACCEPTED])
    picture = plots.Picture(
        **series, proposal=patches, origin=origin, patch_len=4, title=name, unit=name
    )
    plots.save_forecast(path, picture)


def draw_trace(path: Path, name: str) -> None:
    """The picture of a trace."""
    row = {"position": 0, "gap": 0.5, "log_ratio": 0.5, "threshold": 0.0, "accepted": True}
    plots.save_trace(path, [row], name)


def sweep(rule: str) -> dict[str, list[dict[str, object]]]:
    """The results of a sweep over draft lengths and sigmas."""
    row = {"method": "speculative", "rule": rule, "output": "sample", "bias": None}
    found = {"tolerance": None, "acceptance": 0.5, "relative_error": 0.1}
    settings = [(k, sigma) for k in (1, 2) for sigma in (0.5, 1.0)]
    rows = [{**row, **found, "num_draft": k, "sigma": s, "speedup": k * s} for k, s in settings]
    return {"rows": rows}


def draw_pareto(path: Path, name: str) -> None:
    """The picture of a sweep, with the name of a rule in its legend."""
    sweeps.save_pareto(path, sweep(name))


def draw_heat(path: Path, name: str) -> None:
    """The heat maps of a sweep, with the name of a rule above each."""
    sweeps.save_heat(path, sweep(name))


PICTURES: list[Draw] = [
    draw_forecast,
    draw_backtest,
    draw_window,
    draw_trace,
    draw_pareto,
    draw_heat,
]


@pytest.mark.parametrize("name", ["$US to $CA", "$\\frac$", "a_$x^$"])
@pytest.mark.parametrize("draw", PICTURES)
def test_a_name_with_dollars_is_shown_as_it_is(
    tmp_path: Path, drawn: list[Figure], draw: Draw, name: str
) -> None:
    """A name would be read as a formula: a crash, or italics without dollars and spaces."""
    draw(tmp_path / "a.png", name)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    texts = [text for text in drawn[0].findobj(Text) if name in text.get_text()]
    assert texts
    assert not any(text.get_parse_math() for text in texts)


@pytest.mark.parametrize("draw", PICTURES)
def test_a_name_that_the_font_cannot_show_gives_no_warning(tmp_path: Path, draw: Draw) -> None:
    """The user would read warnings of matplotlib about glyphs (in a test they are errors)."""
    draw(tmp_path / "a.png", "日本\t")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_other_warnings_of_a_picture_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A warning that matters would be hidden with those about glyphs."""
    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: warnings.warn("tight", stacklevel=2))
    with pytest.warns(UserWarning, match="tight"):
        draw_forecast(tmp_path / "a.png", "a")


# --- short horizons ------------------------------------------------------------------------------


def test_a_forecast_of_one_step_is_seen(tmp_path: Path, drawn: list[Figure]) -> None:
    """A line and a band of one point are invisible: the picture would show no forecast."""
    found = ahead(9, 1, ("5", "25", "75", "95"))
    plots.save_intervals(tmp_path / "a.png", past(9), found, COLUMNS)
    (axes,) = drawn[0].axes
    history, mean = axes.lines
    assert mean.get_marker() == "o"
    assert history.get_marker() == "None"
    bars = {bar.get_label(): bar.get_segments()[0].tolist() for bar in axes.collections}
    assert bars == {"5 to 95 %": [[9, 5], [9, 95]], "25 to 75 %": [[9, 25], [9, 75]]}


def test_a_backtest_of_one_step_is_seen(tmp_path: Path, drawn: list[Figure]) -> None:
    """The forecasts of a backtest, or those of seasonal-naive, would be invisible."""
    found = backtested([6, 7], 1, ("10", "90"))
    plots.save_backtest(tmp_path / "a.png", past(9), found, COLUMNS)
    (axes,) = drawn[0].axes
    shown = [line for line in axes.lines if line.get_marker() == "o"]
    places = [(line.get_xdata(orig=False)[0], line.get_ydata()[0]) for line in shown]
    assert places == [(7, 2), (7, 50), (8, 2), (8, 50)]
    assert [bar.get_segments()[0].tolist() for bar in axes.collections] == [
        [[7, 10], [7, 90]],
        [[8, 10], [8, 90]],
    ]


@pytest.mark.parametrize(("known", "horizon", "shown"), [(80, 1, 50), (30, 1, 30), (80, 20, 60)])
def test_a_forecast_is_shown_after_enough_history(
    tmp_path: Path, drawn: list[Figure], known: int, horizon: int, shown: int
) -> None:
    """After three steps of history nobody could tell whether a forecast of one step is sensible."""
    plots.save_intervals(tmp_path / "a.png", past(known), ahead(known, horizon), COLUMNS)
    history = drawn[0].axes[0].lines[0]
    assert history.get_xdata(orig=False).tolist() == list(range(known - shown, known))


@pytest.mark.parametrize(
    ("known", "horizon", "cutoffs", "start"),
    [(80, 1, [78], 30), (30, 1, [28], 0), (80, 20, [19, 39, 59], 0), (90, 20, [49, 69], 30)],
)
def test_a_backtest_is_shown_after_enough_history(
    tmp_path: Path,
    drawn: list[Figure],
    known: int,
    horizon: int,
    cutoffs: list[int],
    start: int,
) -> None:
    """A backtest of one step would be two points, or a longer one lack a horizon before it."""
    found = backtested(cutoffs, horizon)
    plots.save_backtest(tmp_path / "a.png", past(known), found, COLUMNS)
    truth = drawn[0].axes[0].lines[0]
    assert truth.get_xdata(orig=False).tolist() == list(range(start, known))


@pytest.mark.parametrize("horizon", [1, 5])
def test_a_window_whose_last_patch_has_one_step_is_seen(
    tmp_path: Path, drawn: list[Figure], horizon: int
) -> None:
    """Of an evaluation one step ahead, or of a rejected last patch, nothing would be drawn."""
    count, steps = -(-horizon // 4), np.arange(float(horizon))
    series = dict.fromkeys(("truth", "target", "draft", "speculative"), steps)
    picture = plots.Picture(
        **series,
        context=np.arange(9.0),
        proposal=np.ones((count, 4)),
        origin=np.full(count, RECOVERED),
        patch_len=4,
        title="",
        unit="",
    )
    plots.save_forecast(tmp_path / "a.png", picture)
    for axes in drawn[0].axes:
        for line in axes.lines:
            if line.get_label() != "context" and len(line.get_xdata()) == 1:
                assert line.get_marker() == "o", line


# --- intervals -----------------------------------------------------------------------------------


def test_only_central_intervals_are_shaded(tmp_path: Path, drawn: list[Figure]) -> None:
    """Levels without a partner would be paired: a band of 2.5 to 90 % that nobody asked for."""
    found = ahead(9, 4, ("90", "2.5", "10", "50", "75"))
    plots.save_intervals(tmp_path / "a.png", past(9), found, COLUMNS)
    (axes,) = drawn[0].axes
    bands = {band.get_label(): band.get_paths()[0].vertices[:, 1] for band in axes.collections}
    assert list(bands) == ["10 to 90 %"]
    assert set(bands["10 to 90 %"]) == {10, 90}
    lines = {line.get_label(): set(line.get_ydata()) for line in axes.lines[1:]}
    assert lines == {"2.5 %": {2.5}, "75 %": {75}, "mean": {50}}


@pytest.mark.parametrize("horizon", [1, 4])
def test_a_band_has_the_colour_of_its_entry_in_the_legend(
    tmp_path: Path, drawn: list[Figure], horizon: int
) -> None:
    """Nested bands would be told apart in the picture and have one colour in the legend."""
    found = ahead(9, horizon, ("5", "25", "40", "60", "75", "95"))
    plots.save_intervals(tmp_path / "a.png", past(9), found, COLUMNS)
    (axes,) = drawn[0].axes
    colours = [tuple(band.get_edgecolor()[0]) for band in axes.collections]
    if horizon > 1:
        colours = [tuple(band.get_facecolor()[0]) for band in axes.collections]
    assert len(set(colours)) == 3
    assert all(colour[3] == 1 for colour in colours)  # nothing shines through
    assert sorted(colours, reverse=True) == colours  # the narrowest is the darkest


def test_the_labels_of_intervals_are_given_once(tmp_path: Path, drawn: list[Figure]) -> None:
    """The legend of a backtest would name every level again for each cutoff."""
    found = backtested([8, 12], 4, ("2.5", "10", "90"))
    plots.save_backtest(tmp_path / "a.png", past(17), found, COLUMNS)
    names = [text.get_text() for text in drawn[0].axes[0].get_legend().get_texts()]
    assert sorted(names) == ["10 to 90 %", "2.5 %", "cutoff", "mean", "seasonal-naive", "truth"]


# --- legends -------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [(), MANY])
@pytest.mark.parametrize("series", [1, 6])
def test_a_legend_covers_no_history(
    tmp_path: Path, drawn: list[Figure], levels: tuple[str, ...], series: int
) -> None:
    """The start of a history that falls would lie behind the legend."""
    names = [f"s{i}" for i in range(series)]
    known = pd.concat([past(40, name).assign(y=np.arange(99.0, 59, -1)) for name in names])
    found = pd.concat([ahead(40, 4, levels, name) for name in names])
    plots.save_intervals(tmp_path / "a.png", known, found, COLUMNS)
    drawn[0].draw_without_rendering()
    for axes in drawn[0].axes:
        legend = axes.get_legend().get_window_extent()
        history = axes.transData.transform(axes.lines[0].get_xydata())
        assert not any(legend.contains(*point) for point in history)
