"""What the decoders and `forecast` are given: refused in words, before anything is allocated."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from helpers.toys import BATCH, CONTEXT, DRAFT, PATCH_LEN, SIGMA, TARGET, assert_same
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.tree_util import Partial

from stride_jax.checkpoints.pair import Pair
from stride_jax.decoding import speculative
from stride_jax.decoding.drafts import as_draft
from stride_jax.decoding.keys import as_key
from stride_jax.decoding.naive_drafts import seasonal_draft
from stride_jax.decoding.processes import window_process
from stride_jax.decoding.rules import RULES, Maximal, Mean
from stride_jax.decoding.speculative import decode
from stride_jax.decoding.types import DecodeConfig
from stride_jax.errors import InputError
from stride_jax.forecasting.forecast import forecast
from stride_jax.forecasting.frames import backtest
from stride_jax.testing import check_draft, check_exact, check_process

CONFIG = DecodeConfig(6, 2)
DECODERS = {
    "speculative": {"target": TARGET, "draft": DRAFT},
    "autoregressive": {"target": TARGET},
    "draft alone": {"target": None, "draft": as_draft(DRAFT)},
}
KEY = jax.random.key(0)


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is compiled fails."""

    def reached(*_: Any, **__: Any) -> None:
        raise AssertionError("the input was not checked before this is compiled")

    for name in ("_speculate", "roll_process", "roll_draft"):
        monkeypatch.setattr(speculative, name, reached)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "an int key": ({"key": 0}, "PRNG key.*got 0"),
    "a numpy int key": ({"key": np.int64(7)}, "PRNG key.*7"),
    "a large int key": ({"key": 2**70}, "PRNG key.*1180591620717411303424"),
    "no key": ({"key": None}, "PRNG key.*None"),
    "a key as text": ({"key": "0"}, "PRNG key.*'0'"),
    "several keys": ({"key": jax.random.split(KEY, 3)}, r"one PRNG key.*\(3,\)"),
    "raw keys of several": ({"key": np.zeros((3, 2), np.uint32)}, r"one PRNG key.*\(3, 2\)"),
    "a complex sigma": ({"sigma": 1j}, "sigma.*real.*1j"),
    "a complex sigma of no imaginary part": ({"sigma": np.complex64(1)}, "sigma.*real"),
    "complex sigmas": ({"sigma": jnp.ones(2) + 0j}, "sigma.*real"),
    "a true sigma": ({"sigma": True}, "sigma.*real.*True"),
    "sigma as text": ({"sigma": "0.5"}, "sigma.*real.*'0.5'"),
    "no sigma": ({"sigma": None}, "sigma.*real.*None"),
    "a ragged sigma": ({"sigma": [[0.5], [0.5, 0.5]]}, "sigma is not an array"),
    "a ragged context": ({"context": [[1.0], [1.0, 2.0]]}, "context is not an array"),
    "a complex context": ({"context": CONTEXT + 0j}, "context.*complex64"),
    "a text for a context": ({"context": "series"}, "context"),
    "too long a horizon": ({"config": DecodeConfig(2_000_000_000)}, "horizon 2000000000"),
    "too many paths": ({"config": DecodeConfig(6, num_paths=2**31 - 1)}, "2147483647 paths"),
    "too many proposals": ({"config": DecodeConfig(6, 2**30)}, "num_draft 1073741824"),
}


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_words(decoder: str, name: str) -> None:
    """A traceback of somebody else's code, or an allocation of gigabytes, would be the answer."""
    changes, said = BAD[name]
    given_ = {"key": KEY, "context": CONTEXT, "sigma": SIGMA, "config": CONFIG, **changes}
    with pytest.raises(InputError, match=said):
        decode(given_.pop("key"), given_.pop("context"), **DECODERS[decoder], **given_)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("rule", RULES)
