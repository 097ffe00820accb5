"""Numbers of the host: refused where a decode, which takes 32 bits of them, cannot use them."""

import re
from typing import Any

import jax
import numpy as np
import pytest
from helpers.forecasts import CAUSAL_PAIR
from helpers.toys import CONTEXT, DRAFT, PATCH_LEN, TARGET, one_loop

from stride_jax.checkpoints.pair import Pair
from stride_jax.decoding.corrected_draft import corrected_draft
from stride_jax.decoding.draft_length import Fallback, Gain, Threshold
from stride_jax.decoding.linear_draft import linear_draft
from stride_jax.decoding.naive_drafts import seasonal_draft
from stride_jax.decoding.rules import AsReleased, Judge, Mean, Resample, SharedNoise
from stride_jax.decoding.rules.judge import FEATURES
from stride_jax.decoding.scale import PatchCovariance
from stride_jax.decoding.types import DecodeConfig
from stride_jax.errors import InputError
from stride_jax.forecasting.forecast import forecast

CONFIG = DecodeConfig(6, 2)
KEY = jax.random.key(0)
MODELS = {
    "speculative": {"target": TARGET, "draft": DRAFT},
    "autoregressive": {"target": TARGET},
}
TINY, HUGE = (float(getattr(np.finfo(np.float32), name)) for name in ("tiny", "max"))
STDS = [0.0, 1e-50, 1e-45, 1e-40, 0.9 * TINY, TINY, 1e-30, 0.6, 1e30, HUGE, 1e39, 1e308]


def scaled(std: float, cast: Any) -> PatchCovariance:
    """A covariance whose stds are the product of two numbers of float32."""
    half = np.clip(np.sqrt(std), 1e-18, 1e18)
    return PatchCovariance(cast(np.eye(PATCH_LEN) * half), cast(np.float64(std) / half))


def as_device(x: Any) -> jax.Array:
    """An array of the device, whose values no check on the host reads."""
    with np.errstate(all="ignore"):
        return jax.device_put(np.asarray(x, np.float32))


FORMS: dict[str, Any] = {
    "a number": lambda std, cast: cast(std),
    "one of several": lambda std, cast: cast(np.array([0.6, std])),
    "a covariance": scaled,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("std", STDS)
@pytest.mark.parametrize("decoder", MODELS)
def test_the_host_refuses_the_stds_that_the_program_calls_invalid(decoder, std, form) -> None:
    """A forecast of a sigma that is 0 or infinite would come back without a word."""
    models, make = MODELS[decoder], FORMS[form]
    sigma = make(std, as_device)
    _, info = one_loop(KEY, CONTEXT, **models, sigma=sigma, config=CONFIG)
    given = make(std, np.asarray)
    if bool(info.valid_input):
        one_loop(KEY, CONTEXT, **models, sigma=given, config=CONFIG)
        return
    with pytest.raises(InputError, match=r"sigma.* must be"):
        one_loop(KEY, CONTEXT, **models, sigma=given, config=CONFIG)


WEIGHTS = np.zeros(len(FEATURES))
SETTINGS: dict[str, Any] = {
    "bias": lambda x: {"rule": Resample(bias=x)},
    "mse_tolerance": lambda x: {"rule": Resample(mse_tolerance=x)},
    "adaptive_sigma": lambda x: {"rule": AsReleased(adaptive_sigma=x)},
    "tolerance": lambda x: {"rule": Mean(tolerance=x)},
    "temperature": lambda x: {"rule": Mean(temperature=x)},
    "tolerance ": lambda x: {"rule": SharedNoise(tolerance=x)},
    "bias ": lambda x: {"rule": Judge(WEIGHTS, bias=x)},
    "weights": lambda x: {"rule": Judge(WEIGHTS + x)},
    "threshold": lambda x: {"draft_length": Fallback(threshold=x)},
    "lower": lambda x: {"draft_length": Threshold(lower=x)},
    "upper": lambda x: {"draft_length": Threshold(upper=x)},
    "draft_cost": lambda x: {"draft_length": Gain(draft_cost=x)},
    "decay": lambda x: {"draft_length": Gain(decay=x)},
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("value", [1e39, np.float64(1e300), 2**31, np.int64(2**40 + 3)], ids=repr)
def test_settings_that_32_bits_do_not_hold_are_refused(name: str, value: Any) -> None:
    """A tolerance of 1e39 would be infinite, one of 2**40 + 3 would be 3."""
    if name == "weights" and value < 1e39:
        return  # taken as float32, which holds them
    rest = SETTINGS[name](value)
    with pytest.raises(InputError, match=rf"{name.strip()}.*must be"):
        one_loop(KEY, CONTEXT, **MODELS["speculative"], sigma=0.6, config=CONFIG, **rest)


def test_drafts_that_float32_does_not_hold_are_refused() -> None:
    """A draft would propose nothing but NaN, after a warning of numpy."""
    with pytest.raises(InputError, match="maps must give finite float32 numbers"):
        linear_draft(1e39 * np.eye(6, 3), level="mean", num_draft=2)
    responses = np.zeros((2, 3, 2, 3))
    responses[1, 0, 0, 0] = 1e39
    with pytest.raises(InputError, match="responses"):
        corrected_draft(seasonal_draft(3, 2), responses)


@pytest.mark.parametrize("samples", [0, 10])
@pytest.mark.parametrize("sigma", [1e-50, 1e39])
@pytest.mark.parametrize("pair", [Pair(TARGET, DRAFT), Pair(TARGET)], ids=["pair", "target"])
def test_a_given_sigma_that_float32_does_not_hold_is_refused(pair, sigma, samples) -> None:
    """`forecast` would return paths without any noise, or with nothing but noise."""
    histories = [CONTEXT, 2 * CONTEXT]
    with pytest.raises(
        InputError, match=rf"sigma {re.escape(str(sigma))} is .* the scale of series 0.*float32"
    ):
        forecast(pair, histories, 3, sigma=sigma, num_samples=samples, variables="joint")


def test_a_given_sigma_counts_in_the_units_of_the_history() -> None:
    """A history of tiny values would have no sigma."""
    history = np.arange(40.0) % 7
    plain = forecast(CAUSAL_PAIR, history, 3, sigma=0.5)
    small = forecast(CAUSAL_PAIR, 1e-40 * history, 3, sigma=0.5e-40)
    np.testing.assert_allclose(small.mean, 1e-40 * plain.mean, rtol=1e-4)
