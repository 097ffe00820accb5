"""Who proposes: what K patches are expected to be, given a path's state.

A draft only predicts. Its proposals are `mean + sigma * noise`, built in one place, `propose`,
because the rules that are exact rely on that and on nothing else of a draft.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast

import jax
import jax.numpy as jnp

from stride_jax.errors import InputError
from stride_jax.processes import Process
from stride_jax.processes.base import check_law, traits_of
from stride_jax.types import PatchLaw


class Proposals(NamedTuple):
    """K proposals and the distributions they were drawn from, each `[K, P, C]`.

    Attributes:
        patches: `mean + sigma * noise`.
        mean: of the draft's distributions.
        sigma: std they were drawn with.
        logvar: the draft's learned log variance, or None.
    """

    patches: jax.Array
    mean: jax.Array
    sigma: jax.Array
    logvar: jax.Array | None


class Draft(Protocol):
    """What a draft supplies; a pytree. Methods work on one series, see `processes.Process`.

    A draft never sees the noise, nor sigma, and does not make its proposals: whatever it predicts,
    an exact rule stays exact. What is not finite is never accepted. A draft that predicts one patch
    at a time is a `StepwiseDraft`.
    """

    @property
    def patch_len(self) -> int:
        """P, steps in a patch."""

    def prepare(self, context: jax.Array, length: jax.Array | None = None) -> Any:
        """Memory of a context `[L, C]`, shared by all its sample paths.

        `length`: see `processes.Process`; a draft may take padding for values, as its proposals
        are verified.
        """

    def start(self, memory: Any, room: int) -> Any:
        """The state of a path before its first patch."""

    def predict_next(
        self, memory: Any, state: Any, shape: tuple[int, int, int]
    ) -> tuple[PatchLaw, Any]:
        """Predicts the next K patches, or the first of them alone.

        Args:
            memory: of the context.
            state: of the path.
            shape: `(K, P, C)`.

        Returns:
            The distributions of all K, `[K, P, C]`, or of the first, `[1, P, C]`, if the others
            depend on the proposals before them; and a state for `step` and `commit`.
        """

    def commit(self, state: Any, patches: jax.Array, count: jax.Array) -> Any:
        """Keeps the first `count` of `patches [K + 1, P, C]`."""


class StepwiseDraft(Draft, Protocol):
    """A draft that predicts each patch given the proposals before it."""

    def step(self, memory: Any, state: Any, patch: jax.Array) -> tuple[PatchLaw, Any]:
        """The distribution `[P, C]` after one more proposal `[P, C]`, without keeping it."""


METHODS = ("patch_len", "prepare", "start", "predict_next", "commit")
"""What a draft must have."""


def prediction_sigma(law: PatchLaw, sigma: jax.Array, learned: bool) -> jax.Array:
    """The std of a law, the shape of its mean: its own if `learned` and it has one, else sigma."""
    if learned and law.logvar is not None:
        return jnp.exp(0.5 * jnp.asarray(law.logvar, jnp.float32))
    return jnp.broadcast_to(sigma, law.mean.shape)


def propose(
    draft: Draft,
    memory: Any,
    state: Any,
    noise: jax.Array,
    sigma: jax.Array,
    count: int | jax.Array,
    *,
    learned: bool,
) -> tuple[Proposals, Any]:
    """Proposes K patches: the one place where proposals are made.

    Args:
        draft: predicts them.
        memory: of the context.
        state: of the path.
        noise: `[K, P, C]`, standard normal (or 0 for mean proposals).
        sigma: `[P, C]`, std of the distributions.
        count: how many of the K are wanted; those that a draft has to predict step by step are 0
            from there on.
        learned: take the draft's own std where it has one, instead of sigma.

    Returns:
        The proposals, and a state that has seen them but kept none; see `Draft.commit`.

    Raises:
        InputError: the draft returned something else than a `PatchLaw` of K patches or of one.
    """
    laws, state = draft.predict_next(memory, state, cast(Any, noise.shape))
    laws = _checked(draft, "predict_next", laws, noise)
    if len(laws.mean) == len(noise):
        return _drawn(laws, noise, sigma, learned), state
    if not callable(getattr(draft, "step", None)):
        raise InputError(
            f"the draft {type(draft).__name__} predicted 1 of {len(noise)} patches and has no "
            "method step to predict the others; see drafts.StepwiseDraft."
        )
    stepwise, first = cast(StepwiseDraft, draft), _drawn(laws, noise[:1], sigma, learned)
    proposals = jax.tree.map(
        lambda x: jnp.zeros((len(noise), *x.shape[1:]), x.dtype).at[0].set(x[0]), first
    )

    def step(i: jax.Array, carry: tuple[Proposals, Any]) -> tuple[Proposals, Any]:
        proposals, ahead = carry
        law, ahead = stepwise.step(memory, ahead, proposals.patches[i - 1])
        law = _checked(draft, "step", law, noise[0])
        drawn = _drawn(law, noise[i], sigma, learned)
        return jax.tree.map(lambda all_, x: all_.at[i].set(x), proposals, drawn), ahead

    return jax.lax.fori_loop(1, count, step, (proposals, state))


def _drawn(law: PatchLaw, noise: jax.Array, sigma: jax.Array, learned: bool) -> Proposals:
    spread = prediction_sigma(law, sigma, learned)
    return Proposals(law.mean + spread * noise, law.mean, spread, law.logvar)


def _checked(draft: Draft, method: str, law: Any, noise: jax.Array) -> PatchLaw:
    """The prediction in float32, of the shape of `noise`, or of its first patch."""
    name = f"{method} of the draft {type(draft).__name__}"
    if not isinstance(law, PatchLaw):
        raise InputError(
            f"{name} must return a PatchLaw of mean and log variance, got {type(law).__name__}; "
            "the proposals are drawn from it by the decoder."
        )
    expected, layout = noise.shape, "[P, C]"
    if noise.ndim == 3:
        layout = "[K, P, C], or [1, P, C],"
        expected = expected if jnp.shape(law.mean) == expected else (1, *expected[1:])
    check_law(law, expected, layout, name)
    logvar = None if law.logvar is None else jnp.asarray(law.logvar, jnp.float32)
    return PatchLaw(jnp.asarray(law.mean, jnp.float32), logvar)


def _filled(context: jax.Array, length: jax.Array) -> jax.Array:
    """`[L, C]` with the first value of its last `length` steps in place of those before them."""
    first = context.shape[0] - length
    return context[jnp.maximum(jnp.arange(context.shape[0]), first)]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AutoregressiveDraft:
    """A small forecaster, patch by patch: each proposal given the ones before.

    Attributes:
        process: of the draft; build this with `as_draft`.
    """

    process: Any

    @property
    def patch_len(self) -> int:
        """P."""
        return int(self.process.patch_len)

    @property
    def context_len(self) -> int | None:
        """Steps that the process sees, or None for all."""
        return traits_of(self.process).context_len

    def prepare(self, context: jax.Array, length: jax.Array | None = None) -> Any:
        """See `Draft`; a process without a mask sees padding as the first value of the history."""
        if length is None or traits_of(self.process).supports_padding:
            return self.process.prepare(context, length)
        return self.process.prepare(_filled(context, length))

    def start(self, memory: Any, room: int) -> Any:
        """See `Draft`."""
        return self.process.start(memory, room)

    def predict_next(
        self, memory: Any, state: Any, shape: tuple[int, int, int]
    ) -> tuple[PatchLaw, Any]:
        """See `Draft`; the first patch alone."""
        laws, state = self.process.verify(memory, state, jnp.zeros((0, *shape[1:]), jnp.float32))
        return laws, state

    def step(self, memory: Any, state: Any, patch: jax.Array) -> tuple[PatchLaw, Any]:
        """See `StepwiseDraft`; one pass."""
        law, state = self.process.step(memory, state, patch)
        return law, state

    def commit(self, state: Any, patches: jax.Array, count: jax.Array) -> Any:
        """See `Draft`."""
        return self.process.commit(state, patches, count)


Continuation = Callable[[jax.Array, int], PatchLaw]
"""`(window [L, C], steps) -> PatchLaw` of the next steps, `[steps, C]`."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ContinuationDraft:
    """All K patches at once from the last L steps. Its state is that window.

    Attributes:
        continuation: a `Continuation`; a pytree, so that parameters inside it are traced.
        patch_len: P.
        context_len: L, or None for the whole context.
    """

    continuation: jax.tree_util.Partial
    patch_len: int = dataclasses.field(metadata={"static": True})
    context_len: int | None = dataclasses.field(default=None, metadata={"static": True})

    def prepare(self, context: jax.Array, length: jax.Array | None = None) -> jax.Array:
        """The last L steps; padding becomes the first value of the history.

        Raises:
            InputError: the context is shorter.
        """
        size = self.context_len or context.shape[0]
        if context.shape[0] < size:
            raise InputError(
                f"the context has {context.shape[0]} steps, this draft needs {size}; give a "
                "longer history."
            )
        context = context if length is None else _filled(context, length)
        return context[context.shape[0] - size :]

    def start(self, memory: jax.Array, room: int) -> jax.Array:
        """See `Draft`."""
        return memory

    def predict_next(
        self, memory: jax.Array, state: jax.Array, shape: tuple[int, int, int]
    ) -> tuple[PatchLaw, jax.Array]:
        """See `Draft`; all K in one call."""
        law = self.continuation(state, shape[0] * self.patch_len)
        mean = jnp.asarray(law.mean, jnp.float32).reshape(shape)  # [K * P, C] -> [K, P, C]
        logvar = None if law.logvar is None else law.logvar.reshape(shape)
        return PatchLaw(mean, logvar), state

    def commit(self, state: jax.Array, patches: jax.Array, count: jax.Array) -> jax.Array:
        """See `Draft`."""
        # [K + 1, P, C] -> [(K + 1) * P, C]
        grown = jnp.concatenate([state, patches.reshape(-1, state.shape[1])])
        start = jnp.asarray(count * self.patch_len, jnp.int32)
        return jax.lax.dynamic_slice_in_dim(grown, start, state.shape[0])