def test_no_rule_takes_a_sigma_of_0(rule: str) -> None:
    """`mean` counts the gap in sigmas, so it would accept nothing, whatever the tolerance."""
    with pytest.raises(InputError, match=r"sigma must be > 0 where a draft proposes, got 0\.0"):
        decode(
            KEY, CONTEXT, **DECODERS["speculative"], sigma=0.0, config=CONFIG, rule=RULES[rule]()
        )


def test_a_sigma_of_0_on_the_device_is_reported() -> None:
    """It is not read back, and the forecast would look like one that was asked for."""
    options = {**DECODERS["speculative"], "config": CONFIG, "rule": Mean()}
    for sigma, valid in ((0.0, False), (0.1, True)):
        _, info = decode(KEY, CONTEXT, sigma=jnp.float32(sigma), **options)
        assert bool(info.valid_input) is valid


TARGETS = {
    "a number": 3,
    "a path": "target.npz",
    "a function": lambda window: window,
}


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("decoder", ["speculative", "autoregressive"])
def test_a_target_that_is_no_process_is_refused(decoder: str, target: Any) -> None:
    """A function or a file's name would be an AttributeError about patch_len."""
    models = {**DECODERS[decoder], "target": target}
    with pytest.raises(InputError, match="target must be a process"):
        decode(KEY, CONTEXT, **models, sigma=SIGMA, config=CONFIG)


@pytest.mark.parametrize("kind", [int, np.int32, np.int64, np.uint8, jnp.int32, np.array])
def test_whole_numbers_of_any_kind_are_sizes(kind: Any) -> None:
    """Sizes that were counted with numpy would be refused, or compile a program of their own."""
    found = DecodeConfig(
        kind(6), kind(2), num_paths=kind(3), batch_size=kind(2), path_chunk=kind(1)
    )
    expected = DecodeConfig(6, 2, num_paths=3, batch_size=2, path_chunk=1)
    assert (found, hash(found)) == (expected, hash(expected))
    assert type(found.horizon) is int


@pytest.mark.parametrize(
    "value", [1.0, np.float64(2), "3", True, np.True_, None, 2j, [4]], ids=repr
)
def test_other_numbers_are_no_sizes(value: Any) -> None:
    """Half a step, or a flag, would be taken for a number of steps."""
    with pytest.raises(InputError, match=r"horizon must be a whole number from 1 on"):
        DecodeConfig(value)


@settings(deadline=None, max_examples=20)
@given(st.integers(2**31, 2**80))
def test_sizes_that_int32_does_not_count_are_refused(value: int) -> None:
    """A horizon with some zeros too many would end in an allocation or an overflow."""
    for name in ("horizon", "num_draft", "num_paths", "batch_size", "path_chunk"):
        with pytest.raises(InputError, match=f"{name} must be at most 2147483647, got {value}"):
            DecodeConfig(**{"horizon": 6, name: value})
    with pytest.raises(InputError, match=f"horizon must be at most 2147483647, got {value}"):
        forecast(TARGET, CONTEXT, value, num_samples=0)


# --- keys and seeds ------------------------------------------------------------------------------


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_every_seed_is_a_key_of_its_own(seed: int) -> None:
    """Two seeds would be one: JAX takes the lower half of a seed's 64 bits."""
    assert jax.random.key_data(as_key(seed)).tolist() == [0, seed]


@settings(deadline=None, max_examples=20)
@given(st.integers(2**32, 2**80) | st.integers(-(2**80), -1))
def test_seeds_that_would_be_another_one_are_refused(seed: int) -> None:
    """Seed 2**32 would give the paths of seed 0, and 2**70 an OverflowError."""
    with pytest.raises(InputError, match=f"seed.*{seed}"):
        forecast(TARGET, CONTEXT, 6, key=seed, num_samples=0)


@pytest.mark.parametrize("seed", [-1, 2**32, 2**70])
def test_checks_of_your_own_parts_refuse_such_seeds(seed: int) -> None:
    """A check would say that it passed with other draws than those of its seed."""
    checks = (
        lambda: check_exact(Maximal(), seed=seed),
        lambda: check_process(TARGET, CONTEXT, seed=seed),
        lambda: check_draft(DRAFT, CONTEXT, seed=seed),
    )
    for check in checks:
        with pytest.raises(InputError, match=f"seed.*{seed}"):
            check()


