"""What a wrong input is answered with: one clear message, before anything is compiled.

`python tools/bad_inputs.py --out docs/results/bad_inputs.json` (seconds) gives every call below its
bad input. Well is a call that ends in InputError without a single program having been compiled on
the way.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from stride_jax import (
    DecodeConfig,
    backtest,
    decode,
    forecast,
    forecast_df,
    load_pair,
    window_process,
)
from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.checkpoints.store import find_model
from stride_jax.cli import flags as cli
from stride_jax.data.config import DataConfig
from stride_jax.data.loaders import load_file
from stride_jax.data.splits import load_data
from stride_jax.decoding.draft_length import find_draft_length
from stride_jax.decoding.rules import Block, Maximal, Mean, Resample, SharedNoise, parse_rule
from stride_jax.errors import InputError
from stride_jax.evaluation.config import EvaluateConfig, Setup, TuneConfig
from stride_jax.evaluation.results import write_rows
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.timer_xl import init_params
from stride_jax.training.config import DistillConfig, OptimConfig, TrainConfig

Case = tuple[str, Callable[[], Any]]
SERIES = np.sin(np.arange(600) / 4)


def arrays() -> Iterator[Case]:
    """`forecast`."""

    def call(history: Any = SERIES, horizon: Any = 24, **fields: Any) -> Callable[[], Any]:
        return lambda: forecast(pair, history, horizon, **fields)

    pair = load_pair("beijing")
    gap = np.where(np.arange(600) == 5, np.nan, SERIES)
    yield "horizon 0", call(horizon=0)
    yield "horizon -1", call(horizon=-1)
    yield "horizon 1.5", call(horizon=1.5)
    yield "an empty history", call(np.zeros(0))
    yield "a history of NaN", call(np.full(600, np.nan))
    yield "a history with inf", call(np.where(np.arange(600) == 5, np.inf, SERIES))
    yield "gaps, missing='error'", call(gap, missing="error")
    yield "missing='drop'", call(gap, missing="drop")
    yield "a history of four axes", call(np.zeros((2, 2, 2, 2)))
    yield "a scalar history", call(1.0)
    yield "words for values", call(np.array(["a", "b"]))
    yield "complex values", call(SERIES.astype(complex))
    yield "no history in the list", call([])
    yield "an empty history in the list", call([SERIES, np.zeros(0)])
    yield "values whose squares overflow", call(SERIES * 1e200)
    yield "quantile 0", call(quantiles=(0.0,))
    yield "quantile 1.2", call(quantiles=(1.2,))
    yield "quantile NaN", call(quantiles=(float("nan"),))
    yield "num_samples -1", call(num_samples=-1)
    yield "num_draft -1", call(num_draft=-1)
    yield "sigma -1", call(sigma=-1.0)
    yield "sigma 0 for sample paths", call(sigma=0.0)
    yield "sigma NaN", call(sigma=float("nan"))
    yield "tolerance -.1", call(rule=SharedNoise(tolerance=-0.1))
    yield "a rule's name", call(rule="maximal")
    yield "a rule of means for sample paths", call(rule=Mean())
    yield "a sampling rule for the mean path", call(num_samples=0, rule=Block())
    yield "an unknown draft", lambda: load_pair("beijing", "seasonal:x")
    yield "a missing checkpoint", lambda: load_pair("runs/nobody")
    yield "variables='both'", call(variables="both")
    yield "batch_size 0", call(batch_size=0)
    yield "context_len 7, not whole patches", lambda: load_pair("beijing", context_len=7)


def frames() -> Iterator[Case]:
    """`forecast_df` and `backtest`."""
    pair = load_pair("beijing", None)
    times = pd.date_range("2026-01-01", periods=100, freq="h")
    good = pd.DataFrame({"unique_id": "a", "ds": times, "y": SERIES[:100]})

    def call(df: Any = good, h: Any = 24, **fields: Any) -> Callable[[], Any]:
        return lambda: forecast_df(df, h, pair=pair, **fields)

    def cut(**fields: Any) -> Callable[[], Any]:
        return lambda: backtest(good, pair=pair, **{"h": 24, **fields})

    odd = times.delete([3, 40, 41, 77]).append(pd.DatetimeIndex(["2031-05-05 03:07:01"]))
    yield "no frame", call([1, 2, 3])
    yield "an empty frame", call(good[:0])
    yield "a missing column", call(good.drop(columns="y"))
    yield "a renamed column", call(good, target_col="z")
    yield "two rows of one time", call(pd.concat([good, good[:1]]))
    yield "a time that is none", call(good.assign(ds=[pd.NaT, *times[1:]]))
    yield "words for times", call(good.assign(ds="monday"))
    yield "words for values in a frame", call(good.assign(y="high"))
    yield "inf in a frame", call(good.assign(y=np.inf))
    yield "a series without a clock", call(good[:1])
    yield "times off the clock", call(pd.DataFrame({"unique_id": "a", "ds": odd, "y": 1.0}))
    texts = ["01/02/2026", "02/02/2026", "03/02/2026"]
    stray = times[:-1].insert(0, pd.Timestamp("1970-01-01"))
    daily = good.assign(unique_id="b", ds=pd.date_range("2026-01-01", periods=100))
    yield "dates of either order", call(good[:3].assign(ds=texts))
    yield "one stamp of 1970", call(good.assign(ds=stray))
    yield "an hourly and a daily series", call(pd.concat([good, daily]))
    yield "a stamp off the given clock", call(good, freq="2h")
    yield "freq '0D'", call(good, freq="0D")
    yield "a format that does not fit", call(good[:3].assign(ds=texts), date_format="%Y-%m-%d")
    yield "a compact date that is none", call(good[:4].assign(ds=range(20260129, 20260133)))
    yield (
        "an offset on one stamp only",
        call(good[:2].assign(ds=["2026-01-01T00:00Z", "2026-01-01"])),
    )
    yield "two columns y", call(pd.concat([good, good[["y"]]], axis=1))
    yield "lists as ids", call(good.assign(unique_id=[["a"]] * 100))
    yield "truth for values", call(good.assign(y=True))
    yield "complex values in a frame", call(good.assign(y=1j))
    yield "quantiles without sample paths", call(num_samples=0, quantiles=(0.1, 0.9))
    yield "h 99999999999", call(h=99_999_999_999)
    yield "h 0", call(h=0)
    yield "n_windows 0", cut(n_windows=0)
    yield "step_size 0", cut(step_size=0)
    yield "more cutoffs than steps", cut(n_windows=9)


def decoders() -> Iterator[Case]:
    """`decode`, its rules and its config."""
    model = window_process(lambda window: window[-4:], 4)
    other = window_process(lambda window: window[-2:], 2)
    context = np.asarray(SERIES[:32, None], np.float32)
    key = jax.random.key(0)

    def call(context: Any = context, **fields: Any) -> Callable[[], Any]:
        settings = {"target": model, "draft": model, "sigma": 1.0, "config": DecodeConfig(8)}
        return lambda: decode(key, context, **{**settings, **fields})

    call()()  # a good one
    yield "a context of one axis", call(context[:, 0])
    yield "a context with NaN", call(np.full_like(context, np.nan))
    yield "a context of words", call(np.full((32, 1), "high"))
    yield "sigma 0 in a decoder", call(sigma=0.0)
    yield "sigma of another shape", call(sigma=np.ones(3, np.float32))
    yield "patches of different lengths", call(draft=other)
    yield (
        "three indices for two series",
        call(np.stack([context, context]), series_index=jnp.arange(3)),
    )
    yield (
        "lengths for the window process",
        call(np.stack([context, context]), lengths=np.array([32, 16])),
    )
    yield "neither target nor draft", call(target=None, draft=None)
    yield "bias .5", call(rule=Resample(bias=0.5))
    yield "mse_tolerance -1", call(rule=Resample(mse_tolerance=-1.0))
    yield "temperature 0", call(rule=Mean(temperature=0.0))
    yield "a learned scale with one sigma", call(config=DecodeConfig(8, learned_scale=True))
    yield "a rule's class in a decoder", call(rule=Maximal)
    yield "an unknown rule", lambda: parse_rule("maximum")
    yield "an unknown setting of a rule", lambda: parse_rule("mean:tolerence=0.2")
    yield "a setting that is no number", lambda: parse_rule("mean:tolerance=low")
    yield "horizon '8'", lambda: DecodeConfig("8")
    yield "num_draft True", lambda: DecodeConfig(8, num_draft=True)
    yield "draft length 'fast'", lambda: find_draft_length("fast")


def configs() -> Iterator[Case]:
    """Configs and the command line."""
    root = Path(__file__).parent.parent / "configs" / "evaluate"
    yield "a width that no head divides", lambda: TimerXLConfig(d_model=30)
    yield "dropout 1", lambda: TimerXLConfig(dropout=1.0)
    yield "context_len 100 for patches of 96", lambda: TrainConfig(DataConfig(context_len=100))
    yield "learning_rate 0", lambda: OptimConfig(learning_rate=0.0)
    yield "on_policy 2", lambda: DistillConfig(on_policy=2.0)
    yield "one sample path", lambda: EvaluateConfig(num_paths=1)
    yield "no horizon", lambda: EvaluateConfig(setup=Setup(horizons=()))
    yield "a negative budget", lambda: TuneConfig(max_error=-0.1)
    yield "an unknown config", lambda: cli.load_config("beijin", root, EvaluateConfig)
    yield "an unknown series", lambda: load_data(DataConfig(source="ETTh9"))


def files(folder: Path) -> Iterator[Case]:
    """Data files and checkpoints."""

    def table(name: str, text: str, **fields: Any) -> Callable[[], Any]:
        (folder / name).write_text(text)
        return lambda: load_file(folder / name, **fields)

    yield "an empty file", table("empty.csv", "")
    yield "a header alone", table("header.csv", "date,x\n")
    yield "words in a column", table("words.csv", "x\n1\nhigh\n")
    yield "a gap in a file", table("gap.csv", "date,x\n2026-01-01,1\n2026-01-02,\n2026-01-03,2\n")
    dates = "date;x\n2026-01-01;{}\n2026-01-02;{}\n"
    yield "an infinite cell", table("inf.csv", "date,x\n2026-01-01,1\n2026-01-02,inf\n")
    yield "a number beyond floats", table("large.csv", "date,x\n2026-01-01,1\n2026-01-02,1e999\n")
    yield "a decimal comma and a point", table("marks.csv", dates.format("1,5", "2.5"))
    yield "thousands or decimals", table("open.csv", dates.format("1.200", "2.345"))
    yield "decimal ';'", table("mark.csv", dates.format("1", "2"), decimal=";")
    yield "two columns x", table("twice.csv", "date,x,x\n2026-01-01,1,2\n")
    yield "a clock that does not grow", table("clock.csv", "date,x\n3,1\n1,2\n2,3\n")
    either = "date,x\n01/02/2026,1\n02/02/2026,2\n03/02/2026,3\n"
    yield "dates of either order in a file", table("either.csv", either)
    yield (
        "dates that are not day first",
        table("us.csv", "d,x\n01/13/2026,1\n01/14/2026,2\n", dayfirst=True),
    )
    yield "dates that go back", table("back.csv", "date,x\n2026-01-02,1\n2026-01-01,2\n")
    yield "a column that is not there", table("two.csv", "x,y\n1,2\n3,4\n", columns=["z"])
    yield "no file", lambda: load_file(folder / "nothing.csv")
    yield "a picture for a table", table("picture.png", "x")
    text = folder / "words.safetensors"
    text.write_text("not a checkpoint")
    yield "text for a checkpoint", lambda: find_model(str(text))
    pickled = folder / "pickled.npz"
    np.savez(pickled, embedding=np.array([print], dtype=object))
    yield "code in a checkpoint", lambda: find_model(str(pickled))
    half = folder / "half.safetensors"
    asset = resources.files("stride_jax") / "assets" / "beijing_target.safetensors"
    half.write_bytes(asset.read_bytes()[:100_000])
    yield "half a checkpoint", lambda: find_model(str(half))
    (folder / "run").mkdir()
    yield "a directory without a run", lambda: find_model(str(folder / "run"))
    small = TimerXLConfig(patch_len=4, d_model=16, num_heads=2, d_ff=16)
    stranger = Checkpoint(small, init_params(jax.random.key(0), small), 16)
    yield (
        "a draft of another model",
        lambda: load_pair("beijing", stranger),
    )


class Compilations:
    """Counts the programs that are compiled."""

    def __init__(self) -> None:
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self._heard)

    def _heard(self, event: str, duration: float, **_: Any) -> None:
        self.count += event == "/jax/core/compile/backend_compile_duration"


def answers(folder: Path) -> list[dict[str, Any]]:
    """One row per case."""
    # what a good call does before it decodes: small programs of no model
    jax.block_until_ready(jax.random.key(0))
    load_pair("beijing")
    heard, rows = Compilations(), []
    groups = arrays(), frames(), decoders(), configs(), files(folder)
    for name, call in (case for group in groups for case in group):
        before = heard.count
        try:
            call()
            message, kind = "taken as it is", "none"
        except InputError as error:
            message, kind = " ".join(str(error).split()).replace(str(folder), "..."), "InputError"
        except Exception as error:  # what a user should never see
            message, kind = str(error), type(error).__name__
        compiled = heard.count - before
        row = {"input": name, "error": kind, "compiled": compiled, "message": message}
        rows.append({**row, "well": kind == "InputError" and compiled == 0})
    return rows


def main() -> int:
    """Prints what went wrong, writes all; 1 if anything did."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = answers(Path(folder))
    bad = [row for row in rows if not row["well"]]
    for row in bad:
        print(row)
    print(f"{len(rows)} bad inputs, {len(rows) - len(bad)} answered well")
    if args.out:
        write_rows(args.out, rows)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
