"""Scores, rows, tables and pictures of an evaluation."""

import csv
import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stride_jax import benchmark, calibrate, plots, report
from stride_jax.checkpoints import Checkpoint
from stride_jax.config import DataConfig, TimerXLConfig
from stride_jax.config_evaluate import EvaluateConfig
from stride_jax.config_json import from_dict
from stride_jax.data.splits import ForecastData, prepare
from stride_jax.data.windows import make_windows
from stride_jax.errors import InputError
from stride_jax.models.timer_xl import init_params
from stride_jax.types import Series

ROOT = Path(__file__).parent.parent
MODEL = TimerXLConfig(patch_len=8, d_model=16, num_heads=2, d_ff=32)
TARGET = Checkpoint(MODEL, init_params(jax.random.key(0), MODEL), 32)
DRAFT = Checkpoint(MODEL.scaled(0.5), init_params(jax.random.key(1), MODEL.scaled(0.5)), 16)
FIELDS = {
    "method", "data", "context", "horizon", "batch", "process", "rule", "sigma", "num_draft",
    "num_paths", "mse", "mae", "crps", "acceptance", "patches_per_round", "target_passes",
    "seconds", "speedup", "speedup_over",
}  # fmt: skip


@pytest.fixture(scope="module")
def data() -> ForecastData:
    """Two noisy sines of 300 steps."""
    t = np.arange(300)
    noise = 0.2 * np.random.default_rng(0).normal(size=(300, 2))
    waves = np.stack([np.sin(t / 4), 3 * np.cos(t / 7) + 5], axis=1) + noise
    return prepare(DataConfig(source="x.csv", context_len=32), Series(waves, ("a", "b")))


def settings(variables: str = "joint", **fields: object) -> EvaluateConfig:
    """A small evaluation."""
    source = DataConfig(source="x.csv", context_len=32, variables=variables)
    values = {"horizons": (20,), "num_draft": 2, "num_paths": 3, "batch_size": 7, "repeats": 1}
    return EvaluateConfig(data=source, **{**values, "timing_batch": 2, **fields})


@pytest.fixture(scope="module")
def results(data: ForecastData) -> dict[str, object]:
    """One whole evaluation."""
    config = settings()
    pair = benchmark.make_pair(TARGET, DRAFT, 32)
    return json.loads(json.dumps(benchmark.evaluate(config, data, pair)))


@pytest.mark.parametrize("variables", ["joint", "separate"])
def test_every_window_counts_once_and_scores_are_right(data: ForecastData, variables: str) -> None:
    """A dropped last batch, a shifted truth or a wrong mean would flatter or spoil every table."""
    config = settings(variables)
    pair = benchmark.make_pair(TARGET, DRAFT, 32)
    windows = benchmark.test_windows(config, data, 20)
    assert windows.count % config.batch_size
    method = benchmark.methods(pair, config, 20, 0.5)[0]
    values = jnp.asarray(data.values)
    got = benchmark.score(method, jax.random.key(0), values, windows, 20, config)
    first, stop = data.splits.test
    squares, sizes = [], []
    for variable in (slice(None),) if variables == "joint" else (slice(0, 1), slice(1, 2)):
        for row in range(first, stop - 52 + 1):
            window = data.values[row : row + 52, variable]
            grown = jnp.asarray(window[:32])
            for _ in range(3):
                grown = jnp.concatenate([grown, pair.target.law(grown[-32:]).mean])
            error = np.asarray(grown[32:52]) - window[32:]
            squares.append(np.mean(error**2))
            sizes.append(np.mean(np.abs(error)))
    assert windows.count == len(squares)
    np.testing.assert_allclose(got["mse"], np.mean(squares), rtol=1e-4)
    np.testing.assert_allclose(got["mae"], np.mean(sizes), rtol=1e-4)


def test_scores_do_not_depend_on_the_batch_size(data: ForecastData) -> None:
    """Sample paths that change with the batch size make results impossible to compare."""
    pair = benchmark.make_pair(TARGET, DRAFT, 32)
    values = jnp.asarray(data.values)
    scores = []
    for batch_size in (5, 64):
        config = settings(batch_size=batch_size)
        method = benchmark.methods(pair, config, 20, 0.5)[-1]
        windows = benchmark.test_windows(config, data, 20)
        scores.append(benchmark.score(method, jax.random.key(0), values, windows, 20, config))
    for name, value in scores[0].items():
        np.testing.assert_allclose(value, scores[1][name], rtol=1e-4, err_msg=name)


def test_calibrated_sigma_is_the_root_of_the_one_patch_error(data: ForecastData) -> None:
    """A sigma from another split or another horizon changes every acceptance."""
    pair = benchmark.make_pair(TARGET, DRAFT, 32)
    windows = make_windows(data.splits.validation, 40, 2, separate=False)
    values = jnp.asarray(data.values)
    got = calibrate.calibrate_sigma(pair.target, values, windows, 7)
    series = windows.gather(values, jnp.arange(windows.count))
    mean = jax.vmap(pair.target.law)(series[:, :32]).mean
    np.testing.assert_allclose(got, np.sqrt(np.mean((mean - series[:, 32:]) ** 2)), rtol=1e-5)


