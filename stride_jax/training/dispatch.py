"""Several steps in one dispatch, and the hooks that watch them while the next ones run."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp

from stride_jax.config import require, whole_number
from stride_jax.data.gaps import Gaps
from stride_jax.training.hooks import Hook, Step
from stride_jax.training.step import Metrics, StepFn, TrainState

SECONDS = 0.5
"""The longest that a dispatch should take, from its issue to its end: Ctrl-C waits for it."""
StepsFn = Callable[
    [TrainState, "jax.Array | Gaps", jax.Array, jax.Array, "jax.Array | int"],
    tuple[TrainState, Metrics],
]
"""`(state, values, order, key, count) -> (state, metrics)`, see `make_steps`."""


def make_steps(step: StepFn) -> StepsFn:
    """The jitted `(state, values, order, key, count) -> (state, metrics)`; the state is donated.

    Runs `count` steps, at least one, in one dispatch, and returns the metrics of the last one. The
    count is traced: one compiled program takes any number of steps, so steps divided differently
    over dispatches give the same bits. A scan of static length would be another program for each
    length, which XLA may round differently. No batch is stacked: each step gathers its windows
    from the series on the device, so memory does not grow with the count.

    Args:
        step: See `step.make_step`.
    """
    step = jax.jit(step)  # traced once, for the shapes of the metrics and for the loop

    def steps(
        state: TrainState,
        values: jax.Array | Gaps,
        order: jax.Array,
        key: jax.Array,
        count: jax.Array | int,
    ) -> tuple[TrainState, Metrics]:
        def body(_: jax.Array, carry: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
            return step(carry[0], values, order, key)

        _, shapes = jax.eval_shape(step, state, values, order, key)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        after: tuple[TrainState, Metrics] = jax.lax.fori_loop(0, count, body, (state, zeros))
        return after

    return jax.jit(steps, donate_argnums=0)


def dispatch_end(done: int, stop: int, most: int, hooks: Sequence[Hook]) -> tuple[int, bool]:
    """Where the next dispatch ends, and whether a hook reads the state there.

    Args:
        done: Steps done.
        stop: The last step of the epoch, whose state is always read.
        most: Steps of a dispatch, at most.
        hooks: No dispatch crosses a step that one of them asks for.

    Raises:
        InputError: a hook asks for a step that is done.
    """
    states = [step for hook in hooks if (step := hook.next_state(done)) is not None]
    steps = [step for hook in hooks if (step := hook.next_step(done)) is not None]
    end = min(done + most, stop, *states, *steps)
    require(end > done, f"a hook asks for step {end} when {done} steps are done; give a later one.")
    return end, end == stop or end in states


def next_length(length: int, count: int, seconds: float) -> int:
    """Steps of the next dispatches, at most, after one of `count` steps that took `seconds`.

    The length doubles while a dispatch stays far below `SECONDS`, and is halved above.
    """
    if seconds > SECONDS:
        return max(1, length // 2)
    return 2 * length if count == length and seconds < SECONDS / 4 else length


class Dispatcher:
    """Runs the steps of a run, as many in a dispatch as the hooks and the clock allow."""

    def __init__(self, run: StepsFn, count: int | None = None) -> None:
        """Runs nothing yet.

        Args:
            run: The jitted steps.
            count: Steps of a dispatch, at most; None for as many as stay below `SECONDS`, or where
                several processes share the run, and must divide it equally, any number.

        Raises:
            InputError: `count` is not a whole number from 1 on.
        """
        if count is not None:
            count = whole_number("steps_per_dispatch", count, least=1)
        self.run = run
        self._by_clock = count is None and jax.process_count() == 1
        self._length = count or (1 if self._by_clock else sys.maxsize)

    def epoch(
        self,
        state: TrainState,
        arrays: tuple[jax.Array | Gaps, jax.Array, jax.Array],
        span: tuple[int, int],
        number: int,
        hooks: Sequence[Hook],
    ) -> Iterator[Step]:
        """The last step of each dispatch, in order.

        A step comes when it is finished and the next dispatch is under way, unless its state is to
        be read: then it comes at once, before the next dispatch takes the state over.

        Args:
            state: Before the first step; donated.
            arrays: Series, order of the windows and key of the steps.
            span: Steps done, and the last step of the epoch.
            number: Number of the epoch.
            hooks: Asked where a dispatch has to end; not called otherwise.

        Yields:
            Steps; the last one, which ends the epoch, has its state.
        """
        (done, stop), running = span, None
        while done < stop:
            # the next dispatch
            end, state_read = dispatch_end(done, stop, self._length, hooks)
            began = time.perf_counter()
            state, metrics = self.run(state, *arrays, end - done)
            step = Step(end, number, end == stop, state if state_read else None, metrics)

            # the one before it, which is finished or will be soon
            if running is not None:
                yield self._finished(*running)

            # this one, where its state is read before it is donated
            running = None if state_read else (step, end - done, began)
            if state_read:
                yield step
            done = end

    def _finished(self, step: Step, count: int, began: float) -> Step:
        """The step of a dispatch once it is done; its duration decides about the next ones."""
        jax.block_until_ready(step.metrics)
        if self._by_clock:
            self._length = next_length(self._length, count, time.perf_counter() - began)
        return step
