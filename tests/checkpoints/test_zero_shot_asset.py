"""The target of series never seen, as it lies in the package."""

import functools
import json
from importlib.resources import files

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open

from stride_jax.checkpoints.build import load_pair, make_target
from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.checkpoints.store import find_model
from stride_jax.data import embedded_series
from stride_jax.decoding.rules import Mean
from stride_jax.forecasting.forecast import forecast
from stride_jax.forecasting.results import Forecast
from stride_jax.models.timer_xl import Params, TimerXL

NAME = "zero_shot_target.safetensors"
SEEN, AHEAD = 256, 64


@functools.cache
def model() -> Checkpoint:
    """The stored model."""
    return find_model(NAME)


@functools.cache
def series() -> np.ndarray:
    """`[SEEN + AHEAD, 1]`: hours of the embedded temperature, past its training rows."""
    return embedded_series().values[-SEEN - AHEAD :, 1:2].astype(np.float32)


@functools.cache
def whole_pass():
    """One program of the full pass, `(params, x [L, 1]) -> (mean, logvar)`."""
    return jax.jit(
        lambda params, x: jax.tree.map(
            lambda out: out[0], TimerXL(model().model).apply({"params": params}, x[None])
        )
    )


def test_the_config_lies_beside_the_weights() -> None:
    """Without its anchor the model would add the last value nowhere and forecast another level."""
    path = files("stride_jax") / "assets" / NAME
    with safe_open(str(path), framework="np") as tensors:
        stored = json.loads(tensors.metadata()["stride_jax"])["model"]
        kinds = {tensors.get_tensor(name).dtype for name in tensors.keys() if "only_" not in name}  # noqa: SIM118
    assert kinds == {np.dtype(np.float16)}
    assert stored["anchor"] == model().model.anchor == "last"
    assert stored["instance_norm"] == "causal"
    assert model().context_len == 1024
    assert sum(leaf.size for leaf in jax.tree.leaves(model().params)) < 10_000_000


def test_rounding_to_half_precision_does_not_matter() -> None:
    """Forecasts that hang on the last bit of a weight would be another model's than was scored.

    Each weight moves by up to half of its distance to the next float16, as far as rounding moved
    the trained one.
    """
    rng = np.random.default_rng(0)

    def moved(leaf: jax.Array) -> np.ndarray:
        gap = np.spacing(np.abs(np.asarray(leaf)).astype(np.float16)).astype(np.float32)
        return np.asarray(leaf) + gap * rng.uniform(-0.5, 0.5, leaf.shape).astype(np.float32)

    params: Params = jax.tree.map(moved, model().params)
    x = series()[:SEEN]
    (mean, logvar), (other, other_logvar) = (whole_pass()(p, x) for p in (model().params, params))
    np.testing.assert_allclose(other[16:], mean[16:], rtol=0, atol=1e-2 * x.std())
    np.testing.assert_allclose(other_logvar[16:], logvar[16:], atol=2e-2)


def test_the_cached_process_says_what_the_full_pass_says() -> None:
    """Decoding would follow another distribution than training and validation scored."""
    process = make_target(model(), "cached", SEEN, 1)
    x = jnp.asarray(series())

    @jax.jit
    def ahead(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        memory = process.prepare(x[:SEEN])
        first, _ = process.verify(
            memory, process.start(memory, AHEAD // 16), x[SEEN:].reshape(-1, 16, 1)
        )
        return first.mean.reshape(-1, 1), first.logvar.reshape(-1, 1)

    scale = float(series().std())
    mean, logvar = whole_pass()(model().params, x)
    got_mean, got_logvar = ahead(x)
    np.testing.assert_allclose(got_mean, mean[SEEN - 16 :], atol=1e-4 * scale)
    np.testing.assert_allclose(got_logvar, logvar[SEEN - 16 :], atol=1e-4)


def test_the_draft_is_loaded_where_it_is_asked_for() -> None:
    """A forecast would get slower without a word."""
    assert load_pair().draft is None
    assert load_pair("zero_shot", "zero_shot").draft is not None


@pytest.mark.slow
def test_the_draft_saves_passes_of_the_target() -> None:
    """The draft of another target would lie in the package, no better than the last value."""
    values = embedded_series().values
    ends = range(20_000, len(values), 5_000)
    series = [values[end - 500 : end, column] for end in ends for column in range(values.shape[1])]

    def forecast_with(draft: str) -> Forecast:
        pair, rule = load_pair("zero_shot", draft), Mean(tolerance=0.2)
        return forecast(pair, series, 64, num_samples=0, num_draft=3, rule=rule)

    found, plain = forecast_with("zero_shot"), forecast_with("last-value")
    assert found.info.target_passes.mean() < plain.info.target_passes.mean() < 4
    alone = forecast(load_pair(), series, 64, num_samples=0)
    assert np.abs(found.mean - alone.mean).mean() < 0.2 * found.sigma.mean()
