"""Small trained-like checkpoints and histories."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from helpers.levels import P
from helpers.models import params_of
from stride_jax.checkpoints.build import load_pair
from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.checkpoints.pair import Pair
from stride_jax.models.config import TimerXLConfig

L = 16


MODEL = TimerXLConfig(
    patch_len=P,
    d_model=8,
    num_heads=2,
    d_ff=8,
    instance_norm="causal",
    variable_stride=0,
    dropout=0.0,
)


CAUSAL = Checkpoint(MODEL, params_of(MODEL), L)


WINDOW = CAUSAL._replace(model=dataclasses.replace(MODEL, instance_norm="window"))


CAUSAL_PAIR = load_pair(CAUSAL, None)


def pair_of(model: Any, draft: Any = None, **settings: Any) -> Pair:
    """The pair of a checkpoint or its path, or of a process; the draft may be a process too."""
    if not isinstance(model, str | Path | Checkpoint):
        return Pair(model, draft)
    if hasattr(draft, "verify"):
        return Pair(load_pair(model, None, **settings).target, draft)
    return load_pair(model, draft, **settings)


def walk(*shape: int, seed: int = 0) -> np.ndarray:
    """A random walk along the first axis."""
    return np.random.default_rng(seed).normal(size=shape).cumsum(axis=0)
