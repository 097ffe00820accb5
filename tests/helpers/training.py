"""A short series and a small training run."""

from pathlib import Path

import numpy as np

from stride_jax.data.config import DataConfig
from stride_jax.data.splits import ForecastData, prepare
from stride_jax.models.config import TimerXLConfig
from stride_jax.training.config import OptimConfig, RunConfig, TrainConfig
from stride_jax.types import Series

MODEL = TimerXLConfig(patch_len=8, d_model=16, num_heads=2, d_ff=32, num_layers=1, dropout=0.1)


def series_of(rows: int = 400) -> ForecastData:
    """Two noisy sines."""
    t = np.arange(rows)
    rng = np.random.default_rng(0)
    waves = np.stack([np.sin(t / 4), np.cos(t / 7)], axis=1) + 0.1 * rng.normal(size=(rows, 2))
    return prepare(DataConfig(source="x.csv", context_len=32), Series(waves, ("a", "b")))


def train_config(out: Path, **optim: object) -> TrainConfig:
    """A run of a few seconds."""
    settings = {"learning_rate": 1e-2, "batch_size": 16, "epochs": 2, **optim}
    return TrainConfig(
        data=DataConfig(source="x.csv", context_len=32),
        model=MODEL,
        optim=OptimConfig(**settings),
        run=RunConfig(out=str(out), log_every=5, save_every=5),
    )
