"""Fracast-0 against recorded forecasts of the original, and as a process."""

import dataclasses
import importlib.util
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.fracast import CASES, recorded, sizes_not_in_shapes, tensors, worst_errors

from stride_jax.errors import InputError
from stride_jax.models.fracast import FAMILY
from stride_jax.models.fracast.process import make_process
from stride_jax.testing import check_process

TINY = recorded("tiny")


def tiny():
    config, params = FAMILY.read(tensors(TINY))
    return dataclasses.replace(config, **sizes_not_in_shapes(TINY)), params


@pytest.mark.parametrize("case", CASES)
def test_a_small_model_forecasts_what_the_original_forecasts(case):
    """The released weights would run through another function than they were trained in."""
    one_pass, decoded = worst_errors(*tiny(), TINY, case)
    assert one_pass <= 1e-5
    assert decoded <= 1e-5


def released_weights() -> Path:
    """The released file: of the environment variable, or of the installed package."""
    if named := os.environ.get("STRIDE_JAX_FRACAST"):
        return Path(named)
    spec = importlib.util.find_spec("fracast")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(
            "the released weights are not here: set STRIDE_JAX_FRACAST to the wheel fracast 0.1.0 "
            "or to its model.safetensors, or install the package fracast"
        )
    return Path(spec.submodule_search_locations[0]) / "weights" / "model.safetensors"


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_released_model_forecasts_what_the_original_forecasts(case):
    """A forecast with the downloaded file would not be Fracast-0's."""
    from stride_jax.checkpoints.families import read_family

    model = read_family(released_weights())
    one_pass, decoded = worst_errors(model.config, model.params, recorded("real"), case)
    print(f"{case}: one pass {one_pass:.1e}, decode {decoded:.1e}")
    assert one_pass <= 1e-4
    assert decoded <= 1e-4


def test_the_process_keeps_the_contract():
    """A speculative forecast would differ from that of the target alone."""
    context = np.random.default_rng(0).normal(size=(24, 2)).cumsum(axis=0).astype(np.float32)
    config, params = tiny()
    config = dataclasses.replace(config, num_scales=1, future_layers=1, context_len=30)
    check_process(make_process(config, params), jnp.asarray(context), num_draft=2)


def test_a_missing_value_is_masked():
    """A gap would be read as a value, at the bottom of the window."""
    config, params = tiny()
    process = make_process(dataclasses.replace(config, num_scales=1, future_layers=1), params)
    context = np.random.default_rng(1).normal(size=(30, 1)).astype(np.float32)
    gaps = context.copy()
    gaps[4:9] = np.nan
    same = jnp.asarray(gaps)
    padded = jnp.concatenate([jnp.full((10, 1), 50.0), same])
    full, some, masked = (
        np.asarray(process.predict_patch(memory.values).mean)
        for memory in (
            process.prepare(jnp.asarray(context)),
            process.prepare(same),
            process.prepare(padded, jnp.int32(30)),
        )
    )
    assert np.isfinite(some).all()
    assert np.abs(some - full).max() > 1e-3
    np.testing.assert_allclose(masked, some, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("core.norm.weight"), "core.norm.weight is missing"),
        (lambda t: t.update(extra=np.zeros(2, np.float32)), "extra is unknown"),
        (
            lambda t: t.update({"core.block.pw.bias": np.zeros(9, np.float32)}),
            r"core.block.pw.bias has shape \(9,\), expected \(8,\)",
        ),
        (
            lambda t: t.update({"head.queries": np.full((6, 8), np.nan, np.float32)}),
            "head.queries holds NaN",
        ),
        (
            lambda t: t.update({"head.out_proj.weight": np.zeros((5, 8), np.float32)}),
            "5 quantiles",
        ),
    ],
)
def test_a_wrong_tensor_is_named(change, message):
    """A damaged or foreign file would forecast, or fail inside the compiler."""
    arrays = dict(tensors(TINY))
    change(arrays)
    with pytest.raises(InputError, match=message):
        FAMILY.read(arrays)


def test_a_file_is_recognised_by_its_names():
    """A file would be read as another family, or none would claim it."""
    shapes = {name: array.shape for name, array in tensors(TINY).items()}
    assert FAMILY.recognises(shapes) == 1
    assert FAMILY.missing(shapes) == []
    del shapes["core.norm.weight"]
    assert 0.9 < FAMILY.recognises(shapes) < 1
    assert FAMILY.missing(shapes) == ["core.norm.weight"]
    assert FAMILY.recognises({"embedding.weight": (4, 4)}) == 0


@pytest.mark.parametrize("length", [7, 65, 2.5])
def test_a_context_that_the_window_cannot_hold_is_refused(length):
    """Steps would be dropped without a word."""
    with pytest.raises(InputError, match="context_len"):
        make_process(*tiny(), context_len=length)


def test_a_context_of_few_steps_is_refused():
    """Fewer than eight values are no history, in the original too."""
    with pytest.raises(InputError, match="has 7 steps, Fracast-0 needs 8"):
        jax.eval_shape(make_process(*tiny()).prepare, jnp.zeros((7, 1)))
