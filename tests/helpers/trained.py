"""A small pair and a short series, shared by the tests of evaluation."""

import functools
from pathlib import Path

import jax
import numpy as np

from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.checkpoints.store import save_model
from stride_jax.data.config import DataConfig
from stride_jax.data.splits import ForecastData, prepare
from stride_jax.evaluation.config import Setup
from stride_jax.evaluation.subject import Loaded
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.timer_xl import init_params
from stride_jax.types import Series

CONTEXT, HORIZON, PATCH = 16, 10, 4
MODEL = TimerXLConfig(patch_len=PATCH, d_model=8, num_heads=2, d_ff=8, dropout=0.0)
TARGET = Checkpoint(MODEL, init_params(jax.random.key(0), MODEL), CONTEXT)
DATA = DataConfig(source="x.csv", context_len=CONTEXT)


@functools.cache
def waves(steps: int = 200) -> ForecastData:
    """Two noisy sines."""
    t = np.arange(steps)
    values = np.stack([np.sin(t / 4), 3 * np.cos(t / 7) + 5], axis=1)
    values += 0.2 * np.random.default_rng(0).normal(size=values.shape)
    return prepare(DATA, Series(values, ("a", "b")))


def loaded(steps: int = 200, **changes: object) -> Loaded:
    """The series and the target; `changes` are fields of the target."""
    return Loaded(waves(steps), TARGET._replace(**changes))


def setup(**fields: object) -> Setup:
    """A small setup; one patch is repeated by the draft."""
    values = {"data": DATA, "drafts": ("last-value",), "horizons": (HORIZON,), "batch_size": 3}
    return Setup(**{**values, "sigma": 0.7, "stride": 4, "out": "unused", **fields})


def save_draft(folder: Path, **changes: object) -> str:
    """A draft with parameters of its own, as a file; its path."""
    model = MODEL if not changes else MODEL.__class__(**{**vars(MODEL), **changes})
    path = folder / "small.npz"
    save_model(path, Checkpoint(model, init_params(jax.random.key(1), model), CONTEXT))
    return str(path)
