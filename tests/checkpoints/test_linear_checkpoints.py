"""Linear drafts on disk, and by name in a pair."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.checkpoints import assert_same

from stride_jax.checkpoints.build import load_pair
from stride_jax.checkpoints.checkpoint import Checkpoint, LinearCheckpoint, load
from stride_jax.checkpoints.store import find_any, find_model, load_any, load_model, save_model
from stride_jax.cli.main import main
from stride_jax.decoding.linear_draft import LinearDraft
from stride_jax.errors import InputError
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.linear import LinearConfig
from stride_jax.models.timer_xl import init_params

MODEL = TimerXLConfig(patch_len=4, d_model=16, num_heads=2, d_ff=16, dropout=0.0)
TARGET = Checkpoint(MODEL, init_params(jax.random.key(0), MODEL), 16)
CONFIGS = [
    LinearConfig(4, 12),
    LinearConfig(4, 12, level="mean", num_vars=2),
    LinearConfig(4, 12, num_maps=3),
]


def linear(config: LinearConfig) -> LinearCheckpoint:
    """A draft of random maps."""
    rng = np.random.default_rng(0)
    arrays = {name: 0.1 * rng.normal(size=shape) for name, shape in config.shapes.items()}
    return LinearCheckpoint(config, {n: jnp.asarray(x, jnp.float32) for n, x in arrays.items()})


@pytest.mark.parametrize("suffix", ["", ".safetensors", ".npz"])
@pytest.mark.parametrize("config", CONFIGS, ids=["one", "per variable", "mixture"])
def test_a_linear_draft_comes_back(config: LinearConfig, suffix: str, tmp_path: Path) -> None:
    """A fitted draft could not be used, or would be another one after a restart."""
    path, saved = tmp_path / f"draft{suffix}", linear(config)
    save_model(path, saved)
    restored = find_any(str(path))
    assert isinstance(restored, LinearCheckpoint)
    assert_same(restored, saved)
    pair = load_pair(TARGET, path, num_vars=2)
    assert isinstance(pair.draft, LinearDraft)
    assert pair.draft.context_len == 12
    assert pair.draft.level == config.level
    expected = load_pair(TARGET, saved, num_vars=2).draft
    jax.tree.map(np.testing.assert_array_equal, pair.draft, expected)


def test_half_precision_halves_the_file(tmp_path: Path) -> None:
    """A draft for the package would be stored at twice its size."""
    saved = linear(CONFIGS[2])
    save_model(tmp_path / "half.safetensors", saved, half=True)
    restored = load_any(tmp_path / "half.safetensors")
    np.testing.assert_allclose(restored.params["maps"], saved.params["maps"], atol=1e-3)


def test_a_linear_draft_is_no_target(tmp_path: Path) -> None:
    """A target without caches would fail somewhere inside a decoder."""
    path = tmp_path / "draft.safetensors"
    save_model(path, linear(CONFIGS[0]))
    for read in (load_model, lambda p: find_model(str(p)), load_pair):
        with pytest.raises(InputError, match=r"is a linear draft, no target"):
            read(path)


@pytest.mark.parametrize(
    ("config", "num_vars", "message"),
    [
        (LinearConfig(3, 12), 1, "share a patch length, got 4 and 3"),
        (CONFIGS[1], 1, r"each of 2 variables, 1 are decoded together"),
    ],
)
def test_a_draft_that_does_not_fit(config: Any, num_vars: int, message: str) -> None:
    """The error would be about the shapes of a product."""
    with pytest.raises(InputError, match=message):
        load_pair(TARGET, linear(config), num_vars=num_vars)


def test_damage_is_found(tmp_path: Path) -> None:
    """A draft with wrong numbers would only be slow, and nobody would know why."""
    from safetensors.numpy import load_file, save_file

    saved = linear(CONFIGS[2])
    save_model(tmp_path / "whole.npz", saved)
    with np.load(tmp_path / "whole.npz") as file:
        arrays = dict(file)
    np.savez(tmp_path / "changed.npz", **{**arrays, "maps": arrays["maps"] + 1})
    with pytest.raises(InputError, match="damaged"):
        load_any(tmp_path / "changed.npz")
    meta = json.dumps({"linear": {"patch_len": 4, "context_len": 12, "num_maps": 2}})
    save_file({"maps": arrays["maps"]}, tmp_path / "other.safetensors", {"stride_jax": meta})
    assert load_file(tmp_path / "other.safetensors")
    message = r"missing gate_bias; missing gate_kernel; maps has shape \(3, 12, 4\), expected \(2,"
    with pytest.raises(InputError, match=message):
        load_any(tmp_path / "other.safetensors")


def test_a_directory_of_something_else(tmp_path: Path) -> None:
    """A linear draft would be read with the config of a forecaster, or the reverse."""
    save_model(tmp_path / "target", TARGET)
    assert isinstance(load(tmp_path / "target"), Checkpoint)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"patch_len": 4, "context_len": 3}, "context_len 3 must be at least patch_len 4"),
        ({"patch_len": 4, "context_len": 8, "num_vars": 2, "num_maps": 2}, "no mixture"),
        ({"patch_len": 0, "context_len": 8}, "patch_len"),
    ],
)
def test_bad_sizes_are_refused(fields: Any, message: str) -> None:
    """A draft that cannot be would be found out when it is built."""
    with pytest.raises(InputError, match=message):
        LinearConfig(**fields)


def test_info_and_convert(tmp_path: Path, capsys: Any) -> None:
    """A fitted draft would be a file that no command can read."""
    save_model(tmp_path / "draft", linear(CONFIGS[2]))
    assert main(["convert", str(tmp_path / "draft"), str(tmp_path / "draft.safetensors")]) == 0
    capsys.readouterr()
    assert main(["info", str(tmp_path / "draft.safetensors")]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["model"]["num_maps"] == 3
    assert shown["context_len"] == 12
    assert shown["parameters"] == sum(np.prod(shape) for shape in CONFIGS[2].shapes.values())
