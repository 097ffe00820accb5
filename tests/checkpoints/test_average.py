"""The average of two forecasters."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers.training import MODEL

from stride_jax.checkpoints.average import average
from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.errors import InputError
from stride_jax.models.timer_xl import init_params

FIRST = Checkpoint(MODEL, init_params(jax.random.key(5), MODEL), 32)


def test_an_average_has_the_share_of_the_second_model() -> None:
    """The share that was chosen would be that of the other model."""
    second = FIRST._replace(params=jax.tree.map(lambda leaf: leaf + 4.0, FIRST.params))
    found = average(FIRST, second, 0.25)
    assert (found.model, found.context_len) == (MODEL, 32)
    for new, old in zip(jax.tree.leaves(found.params), jax.tree.leaves(FIRST.params), strict=True):
        np.testing.assert_allclose(new, old + 1.0, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("other", "share", "words"),
    [
        (FIRST, 1.5, "got 1.5"),
        (FIRST, float("nan"), "got nan"),
        (FIRST._replace(context_len=40), 0.5, "of context 40"),
        (FIRST._replace(model=dataclasses.replace(MODEL, anchor="last")), 0.5, "anchor='last'"),
    ],
)
def test_what_cannot_be_averaged_is_refused(other: Checkpoint, share: float, words: str) -> None:
    """Parameters that mean different things would be added."""
    with pytest.raises(InputError, match=words):
        average(FIRST, other, share)
