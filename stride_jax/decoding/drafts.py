"""Drafts predict the next patches; `propose` draws K proposals from their predictions.

A draft only predicts. Its proposals are `mean + sigma * noise`, built in one place, `propose`,
because the rules that are exact rely on that and on nothing else of a draft.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp

from stride_jax.decoding.base import Draft, Process, Proposals, RespondingDraft, StepwiseDraft
from stride_jax.decoding.steps import Stop, looped, written_out
from stride_jax.decoding.traits import check_predictions, check_pytree, for_paths, traits_of
from stride_jax.errors import InputError
from stride_jax.types import PatchDistribution

METHODS = ("patch_len", "prepare", "start", "predict_next", "commit")
"""Attributes and methods that every draft must have."""


def prediction_sigma(prediction: PatchDistribution, sigma: jax.Array, learned: bool) -> jax.Array:
    """The std of a prediction, in the shape of its mean: learned where it has one, else sigma."""
    if learned and prediction.logvar is not None:
        return jnp.exp(0.5 * jnp.asarray(prediction.logvar, jnp.float32))
    return jnp.broadcast_to(sigma, prediction.mean.shape)


def propose(
    draft: Draft,
    memory: Any,
    state: Any,
    noise: jax.Array,
    sigma: jax.Array,
    count: int | jax.Array | None,
    *,
    learned: bool,
    stop: Stop | None = None,
) -> tuple[Proposals, Any]:
    """Proposes K patches: the one place where proposals are made.

    Args:
        draft: predicts them.
        memory: of the context.
        state: of the path.
        noise: `[K, P, C]`, of variance 1 (or 0 for mean proposals); see `scale.correlated`.
        sigma: `[P, C]`, std of the distributions.
        count: how many of the K are wanted; those that a draft has to predict step by step are 0
            from there on. None for all K, whose steps are written out, see `steps.written_out`.
        learned: take the draft's own std where it has one, instead of sigma.
        stop: says of each proposal so far, `[K]` bool, whether it is the last one that a draft
            predicts step by step; None for never.

    Returns:
        The proposals, and a state that has seen them but kept none; see `Draft.commit`.

    Raises:
        InputError: the draft returned something else than a `PatchDistribution` of K patches or
            of one.
    """
    predictions, state = draft.predict_next(memory, state, cast(Any, noise.shape))
    predictions = _checked(draft, "predict_next", predictions, noise)
    if len(predictions.mean) == len(noise):
        predictions = _with_response(draft, memory, state, predictions, noise, sigma, learned)
        return _drawn(predictions, noise, sigma, learned), state
    if not callable(getattr(draft, "step", None)):
        raise InputError(
            f"the draft {type(draft).__name__} predicted 1 of {len(noise)} patches and has no "
            "method step to predict the others; see drafts.StepwiseDraft."
        )
    stepwise, first = cast(StepwiseDraft, draft), _drawn(predictions, noise[:1], sigma, learned)

    def following(place: Any, patch: jax.Array, ahead: Any) -> tuple[Proposals, Any]:
        prediction, ahead = stepwise.step(memory, ahead, patch)
        prediction = _checked(draft, "step", prediction, noise[0])
        return _drawn(prediction, noise[place], sigma, learned), ahead

    if count is None:
        return written_out(following, first, state, len(noise))
    return looped(following, first, state, len(noise), count, stop)


def _with_response(
    draft: Draft,
    memory: Any,
    state: Any,
    predictions: PatchDistribution,
    noise: jax.Array,
    sigma: jax.Array,
    learned: bool,
) -> PatchDistribution:
    """The predictions of K patches, moved by the errors before each of them; see `respond`."""
    if not callable(getattr(draft, "respond", None)):
        return predictions
    errors = prediction_sigma(predictions, sigma, learned) * noise
    moved = cast(RespondingDraft, draft).respond(memory, state, errors)
    name = f"respond of the draft {type(draft).__name__}"
    check_predictions(PatchDistribution(moved), noise.shape, "[K, P, C]", name)
    return predictions._replace(mean=predictions.mean + jnp.asarray(moved, jnp.float32))


def _drawn(
    prediction: PatchDistribution, noise: jax.Array, sigma: jax.Array, learned: bool
) -> Proposals:
    spread = prediction_sigma(prediction, sigma, learned)
    return Proposals(prediction.mean + spread * noise, prediction.mean, spread, prediction.logvar)


def _checked(draft: Draft, method: str, prediction: Any, noise: jax.Array) -> PatchDistribution:
    """The prediction in float32, of the shape of `noise`, or of its first patch."""
    name = f"{method} of the draft {type(draft).__name__}"
    if not isinstance(prediction, PatchDistribution):
        raise InputError(
            f"{name} must return a PatchDistribution of mean and log variance, got "
            f"{type(prediction).__name__}; the proposals are drawn from it by the decoder."
        )
    expected, layout = noise.shape, "[P, C]"
    if noise.ndim == 3:
        layout = "[K, P, C], or [1, P, C],"
        expected = expected if jnp.shape(prediction.mean) == expected else (1, *expected[1:])
    check_predictions(prediction, expected, layout, name)
    logvar = None if prediction.logvar is None else jnp.asarray(prediction.logvar, jnp.float32)
    return PatchDistribution(jnp.asarray(prediction.mean, jnp.float32), logvar)


def filled(context: jax.Array, length: jax.Array) -> jax.Array:
    """`[L, C]` with the first value of its last `length` steps in place of those before them."""
    first = context.shape[0] - length
    return context[jnp.maximum(jnp.arange(context.shape[0]), first)]


def moved_window(window: jax.Array, patches: jax.Array, count: jax.Array) -> jax.Array:
    """`[L, C]` with the first `count` of `patches [K + 1, P, C]` at its end."""
    # [K + 1, P, C] -> [(K + 1) * P, C]
    grown = jnp.concatenate([window, patches.reshape(-1, window.shape[1])])
    start = jnp.asarray(count * patches.shape[1], jnp.int32)
    return jax.lax.dynamic_slice_in_dim(grown, start, window.shape[0])


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

    def for_paths(self, paths: int) -> AutoregressiveDraft:
        """See `traits.for_paths`."""
        return dataclasses.replace(self, process=for_paths(self.process, paths))

    def prepare(self, context: jax.Array, length: jax.Array | None = None) -> Any:
        """See `Draft`; a process without a mask sees padding as the first value of the history."""
        if length is None or traits_of(self.process).supports_padding:
            return self.process.prepare(context, length)
        return self.process.prepare(filled(context, length))

    def start(self, memory: Any, room: int) -> Any:
        """See `Draft`."""
        return self.process.start(memory, room)

    def predict_next(
        self, memory: Any, state: Any, shape: tuple[int, int, int]
    ) -> tuple[PatchDistribution, Any]:
        """See `Draft`; the first patch alone."""
        predictions, state = self.process.verify(
            memory, state, jnp.zeros((0, *shape[1:]), jnp.float32)
        )
        return predictions, state

    def step(self, memory: Any, state: Any, patch: jax.Array) -> tuple[PatchDistribution, Any]:
        """See `StepwiseDraft`; one pass."""
        prediction, state = self.process.step(memory, state, patch)
        return prediction, state

    def commit(self, state: Any, patches: jax.Array, count: jax.Array) -> Any:
        """See `Draft`."""
        return self.process.commit(state, patches, count)


Continuation = Callable[[jax.Array, int], PatchDistribution]
"""`(window [L, C], steps) -> PatchDistribution` of the next steps, `[steps, C]`."""


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
        context = context if length is None else filled(context, length)
        return context[context.shape[0] - size :]

    def start(self, memory: jax.Array, room: int) -> jax.Array:
        """See `Draft`."""
        return memory

    def predict_next(
        self, memory: jax.Array, state: jax.Array, shape: tuple[int, int, int]
    ) -> tuple[PatchDistribution, jax.Array]:
        """See `Draft`; all K in one call."""
        prediction = self.continuation(state, shape[0] * self.patch_len)
        mean = jnp.asarray(prediction.mean, jnp.float32).reshape(shape)  # [K * P, C] -> [K, P, C]
        logvar = None if prediction.logvar is None else prediction.logvar.reshape(shape)
        return PatchDistribution(mean, logvar), state

    def commit(self, state: jax.Array, patches: jax.Array, count: jax.Array) -> jax.Array:
        """See `Draft`."""
        return moved_window(state, patches, count)


def as_draft(draft: Draft | Process) -> Draft:
    """A draft as it is; a process as one that proposes patch by patch.

    Raises:
        InputError: neither of the two, a method is missing, or no pytree.
    """
    if hasattr(draft, "predict_next") or hasattr(draft, "drafting"):
        check_pytree("draft", draft)
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


def _several(
    predict: Callable[[jax.Array], PatchDistribution], window: jax.Array, steps: int
) -> PatchDistribution:
    prediction = predict(window)
    if prediction.mean.shape[0] < steps:
        raise InputError(
            f"this draft forecasts {prediction.mean.shape[0]} steps at once, a round needs "
            f"{steps}; lower num_draft."
        )
    return jax.tree.map(lambda x: x[:steps], prediction._replace(features=None))


def multi_patch_draft(
    predict: jax.tree_util.Partial, patch_len: int, *, context_len: int | None = None
) -> ContinuationDraft:
    """A non-autoregressive model: one pass proposes up to M patches.

    Args:
        predict: `window [L, C] -> PatchDistribution` of the next M patches, `[M * P, C]`.
        patch_len: P.
        context_len: L, or None for the whole context.
    """
    return ContinuationDraft(jax.tree_util.Partial(_several, predict), patch_len, context_len)