def as_draft(draft: Draft | Process) -> Draft:
    """A draft as it is; a process as one that proposes patch by patch.

    Raises:
        InputError: neither of the two, or a method is missing.
    """
    if hasattr(draft, "predict_next"):
        missing = [name for name in METHODS if not hasattr(draft, name)]
        if missing:
            raise InputError(f"the draft {type(draft).__name__} lacks {', '.join(missing)}.")
        return cast(Draft, draft)
    if not hasattr(draft, "drafting"):
        raise InputError(
            "a draft is a process or has the methods of drafts.Draft, got "
            f"{type(draft).__name__}; it needs {', '.join(METHODS)}."
        )
    return AutoregressiveDraft(draft.drafting())


def _several(predict: Callable[[jax.Array], PatchLaw], window: jax.Array, steps: int) -> PatchLaw:
    law = predict(window)
    if law.mean.shape[0] < steps:
        raise InputError(
            f"this draft forecasts {law.mean.shape[0]} steps at once, a round needs {steps}; "
            "lower num_draft."
        )
    return jax.tree.map(lambda x: x[:steps], law._replace(features=None))


def multi_patch_draft(
    predict: jax.tree_util.Partial, patch_len: int, *, context_len: int | None = None
) -> ContinuationDraft:
    """A non-autoregressive model: one pass proposes up to M patches.

    Args:
        predict: `window [L, C] -> PatchLaw` of the next M patches, `[M * P, C]`.
        patch_len: P.
        context_len: L, or None for the whole context.
    """
    return ContinuationDraft(jax.tree_util.Partial(_several, predict), patch_len, context_len)


