"""The steps of a draft written out one by one, for the few launches that a GPU wants."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers.toys import CONFIG, DRAFT, assert_same, fading, speculate

from stride_jax.decoding.draft_length import Fixed, Threshold
from stride_jax.decoding.drafts import as_draft
from stride_jax.decoding.steps import MOST_ARRAYS, unrolls
from stride_jax.decoding.types import DecodeConfig
from stride_jax.errors import InputError


def test_paths_and_counts_are_those_of_the_loop(key):
    """A GPU would decode other paths than a CPU, or count other proposals.

    The last rounds draft fewer than K patches in the loop, and all K where they are written out.
    """
    models = {"target": fading(), "draft": fading(0.3)}
    looped, written = (
        speculate(key, config=dataclasses.replace(CONFIG, num_draft=4, unrolled=unrolled), **models)
        for unrolled in (False, True)
    )
    assert_same(written[0], looped[0])
    for name in ("origin", "accepted", "proposed", "drafted", "rounds"):
        np.testing.assert_array_equal(getattr(written[1], name), getattr(looped[1], name), name)
    assert looped[1].rounds > 1
    assert 0 < looped[1].accepted.sum() < looped[1].drafted


def test_no_loop_is_left_in_a_round(key):
    """Every step would launch counters and wait for the host to read a condition."""

    def loops(unrolled: bool) -> int:
        config = dataclasses.replace(CONFIG, unrolled=unrolled)
        text = jax.jit(lambda k: speculate(k, config=config)[0]).lower(key).as_text()
        return text.count("stablehlo.while")

    assert loops(True) == loops(False) - 1


def test_only_small_drafts_of_a_fixed_length_are_written_out_and_only_on_a_gpu(monkeypatch):
    """A deep draft would compile for minutes, and a short round would draft all K."""
    config, draft = DecodeConfig(9, 3), as_draft(DRAFT)
    assert not unrolls(config, draft, Fixed())
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert unrolls(config, draft, Fixed())
    assert not unrolls(config, draft, Threshold())
    assert not unrolls(config, [np.zeros(1)] * (MOST_ARRAYS // 3 + 1), Fixed())
    assert not unrolls(dataclasses.replace(config, unrolled=False), draft, Fixed())


def test_a_choice_that_is_none_is_refused():
    """A typing mistake would be taken for yes."""
    with pytest.raises(InputError, match=r"unrolled.*'gpu'"):
        DecodeConfig(9, unrolled="gpu")
