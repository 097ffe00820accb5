"""Decodes with `jax_debug_nans`, which stops at any NaN that a compiled function returns."""

from typing import Any

import jax
import numpy as np
import pytest
from helpers.forecasts import CAUSAL_PAIR, walk
from helpers.toys import BATCH, CONTEXT, DRAFT, SIGMA, TARGET, assert_same

import stride_jax as sj
from stride_jax.decoding.rules import RULES, Several
from stride_jax.decoding.speculative import decode
from stride_jax.decoding.types import DecodeConfig

CONFIG = DecodeConfig(9, 2, trace=True)


def run(context: Any = CONTEXT, **parts: Any) -> Any:
    """A decode of the toys."""
    options = {"target": TARGET, "sigma": SIGMA, "config": CONFIG, **parts}
    return decode(jax.random.key(0), context, **options)


@pytest.mark.parametrize("rule", [*RULES, "several", None])
def test_a_decode_has_no_nan_to_stop_at(rule: str | None) -> None:
    """Whoever looks for a NaN in a program of theirs would be stopped in every decode."""
    chosen = {**RULES, "several": Several}
    parts = {} if rule is None else {"draft": DRAFT, "rule": chosen[rule]()}
    with jax.debug_nans(True):
        found, info = run(**parts)
    expected, usual = run(**parts)
    np.testing.assert_array_equal(found, expected)
    filled = jax.tree.map(lambda x: np.nan_to_num(x) if x.dtype.kind == "f" else x, usual)
    assert_same(info, filled)


def test_a_decode_of_before_is_not_taken_again() -> None:
    """The program that was compiled without the flag would return its NaN."""
    run(BATCH, draft=DRAFT)
    with jax.debug_nans(True):
        run(BATCH, draft=DRAFT)


def test_a_forecast_has_no_nan_to_stop_at() -> None:
    """The same from the front door."""
    history = 10 + walk(60)
    with jax.debug_nans(True):
        found = sj.forecast(CAUSAL_PAIR, history, 9, num_samples=4, quantiles=(0.5,))
    expected = sj.forecast(CAUSAL_PAIR, history, 9, num_samples=4, quantiles=(0.5,))
    np.testing.assert_array_equal(found.paths, expected.paths)
