"""Scores, rows, tables and pictures of an evaluation."""

import csv
import dataclasses
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stride_jax.checkpoints import pytorch as convert
from stride_jax.checkpoints.build import Pair, make_pair
from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.config import from_dict
from stride_jax.data.config import DataConfig
from stride_jax.data.splits import ForecastData, prepare
from stride_jax.data.windows import make_windows
from stride_jax.decoding.base import DecodeConfig, Process
from stride_jax.decoding.speculative import decode
from stride_jax.errors import InputError
from stride_jax.evaluation import benchmark, report, scoring, tables
from stride_jax.evaluation import figures as plots
from stride_jax.evaluation.config import EvaluateConfig
from stride_jax.evaluation.methods import make_methods, make_pairs, process_kind
from stride_jax.forecasting import sigma as calibrate
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.timer_xl import init_params
from stride_jax.types import Series

ROOT = Path(__file__).parents[2]
MODEL = TimerXLConfig(patch_len=8, d_model=16, num_heads=2, d_ff=32)
TARGET = Checkpoint(MODEL, init_params(jax.random.key(0), MODEL), 32)
DRAFT = Checkpoint(MODEL.scaled(0.5), init_params(jax.random.key(1), MODEL.scaled(0.5)), 16)
FIELDS = {
    "method", "kind", "data", "context", "horizon", "windows", "batch", "process", "draft", "rule",
    "sigma", "num_draft", "num_paths", "mse", "mae", "mse_of_mean", "crps", "distance",
    "acceptance", "expected_acceptance", "patches_per_round", "target_passes", "drafted",
    "coverage_80", "acceptance_by_place", "accept_after_accept", "accept_after_reject",
    "accept_first", "overflow", "seconds", "compile_seconds", "speedup", "speedup_over",
    "speedup_over_fastest", "fastest",
}  # fmt: skip
Rows = dict[str, list[dict[str, object]]]


@pytest.fixture(scope="module")
def data() -> ForecastData:
    """Two noisy sines of 300 steps."""
    t = np.arange(300)
    noise = 0.2 * np.random.default_rng(0).normal(size=(300, 2))
    waves = np.stack([np.sin(t / 4), 3 * np.cos(t / 7) + 5], axis=1) + noise
    return prepare(DataConfig(source="x.csv", context_len=32), Series(waves, ("a", "b")))