def _periodic(window: jax.Array, start: jax.Array | int, steps: int) -> jax.Array:
    """Repeats the stretch from `start` to the end of the window, `[steps, C]`."""
    period = window.shape[0] - start
    return window[start + jnp.arange(steps) % period]


def _spread(error: jax.Array, steps: int) -> jax.Array:
    """Log of each variable's mean square of `[..., C]` errors, `[steps, C]`."""
    square = jnp.mean(jnp.square(error), axis=tuple(range(error.ndim - 1)))
    tiny = jnp.finfo(jnp.float32).tiny
    return jnp.broadcast_to(jnp.log(jnp.maximum(square, tiny))[None], (steps, error.shape[-1]))


@dataclass(frozen=True)
class _Seasonal:
    period: int

    def __call__(self, window: jax.Array, steps: int) -> PatchLaw:
        if window.shape[0] <= self.period:
            raise InputError(
                f"a seasonal draft of period {self.period} needs a longer context than "
                f"{window.shape[0]} steps."
            )
        mean = _periodic(window, window.shape[0] - self.period, steps)
        return PatchLaw(mean, _spread(window[self.period :] - window[: -self.period], steps))


def seasonal_draft(patch_len: int, period: int) -> ContinuationDraft:
    """Seasonal continuation: what stood `period` steps before; no training.

    Its log variance is that of the seasonal differences within the window. Period 1 continues the
    last value.

    Args:
        patch_len: P.
        period: steps in a season, at least 1.

    Raises:
        InputError: a period below 1.
    """
    if period < 1:
        raise InputError(f"period must be at least 1, got {period}.")
    return ContinuationDraft(jax.tree_util.Partial(_Seasonal(period)), patch_len)


