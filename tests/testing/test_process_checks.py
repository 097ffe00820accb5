"""`check_process` passes our processes and names the fault of each planted wrong one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stride_jax.testing import check_process
from stride_jax.testing.analytic import make_problem, processes
from stride_jax.types import PatchDistribution

PROBLEM = make_problem(num_vars=2)
CONTEXT = jnp.asarray(
    np.random.default_rng(0).normal(size=(4 * PROBLEM.patch_len, 2)).astype(np.float32)
)


@pytest.mark.parametrize("kind", ["window", "cached"])
def test_our_processes_keep_their_contract(kind: str) -> None:
    """The decoder would be exact for another model than the one that forecasts alone."""
    check_process(processes(PROBLEM, kind)[0], CONTEXT)


CACHED = type(processes(PROBLEM, "cached")[0])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class IgnoresTheCount(CACHED):
    """Keeps every proposal, accepted or not."""

    def commit(self, state, patches, count):
        every = max(len(patches) - 1, 1)
        return super().commit(state, patches, jnp.full_like(count, every))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LooksAhead(CACHED):
    """Each prediction knows the last proposal."""

    def verify(self, memory, state, proposals):
        predictions, state = super().verify(memory, state, proposals)
        peek = proposals.sum() if len(proposals) > 1 else 0.0
        return predictions._replace(mean=predictions.mean + 0.01 * peek), state


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LeaksPadding(CACHED):
    """Takes the padding for history."""

    def prepare(self, context, length=None):
        return super().prepare(context + 0.1 * context[:1], length)


def wrong(kind: type) -> object:
    """One of the classes above, with the analytic model in it."""
    process = processes(PROBLEM, "cached")[0]
    fields = {f.name: getattr(process, f.name) for f in dataclasses.fields(process)}
    return kind(**fields)


@pytest.mark.parametrize(
    ("kind", "claim"),
    [
        (IgnoresTheCount, "continues as if they came one by one"),
        (LooksAhead, "verifying K proposals at once|later proposals"),
        (LeaksPadding, "padding"),
    ],
)
def test_a_wrong_process_fails_with_its_claim(kind: type, claim: str) -> None:
    """A check that lets these through proves nothing about a process of a user."""
    with pytest.raises(AssertionError, match=claim):
        check_process(wrong(kind), CONTEXT)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Recurrent:
    """h' = .5 h + patch, and a prediction of .8 h; right where a state is made of what is kept."""

    patch_len = 3
    right: bool = dataclasses.field(metadata={"static": True})

    def prepare(self, context, length=None):
        return context[-3:]

    def start(self, memory, room):
        return memory, memory[None]

    def verify(self, memory, state, proposals):
        states = [state[0]]
        for patch in proposals:
            states.append(0.5 * states[-1] + patch)
        after = jnp.stack(states)
        return PatchDistribution(0.8 * after), (state[0], after)

    def step(self, memory, state, patch):
        predictions, (_, after) = self.verify(memory, (state[1][-1], None), patch[None])
        grown = jnp.concatenate([state[1], after[1:]])
        return jax.tree.map(lambda x: x[-1], predictions), (state[0], grown)

    def commit(self, state, patches, count):
        first, after = state
        after = jnp.concatenate([after, 0.5 * after[-1:] + patches[len(after) - 1 :][:1]])
        if not self.right:  # the state after proposals, whatever was put in the last one's place
            return after[count], after[count][None]
        before = after[jnp.maximum(count - 1, 0)]
        last = 0.5 * before + patches[jnp.maximum(count - 1, 0)]
        new = jnp.where(count == 0, first, last)
        return new, new[None]

    def drafting(self):
        return self


def test_a_process_that_keeps_the_rejected_proposal_fails() -> None:
    """Every forecast after a rejection would be of a history that it does not have."""
    check_process(Recurrent(right=True), CONTEXT)
    with pytest.raises(AssertionError, match="continues as if they came one by one"):
        check_process(Recurrent(right=False), CONTEXT)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CountsPadding(CACHED):
    """Moves with the share of the context that is padding, whatever stands in it."""

    def prepare(self, context, length=None):
        share = 0.0 if length is None else 1.0 - length / len(context)
        memory = super().prepare(context, length)
        return memory._replace(center=memory.center + share)


def test_padding_is_checked_of_a_process_that_sees_some_steps() -> None:
    """The check would be left out for those that refuse a shorter context."""
    seeing = {"context_len": len(CONTEXT)}
    check_process(dataclasses.replace(processes(PROBLEM, "cached")[0], **seeing), CONTEXT)
    with pytest.raises(AssertionError, match="padding changes nothing"):
        check_process(dataclasses.replace(wrong(CountsPadding), **seeing), CONTEXT)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mixes(CACHED):
    """Reports log weights, one of which is minus infinity."""

    def verify(self, memory, state, proposals):
        predictions, state = super().verify(memory, state, proposals)
        weights = jnp.stack([0 * predictions.mean, jnp.full_like(predictions.mean, -jnp.inf)], -1)
        return predictions._replace(reported=weights), state


def test_infinite_values_of_one_sign_are_the_same() -> None:
    """A mixture that gives a component no weight would be called wrong: inf - inf is NaN."""
    check_process(wrong(Mixes), CONTEXT)


def test_wide_numbers_are_no_fault_of_the_process() -> None:
    """With `jax_enable_x64` the proposals would be of 64 bits, and the means with them."""
    with jax.enable_x64(True):
        check_process(processes(PROBLEM, "cached")[0], np.asarray(CONTEXT, np.float64))
