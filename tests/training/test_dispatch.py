"""Several steps in one dispatch: the same bits, few dispatches, and no read that waits."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.models import params_of
from helpers.toy_runs import VALUES, parameters, settings, steps, toy_run, toy_task
from helpers.training import MODEL, series_of, train_config
from jax._src.array import ArrayImpl

from stride_jax.checkpoints.checkpoint import host_copy
from stride_jax.data.windows import epoch_order
from stride_jax.errors import InputError
from stride_jax.sharding import everywhere, make_mesh
from stride_jax.training import dispatch, loop
from stride_jax.training import step as training
from stride_jax.training.dispatch import SECONDS, make_steps, next_length
from stride_jax.training.hooks import Hook, Log, Step
from stride_jax.training.step import initial_state, make_optimizer, make_step, next_patch_task

LONG = {"batch_size": 1, "steps_per_epoch": 20, "epochs": 2, "log_every": 10}
"""A toy run of 40 steps in two epochs, a log line every ten steps and at the first of an epoch."""


class Onlooker(Hook):
    """Notes the steps it is called for, and whether their state was there; asks for `wanted`.

    Attributes:
        seen: Number of each step, and whether its state can be read.
    """

    def __init__(self, wanted: int | None = None, act: Callable[[int], None] | None = None) -> None:
        self.wanted, self.act = wanted, act
        self.seen: list[tuple[int, bool]] = []

    def next_state(self, done: int) -> int | None:
        """The wanted step, until it is done."""
        return self.wanted if self.wanted is not None and done < self.wanted else None

    def on_step(self, step: Step) -> None:
        """Notes the step."""
        assert step.state is None or int(step.state.step) == step.number
        self.seen.append((step.number, step.state is not None))
        if self.act is not None:
            self.act(step.number)


def log_rows(out: Path) -> list[dict[str, Any]]:
    """Lines of the log without the speed."""
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "steps_per_second"} for row in rows]


def fit_toy(hooks: list[Hook], count: int | None = None, **fields: Any) -> Any:
    """The long toy run in memory."""
    optim, _, _ = settings(Path("unused"), **{**LONG, **fields})
    state = initial_state(parameters(), optim, 20)
    return loop.fit(toy_task(), optim, state, VALUES, seed=3, hooks=hooks, steps_per_dispatch=count)


def same_bits(one: Any, other: Any) -> None:
    """Asserts that two trees hold the same bits."""
    jax.tree.map(np.testing.assert_array_equal, host_copy(one), host_copy(other))


def test_the_model_s_steps_do_not_depend_on_their_division(tmp_path: Path) -> None:
    """Parameters would depend on the speed of the machine, and a resumed run be another one.

    With dropout, on the trained model; all divisions run in one compiled program.
    """
    data, config = series_of(), train_config(tmp_path)
    task = next_patch_task(config, data)
    steps_of = make_steps(make_step(task, make_optimizer(config.optim, 10), config.optim, 10))
    start = host_copy(initial_state(params_of(MODEL), config.optim, 10))
    arrays = (
        jnp.asarray(data.values),
        epoch_order(jax.random.key(1), 0, task.train.count),
        jax.random.key(2),
    )
    ends = []
    for division in ([12], [1] * 12, [4, 4, 4], [7, 5]):
        state = everywhere(start, make_mesh(config.optim.batch_size))
        for count in division:
            state, metrics = steps_of(state, *arrays, count)
        ends.append(host_copy((state, metrics)))
    for end in ends[1:]:
        same_bits(end, ends[0])
    assert int(ends[0][0].step) == 12
    assert steps_of._cache_size() == 1


def test_a_run_does_not_depend_on_the_steps_of_a_dispatch(tmp_path: Path) -> None:
    """A checkpoint or a log line would hold the numbers of another step."""
    ends, rows = [], []
    for count in (1, 4, 7, None):
        out = tmp_path / str(count)
        ends.append(toy_run(out, steps_per_dispatch=count, save_every=13, **LONG))
        rows.append(log_rows(out))
    for end, lines in zip(ends[1:], rows[1:], strict=True):
        same_bits(end.params, ends[0].params)
        assert lines == rows[0]
    assert [row["step"] for row in rows[0]] == [1, 10, 20, 20, 21, 30, 40, 40]


def test_metrics_are_read_at_log_lines_while_the_next_steps_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device would wait for the host at every step: a third of the time on an accelerator.

    Every conversion of a metric on the device to a number counts, from whichever hook it comes.
    """
    events: list[str] = []
    metrics: list[jax.Array] = []
    value = ArrayImpl._value.fget

    def counted(step: Any) -> Any:
        run = make_steps(step)

        def dispatched(*args: Any) -> Any:
            events.append(f"dispatch {args[-1]}")
            after = run(*args)
            metrics.extend(after[1].values())
            return after

        return dispatched

    def read(array: jax.Array) -> np.ndarray:
        if any(array is x for x in metrics):
            events.append("read")
        return value(array)

    monkeypatch.setattr(loop, "make_steps", counted)
    monkeypatch.setattr(ArrayImpl, "_value", property(read))
    fit_toy([Log(tmp_path / "log.jsonl", 10, show=lambda _: None), Onlooker()], count=100)
    row = ["read"] * 3  # loss, norm of the gradient, learning rate
    epoch = ["dispatch 1", "dispatch 9", *row, "dispatch 10", *row, *row]
    assert events == 2 * epoch


