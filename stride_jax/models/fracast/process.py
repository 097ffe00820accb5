"""The released decode of Fracast-0 as a window process: the last W steps, those missing masked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from stride_jax.config import whole_number
from stride_jax.errors import InputError
from stride_jax.models.fracast.config import FracastConfig
from stride_jax.models.fracast.module import quantiles
from stride_jax.types import PatchDistribution

LEAST = 8
"""Steps of a context at least, as in the original."""


class Window(NamedTuple):
    """The last W steps of a path.

    Attributes:
        values: `[W, C]`, NaN where nothing was observed.
        padding: int32, so many of the next steps are padding too; see `Traits.starts_empty`.
    """

    values: jax.Array
    padding: jax.Array


class FracastState(NamedTuple):
    """The window of a path, and the same after the proposals of this round."""

    window: Window
    ahead: Window


def each_window(
    predict: Callable[[jax.Array], PatchDistribution], windows: jax.Array
) -> PatchDistribution:
    """The predictions of windows `[n, W, C]`, `[n, P, C]`.

    They are computed at once, but one after the other on a CPU: its caches hold the states of one
    window, and not of several (four windows then take half the time, and a quarter of the memory).
    """
    if len(windows) == 1:
        return jax.tree.map(lambda x: x[None], predict(windows[0]))
    if jax.default_backend() == "cpu":
        one_by_one: PatchDistribution = jax.lax.map(predict, windows)
        return one_by_one
    return jax.vmap(predict)(windows)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FracastProcess:
    """Fracast-0 asked anew for every patch; see `decoding.base.Process`.

    The median of a patch is fed back, as released, and its nine quantiles are reported. Each
    variable is forecast by itself. A context shorter than the window leaves the front of it masked,
    and the window grows with the forecast; NaN in a context is masked too.

    Attributes:
        params: of the model, traced.
        config: sizes.
        context_len: steps of the context it sees, at most the window.
    """

    params: Any
    config: FracastConfig = dataclasses.field(metadata={"static": True})
    context_len: int = dataclasses.field(metadata={"static": True})

    @property
    def patch_len(self) -> int:
        """P."""
        return self.config.patch_len

    @property
    def supports_padding(self) -> bool:
        """Whether padding is masked, see `Traits`: it is."""
        return True

    @property
    def normalises(self) -> bool:
        """Whether the process normalises, see `Traits`: a window is scaled to its range."""
        return True

    @property
    def starts_empty(self) -> bool:
        """Whether no history is needed, see `Traits`: a window without a value is one of zeros."""
        return True

    @property
    def reports(self) -> tuple[float | str, ...]:
        """Levels of the quantiles that are reported, see `Traits`."""
        return self.config.levels

    @property
    def masks_steps(self) -> bool:
        """Whether padding is masked step by step, see `Traits`."""
        return True

    def prepare(self, context: jax.Array, length: jax.Array | None = None) -> Window:
        """`[L, C]` -> the window, NaN where the context has no value.

        Raises:
            InputError: a context of fewer than 8 steps.
        """
        steps = context.shape[0]
        if length is None and steps < LEAST:
            raise InputError(f"the context has {steps} steps, Fracast-0 needs {LEAST} at least.")
        context, padding = jnp.asarray(context, jnp.float32), jnp.zeros((), jnp.int32)
        if length is not None:
            padding = jnp.maximum(-jnp.asarray(length, jnp.int32), 0)
            real = jnp.arange(steps) >= steps - length
            context = jnp.where(real[:, None], context, jnp.nan)
        context = context[max(0, steps - self.context_len) :]
        front = self.config.context_len - len(context)
        values = jnp.pad(context, ((front, 0), (0, 0)), constant_values=jnp.nan)
        return Window(values, padding)

    def start(self, memory: Window, room: int) -> FracastState:
        """The window of the context."""
        return FracastState(memory, memory)

    def predict_patch(self, window: jax.Array) -> PatchDistribution:
        """The median of the patch after a window `[W, C]`, `[P, C]`, and its quantiles."""

        def one(values: jax.Array) -> jax.Array:
            return quantiles(self.config, self.params, values, ~jnp.isnan(values))

        reported = jax.vmap(one, in_axes=1, out_axes=1)(window)  # [W, C] -> [P, C, Q]
        return PatchDistribution(reported[..., self.config.median], reported=reported)

    def _grown(self, window: Window, patches: jax.Array) -> jax.Array:
        """The values of a window with `[n, P, C]` more behind it; those of padding are NaN."""
        # [n, P, C] -> [n * P, C]
        steps = patches.reshape(-1, patches.shape[-1])
        real = jnp.arange(len(steps)) >= window.padding
        return jnp.concatenate([window.values, jnp.where(real[:, None], steps, jnp.nan)])

    def verify(
        self, memory: Window, state: FracastState, proposals: jax.Array
    ) -> tuple[PatchDistribution, FracastState]:
        """K + 1 windows; see `Process` and `each_window`."""
        count, size, length = len(proposals), self.patch_len, len(state.window.values)
        grown = self._grown(state.window, proposals)
        windows = jnp.stack([grown[i * size : i * size + length] for i in range(count + 1)])
        predictions = each_window(self.predict_patch, windows)
        left = jnp.maximum(state.window.padding - count * size, 0)
        return predictions, state._replace(ahead=Window(grown[count * size :], left))

    def step(
        self, memory: Window, state: FracastState, patch: jax.Array
    ) -> tuple[PatchDistribution, FracastState]:
        """Feeds one patch and predicts the next, see `Process`."""
        values = self._grown(state.ahead, patch[None])[self.patch_len :]
        ahead = Window(values, jnp.maximum(state.ahead.padding - self.patch_len, 0))
        return self.predict_patch(values), state._replace(ahead=ahead)

    def commit(self, state: FracastState, patches: jax.Array, count: jax.Array) -> FracastState:
        """Keeps the first `count` patches, see `Process`."""
        steps = jnp.asarray(count * self.patch_len, jnp.int32)
        grown = self._grown(state.window, patches)
        values = jax.lax.dynamic_slice_in_dim(grown, steps, len(state.window.values))
        window = Window(values, jnp.maximum(state.window.padding - steps, 0))
        return FracastState(window, window)

    def drafting(self) -> FracastProcess:
        """Itself: a window holds all there is to know."""
        return self


def make_process(
    config: FracastConfig, params: Any, context_len: int | None = None
) -> FracastProcess:
    """The process of a model.

    Args:
        config: sizes.
        params: the parameters.
        context_len: last steps of a history that it sees; None for as many as its window has.

    Raises:
        InputError: fewer than 8 steps, or more than the window has.
    """
    if context_len is None:
        return FracastProcess(params, config, config.context_len)
    length = whole_number("context_len", context_len, least=LEAST)
    if length > config.context_len:
        raise InputError(
            f"context_len {length} is more than the {config.context_len} steps of Fracast-0's "
            "window; give fewer."
        )
    return FracastProcess(params, config, length)
