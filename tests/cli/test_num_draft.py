"""`--num-draft` and `--calibrate`, and the lines on where the columns come from."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.cli import Capture

import stride_jax as sj
from stride_jax.cli import forecast as command
from stride_jax.cli.parser import Arguments, make_parser
from stride_jax.decoding.rules import Mean
from stride_jax.evaluation import calibration


def parsed(*flags: str) -> Arguments:
    """The flags of a forecast."""
    return make_parser().parse_args(["forecast", "x.csv", "--horizon", "8", *flags])


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), "auto"),
        (("--draft", "last-value"), 5),
        (("--draft", "last-value", "--num-draft", "auto"), "auto"),
        (("--draft", "last-value", "--num-draft", "3"), 3),
        (("--draft", "last-value", "--calibrate"), "auto"),
        (("--num-draft", "auto"), "auto"),
        (("--num-draft", "0"), 0),
    ],
)
def test_the_fastest_can_be_asked_for_with_any_draft(flags: tuple[str, ...], expected: Any) -> None:
    """With a draft that is named, what was measured could not be used without measuring again."""
    assert command.num_draft_of(parsed(*flags)) == expected


@pytest.mark.parametrize("text", ["Auto", "1.5", "many"])
def test_the_message_of_the_flag_names_auto(text: str, capsys: Capture) -> None:
    """Nobody would learn from it that auto is a choice."""
    with pytest.raises(SystemExit):
        parsed("--num-draft", text)
    assert f"must be a whole number or auto, got '{text}'" in capsys.readouterr().err


def test_the_help_says_what_the_draws_depend_on(capsys: Capture) -> None:
    """Somebody would take the same seed for the same forecast on every machine."""
    with pytest.raises(SystemExit):
        parsed("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "the draws also depend on the number of proposals that is chosen" in text


@pytest.mark.parametrize(
    ("reports", "flags", "said"),
    [
        ((0.1, 0.9), (), True),
        ((0.1, "mean"), ("--num-samples", "0"), True),
        ((0.1, 0.9), ("--num-samples", "10"), False),
        (("mean", "median"), (), False),
        (("mean", "median"), ("--num-samples", "0"), False),
        ((), (), False),
    ],
)
def test_quantiles_are_said_to_be_reported_where_they_are(
    reports: tuple[float | str, ...], flags: tuple[str, ...], said: bool, capsys: Capture
) -> None:
    """The quantiles of a hundred paths would be called those of the model."""
    target = sj.window_process(lambda window: window[-4:], 4, reports=reports)
    command._say_reported(parsed(*flags), sj.Pair(target))
    assert ("quantiles are those that the model reports" in capsys.readouterr().err) == said


@pytest.mark.parametrize(
    ("reports", "flags", "paths", "lengths"),
    [
        ((), (), 100, [30, 20, 10]),
        ((), ("--num-samples", "2000", "--num-draft", "auto"), 2000, [30]),
        ((), ("--num-samples", "0"), 0, [30, 20, 10]),
        ((0.1, 0.9), (), 0, [30, 20, 10]),
        ((0.1, 0.9), ("--num-samples", "2000"), 2000, [30]),
        (("mean",), (), 100, [30, 20, 10]),
    ],
)
def test_the_paths_that_are_decoded_are_measured(
    reports: tuple[float | str, ...],
    flags: tuple[str, ...],
    paths: int,
    lengths: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The command would end in a TypeError, or measure other paths or shorter contexts."""
    calls = []

    def calibrate(pair: Any, history: Any, horizon: int, **options: Any) -> Any:
        calls.append((options["num_samples"], [len(one) for one in history]))
        return SimpleNamespace(reason="")

    target = sj.window_process(lambda window: window[-4:], 4, reports=reports)
    monkeypatch.setattr(calibration, "calibrate", calibrate)
    monkeypatch.setattr(command, "choose_pair", lambda args, brief: sj.Pair(target))
    panel: Any = SimpleNamespace(grids=[SimpleNamespace(values=np.ones(n)) for n in (10, 30, 20)])
    command.measure_drafts(parsed(*flags, "--calibrate"), panel)
    assert calls == [(paths, lengths)]


def test_the_flags_of_the_forecast_are_those_of_its_calibration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The acceptance of another sigma or rule would choose the number of proposals."""
    calls: list[dict[str, Any]] = []

    def calibrate(pair: Any, history: Any, horizon: int, **options: Any) -> Any:
        calls.append({"horizon": horizon, **options})
        return SimpleNamespace(reason="")

    pair = sj.Pair(sj.window_process(lambda window: window[-4:], 4))
    monkeypatch.setattr(calibration, "calibrate", calibrate)
    monkeypatch.setattr(command, "choose_pair", lambda args, brief: pair)
    panel: Any = SimpleNamespace(grids=[SimpleNamespace(values=np.ones(10))])
    flags = ("--num-samples", "0", "--sigma", "0.5", "--missing", "error", "--rule", "mean")
    command.measure_drafts(parsed("--calibrate", *flags), panel)
    wanted = {"horizon": 8, "num_samples": 0, "sigma": 0.5, "missing": "error", "rule": Mean()}
    assert calls == [{**wanted, "quantiles": ()}]


@pytest.mark.parametrize(
    ("flags", "count", "brief"),
    [
        ((), 1, True),
        ((), 400, False),  # 100 paths of 8 steps each
        (("--num-samples", "0"), 400, True),
        (("--num-samples", "0"), 40_000, False),
        (("--calibrate",), 1, False),
    ],
)
def test_work_is_brief_by_all_its_paths(
    flags: tuple[str, ...], count: int, brief: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mean paths would wait for a compiler, or programs be measured that are not the ones used."""
    monkeypatch.setattr(command, "measure_drafts", lambda args, panel: None)
    panel: Any = SimpleNamespace(grids=[None] * count)
    with command.decoding(parsed(*flags), panel) as found:
        assert found == brief