@pytest.fixture(scope="module")
def draft_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The draft as a file."""
    path = tmp_path_factory.mktemp("draft") / "small.npz"
    convert.save_pytorch(path, DRAFT)
    return str(path)


def settings(variables: str = "joint", **fields: object) -> EvaluateConfig:
    """A small evaluation."""
    source = DataConfig(source="x.csv", context_len=32, variables=variables)
    values = {"horizons": (20,), "num_draft": 2, "num_paths": 3, "batch_size": 7, "repeats": 1}
    values |= {"draft": "last-value", "timing_batch": 2}
    return EvaluateConfig(data=source, **{**values, **fields})


def whole(draft_path: str) -> EvaluateConfig:
    """The evaluation whose rows are looked at."""
    rules = ("maximal", "mean")
    return settings(
        draft=draft_path, rules=rules, tolerance=0.0, both_baselines=True, season=5, repeats=2
    )


@pytest.fixture(scope="module")
def results(data: ForecastData, draft_path: str) -> dict[str, object]:
    """One whole evaluation."""
    return json.loads(json.dumps(benchmark.evaluate(whole(draft_path), data, TARGET)))


def methods(
    pair: Pair, config: EvaluateConfig, other: object = None, sigma: float = 0.5
) -> list[scoring.Method]:
    """The rows to be of one pair."""
    return make_methods({config.draft: pair}, other, "window", config, 20, sigma)


def roll(process: Process, contexts: list[np.ndarray], context_len: int) -> np.ndarray:
    """The mean paths of these contexts, 20 steps, patch by patch."""
    law, grown = jax.jit(jax.vmap(process.law)), jnp.stack(contexts)
    for _ in range(3):
        grown = jnp.concatenate([grown, law(grown[:, -context_len:]).mean], axis=1)
    return np.asarray(grown[:, 32:52])


@pytest.mark.parametrize("variables", ["joint", "separate"])
def test_every_window_counts_once_and_scores_are_right(data: ForecastData, variables: str) -> None:
    """A dropped last batch, a shifted truth or a wrong mean would flatter or spoil every table."""
    config = settings(variables)
    pair = make_pair(TARGET, DRAFT, "window", 32, 2 if variables == "joint" else 1)
    windows = benchmark.test_windows(config, data, 20)
    assert windows.count % config.batch_size
    values = jnp.asarray(data.values)
    method = methods(pair, config)[0]
    got, made = scoring.score(method, jax.random.key(0), values, windows, 20, config)
    first, stop = data.splits.test
    chosen = [
        data.values[row : row + 52, variable]
        for variable in ((slice(None),) if variables == "joint" else (slice(0, 1), slice(1, 2)))
        for row in range(first, stop - 52 + 1)
    ]
    paths = roll(pair.target, [window[:32] for window in chosen], 32)
    squares, sizes = [], []
    for window, path in zip(chosen, paths, strict=True):
        squares.append(np.mean((path - window[32:]) ** 2))
        sizes.append(np.mean(np.abs(path - window[32:])))
    assert windows.count == len(squares)
    np.testing.assert_allclose(got["mse"], np.mean(squares), rtol=1e-4)
    np.testing.assert_allclose(got["mae"], np.mean(sizes), rtol=1e-4)
    np.testing.assert_allclose(made[:, 0], paths, atol=1e-4)


@pytest.mark.slow
def test_scores_do_not_depend_on_the_batch_size(data: ForecastData) -> None:
    """Sample paths that change with the batch size make results impossible to compare."""
    pair = make_pair(TARGET, DRAFT, "window", 32, 2)
    values = jnp.asarray(data.values)
    scores = []
    for batch_size in (5, 64):
        config = settings(batch_size=batch_size)
        method = methods(pair, config)[-1]
        windows = benchmark.test_windows(config, data, 20)
        got, _ = scoring.score(method, jax.random.key(0), values, windows, 20, config)
        scores.append(got)
    assert scores[0]["acceptance"] > 0
    for name, value in scores[0].items():
        if value is None:
            assert scores[1][name] is None
        else:
            np.testing.assert_allclose(value, scores[1][name], rtol=1e-4, err_msg=name)


def test_the_closed_form_of_the_acceptance_is_that_of_the_trace(data: ForecastData) -> None:
    """The column beside the measured acceptance would promise another one than the theory does."""
    config, sigma, key = settings(stride=6), 0.5, jax.random.key(0)
    pair = make_pair(TARGET, DRAFT, "window", 32, 2)
    windows, values = benchmark.test_windows(config, data, 20), jnp.asarray(data.values)
    assert windows.count % config.batch_size == 0  # not padded, so that one decode is all of it
    method = next(m for m in methods(pair, config) if m.rule == "maximal")
    got, _ = scoring.score(method, key, values, windows, 20, config)
    index = jnp.arange(windows.count)
    _, info = decode(
        key,
        windows.gather(values, index)[:, :32],
        target=pair.target,
        draft=pair.draft,
        sigma=sigma,
        config=DecodeConfig(20, 2, num_paths=3, trace=True),
        series_index=index,
    )
    expected, tested, kept = 0.0, 0, 0
    for b in range(windows.count):
        for s in range(3):
            trace = jax.tree.map(lambda x, b=b, s=s: np.asarray(x)[b, s], info.trace)
            for start, gaps, accepted in zip(trace.start, trace.gap, trace.accepted, strict=True):
                for place in range(2):
                    if start < 0 or start + place >= 3 or not all(accepted[:place]):
                        continue
                    delta = float(gaps[place]) * math.sqrt(8 * 2)
                    expected += math.erfc(delta / 2 / math.sqrt(2))  # 2 Phi(-delta / 2)
                    tested, kept = tested + 1, kept + int(accepted[place])
    np.testing.assert_allclose(got["expected_acceptance"], expected / tested, rtol=1e-4)
    np.testing.assert_allclose(got["acceptance"], kept / tested, rtol=1e-6)
    assert abs(got["acceptance"] - got["expected_acceptance"]) < 0.25


def test_calibrated_sigma_is_the_root_of_the_one_patch_error(data: ForecastData) -> None:
    """A sigma from another split or another horizon changes every acceptance."""
    pair = make_pair(TARGET, DRAFT, "window", 32, 2)
    windows = make_windows(data.splits.validation, 40, 2, separate=False)
    values = jnp.asarray(data.values)
    got = calibrate.calibrate_sigma(pair.target, values, windows, 7)
    series = windows.gather(values, jnp.arange(windows.count))
    mean = jax.jit(jax.vmap(pair.target.law))(series[:, :32]).mean
    np.testing.assert_allclose(got, np.sqrt(np.mean((mean - series[:, 32:]) ** 2)), rtol=1e-5)


def test_rows_hold_every_field_and_every_method(results: Rows, draft_path: str) -> None:
    """A reader of results.json relies on these names, and on a draft-only row."""
    rows = results["rows"]
    assert all(set(row) == FIELDS for row in rows)
    names = ("kind", "method", "process", "draft", "rule")
    found = [tuple(row[name] for name in names) for row in rows]
    alone = [
        (kind, *rest)
        for kind in ("point", "sampled")
        for rest in (
            ("autoregressive", "window", None, None),
            ("autoregressive", "cached", None, None),
            ("draft", "window", draft_path, None),
        )
    ]
    rules = (("point", "mean"), ("sampled", "maximal"))
    coupled = [(kind, "speculative", "window", draft_path, rule) for kind, rule in rules]
    assert sorted(found, key=str) == sorted([*alone, *coupled], key=str)
    assert {"hardware", "versions", "config", "key", "sigma", "table"} <= set(results)
    assert from_dict(EvaluateConfig, results["config"]) == whole(draft_path)


def test_every_draft_has_its_own_rows(draft_path: str) -> None:
    """A second draft asked for would be missing, or scored under the first one's name."""
    config = settings(draft="seasonal:8", other_drafts=(draft_path, "last-value"))
    pairs = make_pairs(config, TARGET, 2)
    rows = make_methods(pairs, None, "window", config, 20, 0.5)
    found = [(row.draft, row.rule) for row in rows if row.name == "speculative"]
    names = ("seasonal:8", draft_path, "last-value")
    assert found == [(name, rule) for rule in ("maximal", "resample") for name in names]
    assert [row.draft for row in rows if row.name == "draft"] == [*names, *names]


