"""Decodes of a caller who lets JAX mix no dtypes: `jax_numpy_dtype_promotion` is strict."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
from helpers.forecasts import CAUSAL, pair_of, walk
from helpers.toys import BATCH, DRAFT, PATCH_LEN, SIGMA, TARGET, one_loop

from stride_jax.decoding.draft_length import DRAFT_LENGTHS
from stride_jax.decoding.rules import RULES, Block, Judge, Several, WithoutBonus
from stride_jax.decoding.rules.judge import FEATURES
from stride_jax.decoding.scale import PatchCovariance
from stride_jax.decoding.types import DecodeConfig
from stride_jax.forecasting.forecast import forecast

CONFIG = DecodeConfig(9, 2, num_paths=2, trace=True)
KEY = jax.random.key(0)
MODELS: dict[str, Any] = {"target": TARGET, "draft": DRAFT}
EVERY_RULE = [
    *(rule() for rule in RULES.values()),
    RULES["as_released"](adaptive_sigma=0.5),
    RULES["mean"](temperature=0.1),
    Judge(np.zeros(len(FEATURES))),
    Several(Block(), chains=2),
    WithoutBonus(Block()),
]


@pytest.fixture(autouse=True)
def strict() -> Iterator[None]:
    """No dtype is promoted for the tests of this file."""
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.mark.parametrize("rule", EVERY_RULE, ids=repr)
def test_every_rule_decodes(rule: Any) -> None:
    """A caller who is strict about dtypes could not use the rule."""
    paths, _ = one_loop(KEY, BATCH, **MODELS, sigma=SIGMA, rule=rule, config=CONFIG)
    assert np.isfinite(paths).all()


@pytest.mark.parametrize("name", DRAFT_LENGTHS)
def test_every_draft_length_decodes(name: str) -> None:
    """A caller who is strict about dtypes could not adapt the draft length."""
    length = DRAFT_LENGTHS[name]()
    paths, _ = one_loop(KEY, BATCH, **MODELS, sigma=SIGMA, draft_length=length, config=CONFIG)
    assert np.isfinite(paths).all()


@pytest.mark.parametrize("alone", ["target", "draft"])
def test_one_model_decodes(alone: str) -> None:
    """A caller who is strict about dtypes would have no baseline."""
    sigma = PatchCovariance(np.eye(PATCH_LEN), SIGMA)
    models = {"target": None, alone: MODELS[alone]}
    paths, _ = one_loop(KEY, BATCH, **models, sigma=sigma, config=CONFIG)
    assert np.isfinite(paths).all()


@pytest.mark.parametrize("samples", [0, 10])
def test_trained_models_forecast(samples: int) -> None:
    """A caller who is strict about dtypes could not forecast at all."""
    found = forecast(pair_of(CAUSAL, CAUSAL), walk(40, 2), 9, num_samples=samples)
    assert np.isfinite(found.mean).all()
