"""The window process: every prediction sees the last L steps, whatever the model.

It is the original's process, and any forecaster plugs in as a black box.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from stride_jax.decoding.traits import check_predictions
from stride_jax.errors import InputError
from stride_jax.types import PatchDistribution

Predict = Callable[[jax.Array], PatchDistribution | jax.Array]
"""`window [L, C] -> PatchDistribution` of the next patch `[P, C]`; an array is its mean."""


class WindowState(NamedTuple):
    """Two windows `[L, C]`.

    Attributes:
        window: the last L steps.
        ahead: the same after the proposals of this round.
    """

    window: jax.Array
    ahead: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class WindowProcess:
    """A forecaster that is asked anew for every patch, with the last L steps.

    Build it with `window_process`; see `processes.Process` for the methods.

    Attributes:
        predict: the forecaster; a pytree, so that parameters inside it are traced.
        patch_len: P.
        context_len: L, or None for the whole context.
        normalises: see `traits.Traits`.
        reports: see `traits.Traits`.
        predicts_density: see `traits.Traits`.
    """

    predict: jax.tree_util.Partial
    patch_len: int = dataclasses.field(metadata={"static": True})
    context_len: int | None = dataclasses.field(metadata={"static": True})
    normalises: bool = dataclasses.field(default=False, metadata={"static": True})
    reports: tuple[float | str, ...] = dataclasses.field(default=(), metadata={"static": True})
    predicts_density: bool = dataclasses.field(default=False, metadata={"static": True})

    @property
    def supports_padding(self) -> bool:
        """See `traits.Traits`: a black box knows no padding."""
        return False

    def prepare(self, context: jax.Array, length: jax.Array | None = None) -> jax.Array:
        """`[L', C]` -> the window, its last L steps.

        Raises:
            InputError: the context is shorter than L, or padded.
        """
        if length is not None:
            raise InputError(
                "the window process asks a forecaster that knows no padding; decode contexts of "
                "different lengths in calls of their own, or use the cached process."
            )
        if self.context_len is None:
            return context
        if context.shape[0] < self.context_len:
            raise InputError(
                f"the context has {context.shape[0]} steps, this forecaster needs "
                f"{self.context_len}; give a longer history."
            )
        return context[context.shape[0] - self.context_len :]

    def start(self, memory: jax.Array, room: int) -> WindowState:
        """The window of the context."""
        return WindowState(memory, memory)

    def predict_patch(self, window: jax.Array) -> PatchDistribution:
        """The prediction of the patch after a window `[L, C]`, `[P, C]`, its mean in float32.

        Raises:
            InputError: `predict` returned another shape.
        """
        out = self.predict(window)
        prediction = out if isinstance(out, PatchDistribution) else PatchDistribution(out)
        prediction = prediction._replace(
            mean=jnp.asarray(prediction.mean, jnp.float32)
        )  # noise has its precision
        expected = (self.patch_len, window.shape[1])
        check_predictions(
            prediction, expected, "[patch_len, C]", f"predict of a window of shape {window.shape}"
        )
        return prediction

    def verify(
        self, memory: jax.Array, state: WindowState, proposals: jax.Array
    ) -> tuple[PatchDistribution, WindowState]:
        """K + 1 windows in one vmap; see `Process`."""
        window = state.window
        length, num_vars = window.shape
        count, step, _ = proposals.shape
        # [K, P, C] -> [K * P, C], behind the window
        grown = jnp.concatenate([window, proposals.reshape(count * step, num_vars)])
        ahead = state._replace(ahead=grown[count * step :])
        if count == 0:
            return jax.tree.map(lambda x: x[None], self.predict_patch(window)), ahead
        windows = jnp.stack([grown[i * step : i * step + length] for i in range(count + 1)])
        return jax.vmap(self.predict_patch)(windows), ahead

    def step(
        self, memory: jax.Array, state: WindowState, patch: jax.Array
    ) -> tuple[PatchDistribution, WindowState]:
        """See `Process`."""
        ahead = jnp.concatenate([state.ahead, patch])[self.patch_len :]
        return self.predict_patch(ahead), state._replace(ahead=ahead)

    def commit(self, state: WindowState, patches: jax.Array, count: jax.Array) -> WindowState:
        """See `Process`."""
        window = state.window
        grown = jnp.concatenate([window, patches.reshape(-1, window.shape[1])])
        start = (count * self.patch_len).astype(jnp.int32)
        window = jax.lax.dynamic_slice(grown, (start, jnp.zeros((), jnp.int32)), window.shape)
        return WindowState(window, window)

    def drafting(self) -> WindowProcess:
        """Itself: a window holds all there is to know."""
        return self


def window_process(
    predict: Predict,
    patch_len: int,
    *,
    context_len: int | None = None,
    normalises: bool = False,
    reports: tuple[float | str, ...] = (),
    predicts_density: bool = False,
) -> WindowProcess:
    """A process from any forecaster.

    Args:
        predict: `window [L, C] -> PatchDistribution` (or just its mean) of the next patch,
            `[P, C]`; pure and jittable. A `jax.tree_util.Partial` keeps its arguments traced, and
            equal Partials share one compilation; a new lambda compiles anew.
        patch_len: P, steps in a patch.
        context_len: steps the forecaster sees; None for the whole context. It is compiled for each
            length it is shown: give it where histories differ in length.
        normalises: it standardises its input itself, so that `forecast` may give it the history in
            any units; else it sees the history as it is.
        reports: what its predictions report, `[P, C, Q]`: levels of quantiles, or words.
        predicts_density: its predictions have a density, from which sample paths are drawn.

    Raises:
        InputError: a size below 1, or `predict` is not callable.
    """
    if not callable(predict):
        raise InputError(f"predict must be a function of a window, got {type(predict).__name__}.")
    if patch_len < 1 or (context_len is not None and context_len < 1):
        raise InputError(
            f"patch_len and context_len must be at least 1, got {patch_len} and {context_len}."
        )
    if not isinstance(predict, jax.tree_util.Partial):
        predict = jax.tree_util.Partial(predict)
    return WindowProcess(
        predict, patch_len, context_len, normalises, tuple(reports), predicts_density
    )