def test_counts_of_the_rows_fit_together(results: Rows) -> None:
    """Three patches a window: passes and patches a round are two views of one number."""
    for row in results["rows"]:
        speculative = row["method"] == "speculative"
        if row["method"] == "autoregressive":
            assert row["target_passes"] == 3
        elif row["method"] == "draft":
            assert row["target_passes"] == 0
        else:
            np.testing.assert_allclose(row["patches_per_round"] * row["target_passes"], 3)
            most = 2 * row["target_passes"]  # one less where the last round misses one patch
            assert most - 1 <= row["drafted"] <= most
            assert 0 <= row["acceptance"] <= 1
            assert 0 <= row["expected_acceptance"] <= 1
            assert row["overflow"] == 0
        for name in ("crps", "mse_of_mean", "num_paths"):
            assert (row[name] is None) == (row["kind"] == "point")
        for name in ("acceptance", "expected_acceptance", "drafted", "overflow", "num_draft"):
            assert (row[name] is None) == (not speculative)
        assert row["seconds"] > 0
        assert row["windows"] == 41


def test_speedups_are_over_the_same_kind_and_the_fastest(results: Rows) -> None:
    """A sampled decode timed against the mean path, or the slower baseline, is an unfair ratio."""
    for row in results["rows"]:
        bases = {
            r["process"]: r["seconds"]
            for r in results["rows"]
            if r["method"] == "autoregressive" and r["kind"] == row["kind"]
        }
        assert set(bases) == {"window", "cached"}
        np.testing.assert_allclose(row["speedup"], bases[row["process"]] / row["seconds"])
        assert f"autoregressive {row['kind']}, {row['process']} process" in row["speedup_over"]
        fastest = min(bases, key=bases.__getitem__)
        np.testing.assert_allclose(row["speedup_over_fastest"], bases[fastest] / row["seconds"])
        assert f"autoregressive {row['kind']}, {fastest} process" in row["fastest"]


def test_the_distance_is_from_the_target_s_own_forecast(
    results: Rows, data: ForecastData, draft_path: str
) -> None:
    """How far a draft or a rule strays would be measured from the wrong path, or not at all."""
    config = whole(draft_path)
    point = {(r["method"], r["process"]): r for r in results["rows"] if r["kind"] == "point"}
    assert point["autoregressive", "window"]["distance"] is None
    assert point["autoregressive", "cached"]["distance"] is None
    assert point["speculative", "window"]["rule"] == "mean"
    assert 0 <= point["speculative", "window"]["distance"] < 1e-9  # tolerance 0
    pair = make_pair(TARGET, DRAFT, "window", 32, 2)
    windows = benchmark.test_windows(config, data, 20)
    rows = range(windows.start, windows.start + windows.count)
    contexts = [data.values[row : row + 32] for row in rows]
    gap = roll(pair.target, contexts, 32) - roll(pair.draft, contexts, 16)
    distance = point["draft", "window"]["distance"]
    np.testing.assert_allclose(distance, np.mean(gap**2), rtol=1e-4)
    assert distance > 1e-3