def test_a_step_that_is_asked_for_has_its_state() -> None:
    """A checkpoint or a budget would read a state that the next dispatch has taken over."""
    hooks = [Onlooker(wanted=13), Onlooker()]
    fit_toy(list(hooks), count=8)
    seen = [(8, False), (13, True), (20, True), (28, False), (36, False), (40, True)]
    assert [hook.seen for hook in hooks] == [seen, seen]


def test_hooks_that_ask_for_nothing_see_every_step() -> None:
    """A hook written for one step would miss most of them."""

    class Every(Hook):
        """Notes what it is called for."""

        def on_step(self, step: Step) -> None:
            """Reads the state, as a hook may."""
            assert step.state is not None
            numbers.append(int(step.state.step))

    numbers: list[int] = []
    fit_toy([Every()])
    assert numbers == list(range(1, 41))


@pytest.mark.parametrize("count", [0, -1, True, 1.5])
def test_a_number_of_steps_that_is_none_is_refused(count: Any) -> None:
    """0 would mean any number of steps, and 1.5 fail within the compiled loop."""
    with pytest.raises(InputError, match=f"steps_per_dispatch must be.* got {count}"):
        dispatch.Dispatcher(lambda *_: pytest.fail("ran"), count)


def test_a_hook_that_asks_for_a_step_already_done_is_refused() -> None:
    """A dispatch of no steps would be repeated for ever."""
    hook = Onlooker()
    hook.next_state = lambda done: 7
    assert dispatch.dispatch_end(6, 20, 5, [hook]) == (7, True)
    with pytest.raises(InputError, match="asks for step 7 when 7 steps are done"):
        dispatch.dispatch_end(7, 20, 5, [hook])


def test_ctrl_c_within_a_dispatch_loses_nothing(tmp_path: Path) -> None:
    """Ctrl-C would wait for the epoch, save a state of another step, or lose log lines.

    It comes while the steps up to 24 run and those up to 18 are looked at: the step after 24 is
    the last one.
    """
    fields = {**LONG, "steps_per_epoch": 30, "log_every": 6, "steps_per_dispatch": 6}
    whole = toy_run(tmp_path / "whole", **fields)
    ctrl_c = Onlooker(act=lambda number: number == 18 and signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        toy_run(tmp_path / "stopped", hooks=[ctrl_c], **fields)
    assert steps(tmp_path / "stopped", "last") == ["25"]
    assert [row["step"] for row in log_rows(tmp_path / "stopped")] == [1, 6, 12, 18, 24]
    again = toy_run(tmp_path / "stopped", resume=True, **{**fields, "steps_per_dispatch": 4})
    same_bits(again.params, whole.params)
    rows = [log_rows(tmp_path / name) for name in ("whole", "stopped")]
    assert [row for row in rows[1] if row["step"] != 26] == rows[0]  # 26: the first one after it


def test_a_diverged_state_is_not_saved(tmp_path: Path) -> None:
    """A loss that diverges between two log lines would replace the last good checkpoint."""
    with pytest.raises(InputError, match=r"the loss is (inf|nan) at step 8"):
        toy_run(tmp_path, learning_rate=1e38, **{**LONG, "log_every": 100}, save_every=8)
    assert steps(tmp_path, "last") == ["0"]
    assert [row["step"] for row in log_rows(tmp_path)] == [1]


@pytest.mark.parametrize("seconds", [1e-4, 2e-3, 0.1, 1.3])
def test_a_dispatch_takes_half_a_second_at_most(seconds: float) -> None:
    """Ctrl-C would wait for minutes in a large model, or a small one be slowed by its dispatches.

    Each duration is that of a dispatch and of the one before it, in which it waits.
    """
    length, before = 1, 1
    for _ in range(30):
        before, length = length, next_length(length, length, seconds * (length + before))
    longest = max(1, SECONDS / seconds)
    assert longest / 16 <= length <= longest
    assert next_length(8, 1, 0.0) == 8, "a short dispatch says nothing"
    assert next_length(64, 64, 10.0) == 32


def test_several_processes_divide_the_steps_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two clocks would choose two lengths, and the processes wait for each other for ever."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    counts: list[int] = []

    def run(state: Any, *args: Any) -> Any:
        counts.append(args[-1])
        return state, {}

    dispatcher = dispatch.Dispatcher(run)
    monkeypatch.setattr(dispatch, "next_length", lambda *_: pytest.fail("asked the clock"))
    seen = list(dispatcher.epoch(None, (None, None, None), (0, 40), 0, [Onlooker(wanted=15)]))
    assert counts == [15, 25]
    assert [step.number for step in seen] == [15, 40]


def test_every_part_of_a_batch_has_a_key_of_its_own(tmp_path: Path) -> None:
    """Parts of an accumulated batch would share their dropout, and one of the keys be left out."""
    config, data = train_config(tmp_path, accumulate=4), series_of()
    task = training.next_patch_task(config, data)

    def loss(params, windows, key):
        drawn = jax.random.uniform(key)
        return drawn * params["x"], {"drawn": drawn}

    optimizer = training.make_optimizer(config.optim, 10)
    state = training.initial_state({"x": jnp.zeros(())}, config.optim, 10)
    run = jax.jit(training.make_step(task._replace(loss=loss), optimizer, config.optim, 10))
    key, order = jax.random.key(1), jnp.arange(task.train.count)
    _, metrics = run(state, jnp.asarray(data.values), order, key)
    keys = jax.random.split(jax.random.fold_in(key, 0), 4)
    np.testing.assert_allclose(metrics["drawn"], jax.vmap(jax.random.uniform)(keys).mean())
