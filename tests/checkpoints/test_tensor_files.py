"""Files of tensors: whose they are, where in a directory they lie, and damaged ones."""

import json
import struct
import sys
import types
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.fracast import tiny_file
from safetensors.numpy import save_file

from stride_jax.checkpoints.checkpoint import Checkpoint, save
from stride_jax.checkpoints.families import FamilyCheckpoint
from stride_jax.checkpoints.pytorch import to_pytorch
from stride_jax.checkpoints.store import load_any, save_model
from stride_jax.errors import InputError
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.timer_xl import init_params

SMALL = TimerXLConfig(patch_len=6, d_model=8, num_heads=2, d_ff=8, num_layers=1)


@pytest.fixture(scope="module")
def timer_xl() -> Checkpoint:
    """A Timer-XL of random parameters."""
    return Checkpoint(SMALL, init_params(jax.random.key(0), SMALL), 12)


def test_a_directory_with_our_own_file_is_read_as_ours(tmp_path, timer_xl):
    """The export of a run would be refused as a file of no known family."""
    save_model(tmp_path / "model.safetensors", timer_xl)
    found = load_any(tmp_path)
    assert (found.model, found.context_len) == (SMALL, 12)
    assert jax.tree.all(jax.tree.map(np.array_equal, found.params, timer_xl.params))


def test_a_run_directory_comes_before_a_file_in_it(tmp_path, timer_xl):
    """A run would be loaded from a file that happens to lie in it."""
    save(tmp_path / "run" / "best" / "3", timer_xl)
    (tmp_path / "run" / "export").mkdir()
    tiny_file(tmp_path / "run" / "export" / "model.safetensors")
    tiny_file(tmp_path / "run" / "model.safetensors")
    for path in ("run", "run/best", "run/best/3"):
        found = load_any(tmp_path / path)
        assert isinstance(found, Checkpoint)
        assert found.context_len == 12


def test_a_file_further_down_is_not_taken(tmp_path):
    """Loading would walk through a whole disk, and take a file that nobody meant."""
    deep = tmp_path / "a" / "b" / "c"
    deep.mkdir(parents=True)
    tiny_file(deep / "model.safetensors")
    with pytest.raises(InputError, match="not a readable checkpoint"):
        load_any(tmp_path)
    assert isinstance(load_any(tmp_path / "a"), FamilyCheckpoint)


def test_a_timer_xl_is_one_in_every_kind_of_file(tmp_path, timer_xl, monkeypatch):
    """A Timer-XL from a training framework, or in shards, would be called unknown."""
    arrays = to_pytorch(SMALL, timer_xl.params)

    class Tensor:
        def __init__(self, array):
            self.array, self.dtype = array, "torch.float32"

        def float(self):
            return self

        detach = float

        def numpy(self):
            return self.array

    stub = types.ModuleType("torch")
    stub.load = lambda path, **options: {name: Tensor(x) for name, x in arrays.items()}
    monkeypatch.setitem(sys.modules, "torch", stub)
    (tmp_path / "model.ckpt").write_bytes(b"x")
    save_file(arrays, tmp_path / "a.safetensors")
    index = {"weight_map": dict.fromkeys(arrays, "a.safetensors")}
    (tmp_path / "x.safetensors.index.json").write_text(json.dumps(index))
    for name in ("model.ckpt", "x.safetensors.index.json"):
        found = load_any(tmp_path / name)
        assert found.model == SMALL
        equal = jax.tree.map(np.array_equal, found.params, timer_xl.params)
        assert jax.tree.all(equal)


@pytest.mark.parametrize(
    ("dtype", "value", "message"),
    [
        (np.int8, 1, "core.block.pw.bias holds int8, expected floating point"),
        (np.float64, 1e300, "core.block.pw.bias holds NaN or infinite values in float32"),
    ],
)
def test_values_that_are_no_weights_are_refused(dtype, value, message, tmp_path):
    """A quantised file would forecast nonsense, and a huge value become infinite unseen."""
    bias = np.full(8, value, dtype)
    path = tiny_file(tmp_path / "odd.safetensors", lambda t: t.update({"core.block.pw.bias": bias}))
    with pytest.raises(InputError, match=message):
        load_any(path)


def safetensors(path: Path, header: str | dict) -> Path:
    """Writes a `.safetensors` file of 4 bytes under a header."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    return path


ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
HEADERS = {
    "offsets": {"x": ENTRY | {"data_offsets": [4]}},
    "deep": "[" * 100_000,
    "metadata": {"__metadata__": None, "x": ENTRY},
    "shape": {"x": ENTRY | {"shape": [10**30]}},
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_damaged_header_is_an_input_error(name, tmp_path):
    """A damaged file would end in a traceback."""
    path = safetensors(tmp_path / "model.safetensors", HEADERS[name])
    with pytest.raises(InputError, match=r"model\.safetensors is damaged"):
        load_any(path)


def test_a_file_without_a_tensor_says_so(tmp_path):
    """The message would speak of tensors that are not there."""
    save_file({}, tmp_path / "empty.safetensors")
    with pytest.raises(InputError, match=r"no known model.*; it holds nothing"):
        load_any(tmp_path / "empty.safetensors")


@pytest.mark.parametrize("shard", [1, ["a"], None, "model.safetensors.index.json"])
def test_an_index_of_something_else_is_an_input_error(shard, tmp_path):
    """A damaged index would end in a traceback, or be read for ever."""
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"x": shard}}))
    with pytest.raises(InputError, match=r"is no index of shards.*is no name of a"):
        load_any(path)


def test_a_damaged_member_of_a_wheel_is_an_input_error(tmp_path):
    """A wheel with a damaged byte would end in a traceback."""
    path = tmp_path / "x.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("model.safetensors", np.random.default_rng(0).bytes(200) * 9)
    content = bytearray(path.read_bytes())
    content[60:90] = b"\xff" * 30
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.whl is damaged"):
        load_any(path)