def test_the_seasonal_naive_repeats_the_last_season(
    results: dict[str, dict[str, dict[str, float]]], data: ForecastData
) -> None:
    """A naive forecast that is shifted by a step makes every model look better than it is."""
    first, stop = data.splits.test
    squares, sizes = [], []
    for row in range(first, stop - 52 + 1):
        for ahead in range(20):
            error = data.values[row + 27 + ahead % 5] - data.values[row + 32 + ahead]
            squares.append(np.mean(error**2))
            sizes.append(np.mean(np.abs(error)))
    found = results["seasonal_naive"]
    assert set(found) == {"20"}
    np.testing.assert_allclose(found["20"]["mse"], np.mean(squares), rtol=1e-5)
    np.testing.assert_allclose(found["20"]["mae"], np.mean(sizes), rtol=1e-5)


def test_a_season_longer_than_the_context_is_refused(data: ForecastData) -> None:
    """The naive score would be of another season, or an IndexError after all the work."""
    with pytest.raises(InputError, match="season"):
        benchmark.evaluate(settings(season=33, rules=(), sigma=0.5, stride=20), data, TARGET)


def test_auto_takes_the_process_that_a_model_was_trained_for() -> None:
    """A causal model would be decoded window by window, which it never saw in training."""
    causal = TARGET._replace(model=dataclasses.replace(MODEL, instance_norm="causal"))
    assert process_kind(settings(), causal) == "cached"
    assert process_kind(settings(), TARGET) == "window"
    assert process_kind(settings(process="window"), causal) == "window"
    assert process_kind(settings(process="cached"), TARGET) == "cached"
    pairs = make_pairs(settings(), causal, 2)
    assert pairs["last-value"].target.norm == "causal"


