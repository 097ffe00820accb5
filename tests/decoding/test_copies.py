"""Caches stay where they are: no decoder copies them in its loop on a CPU."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.models import params_of

from stride_jax.checkpoints.build import make_target
from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.decoding.rules import Block
from stride_jax.decoding.speculative import decode
from stride_jax.decoding.types import DecodeConfig
from stride_jax.models.config import TimerXLConfig

P, PATCHES, AHEAD, K = 4, 3, 21, 2
MODEL = TimerXLConfig(
    patch_len=P,
    d_model=32,
    num_heads=4,
    d_ff=16,
    num_layers=2,
    instance_norm="causal",
    variable_stride=64,
)
COPY = re.compile(r"= f32\[([0-9,]+)\]\S* copy\(")


@pytest.mark.parametrize("num_vars", [1, 2])
@pytest.mark.parametrize("drafted", [False, True])
def test_a_loop_copies_no_cache(num_vars: int, drafted: bool) -> None:
    """A plain decode of one series would take twice as long on a CPU."""
    checkpoint = Checkpoint(MODEL, params_of(MODEL), P * PATCHES)
    target = make_target(checkpoint, "cached", None, num_vars)
    draft = {"draft": target, "rule": Block()} if drafted else {}
    config = DecodeConfig(horizon=AHEAD * P, num_draft=K if drafted else 0)

    def run(key: jax.Array, context: jax.Array) -> jax.Array:
        return decode(key, context, target=target, sigma=0.5, config=config, **draft)[0]

    context = jnp.zeros((P * PATCHES, num_vars))
    text = jax.jit(run).lower(jax.random.key(0), context).compile().as_text()
    copied = [np.prod([int(n) for n in found.split(",")]) for found in COPY.findall(text)]
    cache = MODEL.d_model * num_vars * AHEAD
    assert [size for size in copied if size >= cache] == []