def test_rows_hold_every_field_and_every_method(
    results: dict[str, list[dict[str, object]]],
) -> None:
    """A reader of results.json relies on these names, and on a draft-only row."""
    rows = results["rows"]
    assert all(set(row) >= FIELDS for row in rows)
    found = [(row["method"], row["kind"], row["rule"]) for row in rows]
    alone = [(m, k, None) for k in ("point", "sampled") for m in ("autoregressive", "draft")]
    assert sorted(found, key=str) == sorted(
        [*alone, *(("speculative", "sampled", r) for r in ("maximal", "resample"))], key=str
    )
    assert {"hardware", "versions", "config", "key"} <= set(results)
    assert from_dict(EvaluateConfig, results["config"]) == settings()


def test_counts_of_the_rows_fit_together(results: dict[str, list[dict[str, object]]]) -> None:
    """Three patches a window: passes and patches a round are two views of one number."""
    for row in results["rows"]:
        if row["method"] == "autoregressive":
            assert row["target_passes"] == 3
        elif row["method"] == "draft":
            assert row["target_passes"] == 0
        else:
            np.testing.assert_allclose(row["patches_per_round"] * row["target_passes"], 3)
            assert 0 <= row["acceptance"] <= 1
        assert (row["crps"] is None) == (row["kind"] == "point")
        assert row["seconds"] > 0


def test_speedup_is_over_the_same_kind(results: dict[str, list[dict[str, object]]]) -> None:
    """A sampled decode timed against the mean path would be an unfair ratio."""
    for row in results["rows"]:
        base = next(
            r for r in results["rows"]
            if r["method"] == "autoregressive" and r["kind"] == row["kind"]
        )  # fmt: skip
        np.testing.assert_allclose(row["speedup"], base["seconds"] / row["seconds"])


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
    assert not stale, f"run: python -m stride_jax.report {' '.join(map(str, stale))}"


def test_the_picture_is_drawn_of_the_chosen_variable(
    tmp_path: Path, data: ForecastData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken picture, or one of another variable, would only be seen by a reader of the docs."""
    pair = benchmark.make_pair(TARGET, DRAFT, 32)
    drawn: list[plots.Picture] = []
    save = plots.save_forecast

    def spy(path: Path, picture: plots.Picture) -> None:
        drawn.append(picture)
        save(path, picture)

    monkeypatch.setattr(report, "save_forecast", spy)
    config = settings("separate", plot_variable="b")
    path = report.save_picture(tmp_path, config, data, pair, 0.5)
    row = data.splits.test[0] + benchmark.test_windows(config, data, 20).num_starts // 2
    truth = data.values[row + 32 : row + 52, 1] * data.std[1] + data.mean[1]
    np.testing.assert_allclose(drawn[0].truth, truth, rtol=1e-5)
    with pytest.raises(InputError, match="no variable 'c'"):
        report.save_picture(tmp_path, settings(plot_variable="c"), data, pair, 0.5)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 10_000


def test_without_matplotlib_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The picture is the only part that needs the extra; its absence must say so."""
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    empty = np.zeros(1)
    picture = plots.Picture(*([empty] * 5), np.zeros((1, 1)), np.zeros(1, int), 1, "", "")
    with pytest.raises(InputError, match=r"stride-jax\[plot\]"):
        plots.save_forecast(tmp_path / "a.png", picture)


def test_pairs_that_do_not_fit_are_refused() -> None:
    """Mismatched patch lengths or contexts fail before anything is decoded."""
    other = dataclasses.replace(MODEL, patch_len=4)
    draft = Checkpoint(other, init_params(jax.random.key(0), other), 32)
    with pytest.raises(InputError, match="patch length, got 8 and 4"):
        benchmark.make_pair(TARGET, draft, 32)
    with pytest.raises(InputError, match="context_len 30"):
        benchmark.make_pair(TARGET, DRAFT, 30)


def test_mistakes_show_before_the_work(data: ForecastData) -> None:
    """A misspelt rule or a horizon too long, found after half an hour, throws the rest away."""
    pair = benchmark.make_pair(TARGET, DRAFT, 32)
    said: list[str] = []
    for wrong in ({"rules": ("maxmial",)}, {"horizons": (20, 5000)}):
        with pytest.raises(InputError, match=r"maximal|5032 rows"):
            benchmark.evaluate(settings(**wrong), data, pair, said.append)
    assert said == []
    with pytest.raises(InputError, match="trained on a context of 32"):
        benchmark.make_pair(TARGET, DRAFT, 40)


def test_a_shorter_draft_context_reaches_the_draft() -> None:
    """A draft trained on 16 steps must see 16, not the target's 32."""
    pair = benchmark.make_pair(TARGET, DRAFT, 32)
    assert pair.draft.init(jnp.zeros((32, 1))).shape == (16, 1)
    assert pair.target.init(jnp.zeros((32, 1))).shape == (32, 1)