def test_files_and_tables_say_the_same(tmp_path: Path, results: dict[str, object]) -> None:
    """The CSV, the JSON and the Markdown table are three views of the same rows."""
    report.write_results(tmp_path, results)
    assert json.loads((tmp_path / "results.json").read_text()) == results
    with (tmp_path / "results.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(results["rows"])
    page = tmp_path / "page.md"
    page.write_text("# A\n<!-- table: results.json -->\nold\n<!-- end -->\nafter\n")
    assert report.main(["--check", str(page)]) == 1
    assert "old" in page.read_text()
    assert report.main([str(page)]) == 0
    assert report.main(["--check", str(page)]) == 0
    text = page.read_text()
    assert "old" not in text
    assert text.startswith("# A\n")
    assert text.endswith("<!-- end -->\nafter\n")
    for row in results["rows"]:
        assert f"{row['mse']:.4f}" in text
        assert f"{row['speedup_over_fastest']:.2f}" in text
    assert f"{results['seasonal_naive']['20']['mse']:.4f} at 20" in text
    assert "target alone, cached" in text


def test_a_missing_result_file_is_named(tmp_path: Path) -> None:
    """A table without its source must not stay in the docs."""
    page = tmp_path / "page.md"
    page.write_text("<!-- table: gone.json -->\n<!-- end -->\n")
    with pytest.raises(InputError, match=r"gone\.json"):
        report.render(page)


def test_no_committed_table_is_stale() -> None:
    """Numbers in the docs come out of result files by a command, never by hand."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    stale = [page for page in pages if report.render(page) != page.read_text()]
    assert not stale, f"run: python -m stride_jax.evaluation.report {' '.join(map(str, stale))}"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[plots.Picture]:
    """The pictures that are drawn."""
    pictures: list[plots.Picture] = []
    save = plots.save_forecast

    def spy(path: Path, picture: plots.Picture) -> None:
        pictures.append(picture)
        save(path, picture)

    monkeypatch.setattr(report, "save_forecast", spy)
    return pictures


@pytest.mark.slow
def test_the_picture_is_drawn_of_the_chosen_variable(
    tmp_path: Path, data: ForecastData, draft_path: str, drawn: list[plots.Picture]
) -> None:
    """A broken picture, or one of another variable, would only be seen by a reader of the docs."""
    config = settings("separate", plot_variable="b", draft=draft_path)
    path = report.save_picture(tmp_path, config, data, TARGET, 0.5)
    row = data.splits.test[0] + benchmark.test_windows(config, data, 20).num_starts // 2
    window = data.values[row : row + 52, 1:]
    pair = make_pair(TARGET, DRAFT, "window", 32, 1)
    shown = {
        "truth": window[32:],
        "target": roll(pair.target, [window[:32]], 32)[0],
        "draft": roll(pair.draft, [window[:32]], 16)[0],
        "context": window[:32],
    }
    for name, value in shown.items():
        units = value[:, 0] * data.std[1] + data.mean[1]
        np.testing.assert_allclose(getattr(drawn[0], name), units, rtol=1e-4, err_msg=name)
    with pytest.raises(InputError, match="no variable 'c'"):
        report.save_picture(tmp_path, settings(plot_variable="c"), data, TARGET, 0.5)
    assert path == tmp_path / "forecast.png"
    for picture in (path, tmp_path / "trace.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert picture.stat().st_size > 10_000
    with (tmp_path / "trace.csv").open() as file:
        assert {row["position"] for row in csv.DictReader(file)} >= {"0"}


def test_no_picture_where_nothing_speculates(tmp_path: Path, data: ForecastData) -> None:
    """An evaluation whose budget chose K = 0 would end in a traceback."""
    assert report.save_picture(tmp_path, settings(rules=()), data, TARGET, 0.5) is None
    assert list(tmp_path.iterdir()) == []


def test_the_picture_shows_the_draft_that_proposed(
    tmp_path: Path, data: ForecastData, draft_path: str, drawn: list[plots.Picture]
) -> None:
    """The dashed line would be the forecast of a draft that had no part in the path below."""
    config = settings(draft="last-value", other_drafts=(draft_path,), rules=("maximal",))
    report.save_picture(tmp_path, config, data, TARGET, 0.5)
    assert len(np.unique(drawn[0].draft)) == 1  # the last value goes on


def test_without_matplotlib_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The picture is the only part that needs the extra; its absence must say so."""
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    empty = np.zeros(1)
    picture = plots.Picture(*([empty] * 5), np.zeros((1, 1)), np.zeros(1, int), 1, "", "")
    with pytest.raises(InputError, match=r"stride-jax\[plot\]"):
        plots.save_forecast(tmp_path / "a.png", picture)


def test_mistakes_show_before_the_work(data: ForecastData) -> None:
    """A misspelt rule or a horizon too long, found after half an hour, throws the rest away."""
    said: list[str] = []
    wrongs = (
        {"rules": ("maxmial",)},
        {"horizons": (20, 5000)},
        {"draft": "nowhere.npz"},
        {"other_drafts": ("layer-skip:1",)},
        {"data": DataConfig(source="x.csv", context_len=40)},
    )
    reasons = r"maximal|5032 rows|no checkpoint 'nowhere|more layers|trained on a context of 32"
    for wrong in wrongs:
        config = dataclasses.replace(settings(), **wrong)
        with pytest.raises(InputError, match=reasons):
            benchmark.evaluate(config, data, TARGET, said.append)
    assert said == []


def test_a_draft_that_cannot_work_shows_before_the_work(data: ForecastData) -> None:
    """A period as long as the context is found when all baselines have been scored already."""
    said: list[str] = []
    config = settings(draft="seasonal:32", rules=("maximal",), sigma=0.5, stride=20)
    with pytest.raises(InputError, match="period 32 needs a longer context"):
        benchmark.evaluate(config, data, TARGET, said.append)
    assert said == []


def test_no_paths_means_no_sampled_rows(data: ForecastData) -> None:
    """A table of mean paths over every window would cost three times as much."""
    found = benchmark.evaluate(settings(rules=("mean",), num_paths=0), data, TARGET)
    assert [row["kind"] for row in found["rows"]] == ["point"] * 3
    text = tables.make_table(found)
    assert "Point forecasts" in text
    assert "Sample paths" not in text


def test_a_sampling_rule_without_paths_is_refused(data: ForecastData) -> None:
    """The rule that was asked for would be missing from the table without a word."""
    with pytest.raises(InputError, match="'maximal' draws sample paths"):
        benchmark.evaluate(settings(rules=("maximal",), num_paths=0), data, TARGET)
