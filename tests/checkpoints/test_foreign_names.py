"""State dicts whose names other tools wrapped, and models that the original cannot express."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from golden import load_case
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.checkpoints.pytorch import load_pytorch, to_pytorch
from stride_jax.checkpoints.store import load_model, save_model
from stride_jax.errors import InputError
from stride_jax.models import init_params
from stride_jax.models.config import TimerXLConfig

ARRAYS = dict(load_case("draft_stochastic").arrays)
WRAPS = ("_orig_mod", "module")
SMALL = TimerXLConfig(patch_len=4, d_model=8, num_heads=2, d_ff=8)

EXPRESSED: dict[str, dict[str, Any]] = {
    "activation": {"activation": "gelu"},
    "head": {"head": "gaussian"},
    "instance_norm": {"instance_norm": None},
    "covariate": {"covariate": True},
    "covariate_mask": {"covariate_mask": "causal"},  # of no covariate: no mask at all
    "dropout": {"dropout": 0.3},
    "dtype": {"dtype": "bfloat16"},
    "remat": {"remat": True},
    "precision": {"precision": "highest"},
    **{name: {name: size} for name, size in {"patch_len": 8, "d_model": 16, "d_ff": 16}.items()},
    **{name: {name: 1} for name in ("num_heads", "num_layers")},
}
"""Fields that the original has, or whose values change no function."""
UNEXPRESSED: dict[str, dict[str, Any]] = {
    "instance_norm=causal": {"instance_norm": "causal"},
    "covariate_mask=causal": {"covariate": True, "covariate_mask": "causal"},
    "variable_stride=0": {"variable_stride": 0},
    "variable_stride=7": {"variable_stride": 7},
    "max_patches=3": {"max_patches": 3},
    "output_patches=2": {"output_patches": 2},
    "anchor=last": {"anchor": "last"},
}


def model_of(fields: dict[str, Any]) -> Checkpoint:
    """New parameters of the small model with some fields changed."""
    config = dataclasses.replace(SMALL, **fields)
    return Checkpoint(config, init_params(jax.random.key(0), config), 8)


def same(a: Any, b: Any) -> bool:
    """Whether two trees agree bit for bit."""
    return jax.tree.all(jax.tree.map(lambda x, y: bool(np.array_equal(x, y)), a, b))


def wrapped(name: str, wraps: list[tuple[int, str]]) -> str:
    """The name with parts put in before its part number `i`, the last one never moved."""
    parts = name.split(".")
    for place, wrap in wraps:
        parts.insert(min(place, len(parts) - 1), wrap)
    return ".".join(parts)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(wraps=st.lists(st.tuples(st.integers(0, 3), st.sampled_from(WRAPS)), max_size=4))
def test_wraps_are_dropped_in_any_order_and_depth(wraps: list[tuple[int, str]]) -> None:
    """Weights of a compiled or parallel model, or of one with compiled parts, could not be read."""
    config, params = load_pytorch({wrapped(name, wraps): v for name, v in ARRAYS.items()})
    expected, expected_params = load_pytorch(ARRAYS)
    assert config == expected
    assert same(params, expected_params)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_a_wrap_around_some_of_the_names(prefix: str) -> None:
    """A model whose blocks alone were compiled could not be read."""
    arrays = {prefix + k if k.startswith("blocks") else k: v for k, v in ARRAYS.items()}
    assert same(load_pytorch(arrays)[1], load_pytorch(ARRAYS)[1])


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module."])
def test_two_arrays_of_one_name_are_refused(prefix: str) -> None:
    """One of two different weights would be taken, by the order in the file."""
    arrays = {**ARRAYS, f"{prefix}head_mean.bias": ARRAYS["head_mean.bias"] + 1}
    with pytest.raises(InputError, match=rf"head_mean\.bias.*{prefix}head_mean\.bias"):
        load_pytorch(arrays)


@pytest.mark.parametrize("name", ["model.head_mean.bias", "modules.head_mean.bias", "_orig.x"])
def test_other_parts_of_names_are_not_dropped(name: str) -> None:
    """An array of another model would be taken for one of ours."""
    with pytest.raises(InputError, match=f"unexpected {name}"):
        load_pytorch({**ARRAYS, name: np.zeros(3, np.float32)})


def strict_load(arrays: dict[str, np.ndarray], config: TimerXLConfig) -> list[str]:
    """The keys that a strict load of the original's module of these sizes would call unexpected."""
    plain = TimerXLConfig(**{n: getattr(config, n) for n in ("patch_len", "d_model", "num_heads")})
    plain = dataclasses.replace(
        plain, d_ff=config.d_ff, num_layers=config.num_layers, head=config.head
    )
    return sorted(set(arrays) - set(to_pytorch(plain, init_params(jax.random.key(0), plain))))


@pytest.mark.parametrize("field", UNEXPRESSED)
def test_what_the_original_cannot_express_is_said(tmp_path: Path, field: str) -> None:
    """The original would load the weights without complaint and compute another function."""
    checkpoint = model_of(UNEXPRESSED[field])
    with pytest.raises(InputError, match=field):
        to_pytorch(*checkpoint[:2])
    for suffix in (".safetensors", ".npz"):
        path = tmp_path / f"model{suffix}"
        save_model(path, checkpoint)
        found = load_model(path)
        assert found.model == checkpoint.model
        assert same(found.params, checkpoint.params)
    arrays = load_file(tmp_path / "model.safetensors")
    assert strict_load(arrays, checkpoint.model) == [f"only_stride_jax.{field}"]
    with pytest.raises(InputError, match=f"unexpected only_stride_jax.{field}"):
        load_pytorch(arrays)


def test_every_such_field_is_named() -> None:
    """The reader would mend one field and meet the next."""
    fields = {k: v for name in UNEXPRESSED for k, v in UNEXPRESSED[name].items()}
    with pytest.raises(InputError) as caught:
        to_pytorch(*model_of(fields)[:2])
    assert all(name in str(caught.value) for name in UNEXPRESSED if name != "variable_stride=0")


@pytest.mark.parametrize("field", EXPRESSED)
def test_what_the_original_can_express_is_written(tmp_path: Path, field: str) -> None:
    """A model of the original could not be taken back to it."""
    checkpoint = model_of(EXPRESSED[field])
    save_model(tmp_path / "model.safetensors", checkpoint)
    arrays = load_file(tmp_path / "model.safetensors")
    assert strict_load(arrays, checkpoint.model) == []
    assert same(arrays, to_pytorch(*checkpoint[:2]))


def test_every_field_is_one_or_the_other() -> None:
    """A new field would be written for the original without a thought."""
    unexpressed = {name for fields in UNEXPRESSED.values() for name in fields}
    names = {field.name for field in dataclasses.fields(TimerXLConfig)}
    assert names == unexpressed | set(EXPRESSED)
