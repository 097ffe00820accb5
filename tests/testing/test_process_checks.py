"""`check_process` passes our processes and names the fault of each planted wrong one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stride_jax.testing import check_process
from stride_jax.testing.analytic import make_problem, processes

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
