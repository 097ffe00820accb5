"""Histories that are no whole number of patches: the trait `context_step`."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stride_jax import DecodeConfig, decode
from stride_jax.checkpoints.build import Pair
from stride_jax.decoding.base import context_step, traits_of
from stride_jax.decoding.rules import Mean
from stride_jax.errors import InputError
from stride_jax.forecasting.forecast import forecast
from stride_jax.types import PatchDistribution

P = 4


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FirstValue:
    """Forecasts the first value of a history plus its number of steps: 4 for 1, 0, 2."""

    step_len: int | None = dataclasses.field(default=None, metadata={"static": True})
    patch_len = P
    supports_padding = True

    @property
    def context_step(self) -> int | None:
        return self.step_len

    def prepare(self, context: jax.Array, length: jax.Array | None = None) -> jax.Array:
        length = jnp.int32(len(context)) if length is None else length
        first = jax.lax.dynamic_index_in_dim(context, len(context) - length, keepdims=False)
        return first + length.astype(jnp.float32)

    def start(self, memory: jax.Array, room: int) -> tuple[()]:
        return ()

    def verify(self, memory: jax.Array, state: Any, proposals: jax.Array) -> Any:
        shape = len(proposals) + 1, P, len(memory)
        return PatchDistribution(jnp.broadcast_to(memory[None, None], shape)), state

    def commit(self, state: Any, patches: jax.Array, count: jax.Array) -> Any:
        return state


def mean_path(step: int | None, context: np.ndarray, lengths: Any) -> np.ndarray:
    """The first forecast step of each series."""
    forecast, info = decode(
        jax.random.key(0),
        context,
        target=FirstValue(step),
        sigma=0.0,
        config=DecodeConfig(horizon=1),
        rule=Mean(),
        lengths=lengths,
    )
    assert info.valid_input.all() == np.isfinite(forecast).all()
    return np.asarray(forecast)[:, 0, 0]


CONTEXT = np.arange(24, dtype=np.float32).reshape(3, 8, 1)


def test_lengths_are_multiples_of_the_step():
    """A history would be cut to whole patches, though its model takes single steps."""
    assert mean_path(2, CONTEXT, np.array([2, 6, 8])).tolist() == [8, 16, 24]
    assert mean_path(1, CONTEXT, np.array([1, 3, 5])).tolist() == [8, 16, 24]
    assert mean_path(1, CONTEXT[:, :3], np.array([1, 2, 3])).tolist() == [3, 11, 19]


@pytest.mark.parametrize(
    ("step", "lengths", "message"),
    [
        (None, [4, 6, 8], "whole patches of 4 steps, at most the 8 of the context, got 6"),
        (2, [2, 3, 8], "multiples of 2, at most the 8 of the context, got 3"),
        (1, [0, 3, 8], "multiples of 1, at most the 8 of the context, got 0"),
    ],
)
def test_other_lengths_are_refused(step, lengths, message):
    """A step of padding would be taken for a value, on the host and on a device."""
    with pytest.raises(InputError, match=message):
        mean_path(step, CONTEXT, np.array(lengths))
    _, info = decode(
        jax.random.key(0),
        CONTEXT,
        target=FirstValue(step),
        sigma=0.0,
        config=DecodeConfig(horizon=1),
        rule=Mean(),
        lengths=jnp.array(lengths),
    )
    assert info.valid_input.tolist() == [n != int(message.split()[-1]) for n in lengths]


def test_a_forecast_shows_the_whole_history():
    """The first steps of a history would be lost, or it would be filled up to a patch."""
    histories = [np.arange(n, dtype=np.float64) + 10 for n in (1, 3, 7)]
    for step, expected in ((1, [11, 13, 17]), (None, [14, 14, 17])):
        target = FirstValue(step)
        found = forecast(Pair(target), histories, 1, num_samples=0, sigma=1.0).mean
        assert np.ravel(found).tolist() == expected


def test_the_trait():
    """A trait that is no number would fail inside a program."""
    assert context_step(FirstValue()) == P
    assert context_step(FirstValue(2)) == 2
    with pytest.raises(InputError, match=r"context_step of FirstValue must be a whole number"):
        traits_of(FirstValue(0))