def test_keys_of_every_form_are_keys() -> None:
    """A key that jax.random takes would be refused, or one inside a caller's jit."""
    raw = jax.random.key_data(KEY)
    run = jax.jit(lambda k: decode(k, CONTEXT, target=TARGET, sigma=0.5, config=CONFIG))
    expected = run(KEY)
    assert_same(run(raw), expected)
    found = decode(np.asarray(raw), CONTEXT, target=TARGET, sigma=0.5, config=CONFIG)
    assert_same(found, expected)


# --- models that are not finite ------------------------------------------------------------------


def scaled(weight: jax.Array, window: jax.Array) -> jax.Array:
    """The last patch times a weight."""
    return weight * window[-PATCH_LEN:]


def weighted(weight: Any) -> Any:
    """A process of `scaled`."""
    return window_process(Partial(scaled, jnp.asarray(weight)), PATCH_LEN, context_len=6)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("sigma", [None, 1.0])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_weights_that_are_nan_are_refused(sigma: float | None, dtype: Any) -> None:
    """A broken checkpoint would give a forecast of NaN without a word."""
    weight = jnp.ones((PATCH_LEN, 1), dtype).at[1].set(jnp.nan)
    with pytest.raises(InputError, match=r"parameters.*hold NaN"):
        forecast(weighted(weight), CONTEXT, 6, sigma=sigma)


@pytest.mark.parametrize("sigma", [None, 1.0])
@pytest.mark.parametrize("weight", [np.inf, 1e30])  # 1e30 twice is more than float32 holds
def test_a_forecast_that_is_not_finite_is_an_error(sigma: float | None, weight: float) -> None:
    """Numbers that are none would be written into a file as the forecast."""
    history = np.stack([np.full((9, 2), 2.0), np.full((9, 2), 0.0)])
    history[1, :, 1] = 1.0
    history[0, :, 0] = 0.0
    said = r"series 0, variable \d has the (forecast|sigma) (-?inf|nan)"
    with pytest.raises(InputError, match=said):
        forecast(weighted(np.float32(weight)), history, 6, sigma=sigma, num_samples=2, quantiles=())


def test_a_draft_of_nan_is_no_error() -> None:
    """A broken draft harms nothing: its proposals are rejected."""
    draft = weighted(np.float32(np.nan))
    found = forecast(
        Pair(TARGET, draft), BATCH, 6, sigma=1.0, num_samples=2, quantiles=(), variables="joint"
    )
    assert np.isfinite(found.paths).all()


# --- backtests -----------------------------------------------------------------------------------


def test_a_backtest_takes_numpy_integers() -> None:
    """Steps counted with numpy would be refused, though `forecast` takes them."""
    frame = pd.DataFrame({"unique_id": "a", "ds": np.arange(30), "y": np.arange(30) % 5.0})
    options = {"pair": weighted(np.float32(1)), "sigma": 1.0, "num_samples": 0}
    sizes = {"h": 3, "n_windows": 2, "step_size": 3}
    found = backtest(frame, **{n: np.int64(v) for n, v in sizes.items()}, **options)
    pd.testing.assert_frame_equal(found, backtest(frame, **sizes, **options))


@pytest.mark.parametrize("name", ["h", "n_windows", "step_size"])
@pytest.mark.parametrize("value", [0, True, 1.0, "2"], ids=repr)
def test_a_backtest_of_other_sizes_is_refused(name: str, value: Any) -> None:
    """True would be one step, and text a TypeError."""
    frame = pd.DataFrame({"unique_id": "a", "ds": np.arange(30), "y": np.arange(30) % 5.0})
    with pytest.raises(InputError, match=f"{name} must be a whole number from 1 on"):
        backtest(frame, **{"h": 3, name: value}, pair=seasonal_draft(3, 3))