@dataclass(frozen=True)
class _LastValue:
    patch_len: int

    def __call__(self, window: jax.Array, steps: int) -> PatchLaw:
        if window.shape[0] <= self.patch_len:
            raise InputError(
                f"the last-value draft needs a context of more than one patch of {self.patch_len} "
                f"steps, got {window.shape[0]}."
            )
        mean = jnp.broadcast_to(window[-1:], (steps, window.shape[1]))
        return PatchLaw(mean, _spread(window[self.patch_len :] - window[: -self.patch_len], steps))


def last_value_draft(patch_len: int) -> ContinuationDraft:
    """The last value goes on; its log variance is that of the differences over P steps."""
    return ContinuationDraft(jax.tree_util.Partial(_LastValue(patch_len)), patch_len)


@dataclass(frozen=True)
class _Nearest:
    patch_len: int

    def __call__(self, window: jax.Array, steps: int) -> PatchLaw:
        size, length = self.patch_len, window.shape[0]
        if length < 2 * size:
            raise InputError(
                f"the nearest-neighbour draft needs a context of two patches, {2 * size} steps, "
                f"got {length}."
            )
        level = window[-size:].mean(axis=0, keepdims=True)  # [1, C]
        ends = jnp.arange(size, length - size + 1)  # a match ends where its continuation starts
        stretches = window[ends[:, None] - size + jnp.arange(size)[None, :]]  # [J, P, C]
        levels = stretches.mean(axis=1, keepdims=True)
        error = (stretches - levels) - (window[-size:] - level)[None]
        best = jnp.argmin(jnp.sum(jnp.square(error), axis=(1, 2)))
        mean = _periodic(window, ends[best], steps) + level - levels[best]
        return PatchLaw(mean, _spread(error[best], steps))


def nearest_draft(patch_len: int) -> ContinuationDraft:
    """What followed the stretch of the context most like its last patch; no training.

    Stretches are compared over all variables with their level taken off, and the continuation is
    moved to the level of the last patch. Its log variance is that of the mismatch.
    """
    return ContinuationDraft(jax.tree_util.Partial(_Nearest(patch_len)), patch_len)
