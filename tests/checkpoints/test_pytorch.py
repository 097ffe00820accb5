"""PyTorch state dicts in and out: nothing lost, nothing guessed, every misfit named."""

import collections
import dataclasses
import io
import json
import pickle
import sys
import types
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from golden import CASES, GOLDEN, load_case
from helpers.unusual import UNUSUAL
from safetensors import safe_open
from safetensors.numpy import save_file

from stride_jax.checkpoints import checkpoint as checkpoints
from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.checkpoints.pytorch import arrays_by_name, inexpressible, load_pytorch, to_pytorch
from stride_jax.checkpoints.store import find_model, load_model, save_model
from stride_jax.cli.main import main
from stride_jax.config import to_dict
from stride_jax.errors import InputError
from stride_jax.models import init_params
from stride_jax.models.config import TimerXLConfig

BLOCK = "blocks.attn_layers.0"


def same_trees(a, b) -> bool:
    """Equal structure, and leaves equal bit for bit."""
    if jax.tree.structure(a) != jax.tree.structure(b):
        return False
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(
        x.dtype == y.dtype
        and x.shape == y.shape
        and np.asarray(x).tobytes() == np.asarray(y).tobytes()
        for x, y in pairs
    )


def unusual() -> Checkpoint:
    """A checkpoint with nothing at its default."""
    shapes = jax.eval_shape(lambda key: init_params(key, UNUSUAL), jax.random.key(0))
    rng = np.random.default_rng(0)
    draw = lambda leaf: rng.normal(size=leaf.shape).astype(np.float32)  # noqa: E731
    return Checkpoint(UNUSUAL, jax.tree.map(draw, shapes), 72)


def arrays_of(case: str) -> dict[str, np.ndarray]:
    """The state dict of a golden case, safe to change."""
    return dict(load_case(case).arrays)


def write(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """A file of arrays without any metadata of ours."""
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, path)
    return path


class Tensor:
    """What the code under test may do with a tensor."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def float(self):
        return Tensor(self.array.astype(np.float32))

    def numpy(self) -> np.ndarray:
        return self.array


class SafeReader(pickle.Unpickler):
    """Reads the pickle inside a `.pth` and allows what a state dict of float tensors needs."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{root}/data.pkl")))
        self.archive, self.root = archive, root

    def find_class(self, module, name):
        allowed = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): self.rebuild,
            ("torch", "FloatStorage"): np.float32,
        }
        return allowed[module, name]

    def persistent_load(self, saved):
        _, dtype, number, _, size = saved
        values = np.frombuffer(self.archive.read(f"{self.root}/data/{number}"), dtype)
        assert values.size == size
        return values

    @staticmethod
    def rebuild(storage, offset, shape, stride, *_):
        strides = tuple(4 * s for s in stride)
        return Tensor(np.lib.stride_tricks.as_strided(storage[offset:], shape, strides).copy())


@pytest.fixture
def torch_calls(monkeypatch) -> list[dict]:
    """A stand-in for PyTorch, which the tests do not install; it keeps the arguments of `load`."""
    calls = []

    def load(path, **options):
        calls.append(options)
        with zipfile.ZipFile(path) as archive:
            root = archive.namelist()[0].split("/")[0]
            return SafeReader(archive, root).load()

    stub = types.ModuleType("torch")
    stub.load = load
    monkeypatch.setitem(sys.modules, "torch", stub)
    return calls


@pytest.mark.parametrize("case", CASES)
def test_round_trip_is_bit_for_bit(case):
    """Weights would change on their way through the package."""
    arrays, _, settings = load_case(case)
    config, params = load_pytorch(arrays, **settings)
    back = to_pytorch(config, params)
    assert set(back) == set(arrays)
    for name, value in arrays.items():
        assert back[name].dtype == np.float32
        assert back[name].shape == value.shape
        assert back[name].tobytes() == value.tobytes(), name
    for name, value in settings.items():
        assert getattr(config, name) == value
    shapes = jax.eval_shape(lambda key: init_params(key, config), jax.random.key(0))
    assert jax.tree.structure(shapes) == jax.tree.structure(params)
    assert all(
        a.shape == b.shape
        for a, b in zip(jax.tree.leaves(shapes), jax.tree.leaves(params), strict=True)
    )


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_files_give_what_their_arrays_give(suffix, tmp_path):
    """Weights converted elsewhere could not be read."""
    arrays, _, settings = load_case("target_gelu_nonorm")
    config, params = load_pytorch(write(tmp_path / f"model{suffix}", arrays), **settings)
    expected, expected_params = load_pytorch(arrays, **settings)
    assert config == expected
    assert same_trees(params, expected_params)
    # load_model reads the same file with the defaults of load_pytorch
    found = load_model(tmp_path / f"model{suffix}")
    assert found.context_len is None
    assert found.model == dataclasses.replace(expected, activation="relu", instance_norm="window")
    assert same_trees(found.params, expected_params)


@pytest.mark.parametrize("case", ["target_multivariate", "draft_stochastic"])
def test_pth_files_of_the_original(case, torch_calls):
    """The original's own files could not be read, or would be unpickled unsafely."""
    config, params = load_pytorch(GOLDEN / f"{case}.pth")
    expected, expected_params = load_pytorch(load_case(case).arrays)
    assert config == expected
    assert same_trees(params, expected_params)
    assert len(torch_calls) == 1
    assert torch_calls[0]["weights_only"] is True
    assert torch_calls[0]["map_location"] == "cpu"
    assert same_trees(load_model(str(GOLDEN / f"{case}.pth")).params, expected_params)


def test_pth_without_torch_names_the_extra(monkeypatch):
    """The user would see an ImportError and not what to install."""
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match=r"stride-jax\[torch\]"):
        load_pytorch(GOLDEN / "target_multivariate.pth")


def test_a_damaged_pth_is_an_input_error(tmp_path, torch_calls):
    """A half-downloaded file would end in a traceback."""
    path = tmp_path / "cut.pth"
    path.write_bytes((GOLDEN / "target_multivariate.pth").read_bytes()[:5000])
    with pytest.raises(InputError, match=r"cut\.pth"):
        load_pytorch(path)
    assert len(torch_calls) == 1


@pytest.mark.parametrize(
    "content",
    [{"epoch": 3, "model": {}}, [1, 2], {"model": {"embedding.weight": Tensor(np.zeros(3))}}],
)
def test_a_pth_that_is_no_state_dict_is_an_input_error(content, tmp_path, monkeypatch):
    """A whole training checkpoint of PyTorch would end in a traceback."""
    stub = types.ModuleType("torch")
    stub.load = lambda path, **options: content
    monkeypatch.setitem(sys.modules, "torch", stub)
    (tmp_path / "run.pth").write_bytes(b"")
    with pytest.raises(InputError, match=r"run\.pth|state dict"):
        load_pytorch(tmp_path / "run.pth")


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_save_and_load_keep_everything(suffix, tmp_path):
    """A shared file would be decoded with another activation, mask, norm or context."""
    checkpoint = unusual()
    path = tmp_path / f"model{suffix}"
    save_model(path, checkpoint)
    found = load_model(path)
    assert found.model == UNUSUAL
    assert found.context_len == 72
    assert same_trees(found.params, checkpoint.params)
    assert same_trees(find_model(str(path)).params, checkpoint.params)
    # beside the metadata the file holds the original's names, and what it cannot express
    expected = set(arrays_by_name(UNUSUAL, checkpoint.params))
    expected |= {f"only_stride_jax.{field}" for field in inexpressible(UNUSUAL)}
    if suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            names = set(file.files) - {"stride_jax"}
    else:
        with safe_open(path, framework="np") as file:
            names = set(file.keys())
    assert names == expected


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_bit_turned_over_is_seen(suffix, tmp_path):
    """A damaged file would forecast, with another weight."""
    path = tmp_path / f"model{suffix}"
    save_model(path, unusual())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 64
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        load_model(path)


def test_every_field_of_the_unusual_config_is_unusual():
    """A new field would pass the round trips above by being at its default."""
    default = TimerXLConfig()
    assert all(
        getattr(UNUSUAL, f.name) != getattr(default, f.name)
        for f in dataclasses.fields(TimerXLConfig)
    )


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_nothing_is_overwritten(suffix, tmp_path):
    """A trained model would be lost."""
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"precious")
    with pytest.raises(InputError, match="exists"):
        save_model(path, unusual())
    assert path.read_bytes() == b"precious"


def test_a_path_without_a_suffix_is_a_directory(tmp_path):
    """A model could be kept as a file only, or half precision be silently forgotten."""
    checkpoint = Checkpoint(*unusual()[:2], 72)
    with pytest.raises(InputError, match="float16"):
        save_model(tmp_path / "run", checkpoint, half=True)
    save_model(tmp_path / "run", checkpoint)
    found = load_model(tmp_path / "run")
    assert found.model == checkpoint.model
    assert same_trees(found.params, checkpoint.params)


@pytest.mark.parametrize("name", ["model.pth", "model.pt"])
def test_other_suffixes_are_not_written(name, tmp_path):
    """A file would be written that nothing reads."""
    with pytest.raises(InputError, match=r"\.safetensors or \.npz"):
        save_model(tmp_path / name, unusual())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["model.ckpt", "model", "model.npy"])
def test_other_suffixes_are_not_read(name, tmp_path):
    """The message would not say which files can be read."""
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=r"\.pth, \.safetensors, \.npz"):
        load_pytorch(tmp_path / name)


def test_missing_files_are_named(tmp_path):
    """A typing error in a path would end in a traceback."""
    with pytest.raises(InputError, match="absent"):
        load_pytorch(tmp_path / "absent.npz")
    with pytest.raises(InputError, match="absent"):
        load_model(tmp_path / "absent.safetensors")
    with pytest.raises(InputError, match="absent"):
        find_model("absent.safetensors")


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.95])
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_truncated_files_are_input_errors(suffix, keep, tmp_path):
    """A half-copied file would end in a traceback, or be taken for whole."""
    whole = tmp_path / f"whole{suffix}"
    save_model(whole, unusual())
    raw = whole.read_bytes()
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(raw[: int(keep * len(raw))])
    for read in (load_pytorch, load_model):
        with pytest.raises(InputError, match="cut"):
            read(cut)


def test_pickles_inside_npz_are_not_opened(tmp_path):
    """A downloaded file could run code."""
    opened = []

    class Trap:
        def __reduce__(self):
            return (opened.append, (1,))

    arrays = arrays_of("draft_stochastic")
    np.savez(tmp_path / "trap.npz", **arrays, trap=np.array(Trap(), object))
    opened.clear()
    with pytest.raises(InputError, match="trap"):
        load_pytorch(tmp_path / "trap.npz")
    assert opened == []


@pytest.mark.parametrize(
    "metadata", [{"x": 1}, [1], {"model": {"d_model": 16}}, {"model": 3, "context_len": 1}]
)
def test_strange_metadata_is_an_input_error(metadata, tmp_path):
    """A file of a later version, or of somebody else, would end in a traceback."""
    arrays = arrays_by_name(UNUSUAL, unusual().params)
    np.savez(tmp_path / "odd.npz", **arrays, stride_jax=np.array(json.dumps(metadata)))
    with pytest.raises(InputError):
        load_model(tmp_path / "odd.npz")


def test_metadata_must_fit_the_arrays(tmp_path):
    """The arrays would be used with the dimensions of another model."""
    checkpoint = unusual()
    wrong = {"model": to_dict(dataclasses.replace(UNUSUAL, num_layers=3)), "context_len": 72}
    arrays = arrays_by_name(UNUSUAL, checkpoint.params)
    np.savez(tmp_path / "odd.npz", **arrays, stride_jax=np.array(json.dumps(wrong)))
    with pytest.raises(InputError, match=r"odd\.npz"):
        load_model(tmp_path / "odd.npz")


@pytest.mark.parametrize("name", sorted(load_case("draft_stochastic").arrays))
def test_each_missing_array_is_named(name):
    """A state dict with a hole would be loaded, or refused without saying where."""
    arrays = arrays_of("draft_stochastic")
    del arrays[name]
    with pytest.raises(InputError) as caught:
        load_pytorch(arrays)
    assert name in str(caught.value)


@pytest.mark.parametrize("change", ["longer", "scalar", "flat", "axis"])
@pytest.mark.parametrize("name", sorted(load_case("draft_stochastic").arrays))
def test_each_misshapen_array_is_named(name, change):
    """Another model's weights would be reshaped into ours, or end in a traceback."""
    arrays = arrays_of("draft_stochastic")
    value = arrays[name]
    arrays[name] = {
        "longer": np.concatenate([value, value[-1:]]),
        "scalar": np.zeros((), np.float32),
        "flat": np.zeros(value.size + 1, np.float32),
        "axis": value[None],
    }[change]
    with pytest.raises(InputError) as caught:
        load_pytorch(arrays)
    # dimensions are read off some arrays; one that is a row too long contradicts its own bias
    expected = name.removesuffix(".weight") if change == "longer" else name
    assert expected in str(caught.value)


def test_all_problems_come_in_one_message():
    """The user would mend a file array by array."""
    arrays = arrays_of("target_multivariate")
    del arrays["blocks.norm.bias"], arrays["blocks.attn_layers.1.norm1.weight"]
    arrays["head.bias"] = np.zeros(7, np.float32)
    arrays[f"{BLOCK}.conv2.weight"] = np.zeros((5, 6, 1), np.float32)
    arrays["rope.inv_freq"] = arrays["ffn.gate.weight"] = np.zeros(3, np.float32)
    with pytest.raises(InputError) as caught:
        load_pytorch(arrays)
    message = str(caught.value)
    for part in (
        "missing blocks.norm.bias",
        "missing blocks.attn_layers.1.norm1.weight",
        "head.bias has shape (7,), expected (24,)",
        f"{BLOCK}.conv2.weight has shape (5, 6, 1), expected (32, 48, 1)",
        "unexpected rope.inv_freq",
        "unexpected ffn.gate.weight",
    ):
        assert part in message
    assert "embedding" not in message


def test_an_array_of_a_layer_that_has_a_hole_before_it():
    """A model would lose a layer without a word."""
    arrays = arrays_of("target_univariate_deep")
    arrays = {k: v for k, v in arrays.items() if not k.startswith("blocks.attn_layers.1.")}
    with pytest.raises(InputError, match=r"missing blocks\.attn_layers\.1\.conv1\.weight"):
        load_pytorch(arrays)


@pytest.mark.parametrize("arrays", [{}, {"weight": np.zeros((3, 3), np.float32)}])
def test_something_else_is_not_a_timer_xl(arrays):
    """Another model's file would be answered with a KeyError."""
    with pytest.raises(InputError, match=r"embedding\.weight"):
        load_pytorch(arrays)


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_parameters_are_float32(dtype):
    """Half-precision weights would make the whole model compute in half precision."""
    arrays = {k: v.astype(dtype) for k, v in arrays_of("draft_stochastic").items()}
    _, params = load_pytorch(arrays)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(params))
    expected = load_pytorch({k: v.astype(np.float32) for k, v in arrays.items()})[1]
    assert same_trees(params, expected)


def test_the_command_to_a_checkpoint_and_back(tmp_path, capsys):
    """Published weights could not be brought in, or would change on the way."""
    arrays = arrays_of("target_gelu_nonorm")
    source = write(tmp_path / "source.npz", arrays)
    flags = ["--activation", "gelu", "--no-instance-norm"]
    assert main(["convert", str(source), str(tmp_path / "checkpoint"), *flags]) == 0
    stored = checkpoints.load(tmp_path / "checkpoint")
    expected, expected_params = load_pytorch(arrays, activation="gelu", instance_norm=None)
    assert stored.model == expected
    assert same_trees(stored.params, expected_params)
    for suffix in (".npz", ".safetensors"):
        target = tmp_path / f"back{suffix}"
        assert main(["convert", str(tmp_path / "checkpoint"), str(target)]) == 0
        found = load_model(target)
        assert found.model == expected
        assert same_trees(to_pytorch(*found[:2]), arrays)
    assert capsys.readouterr().err == ""


def test_the_command_keeps_the_config_of_our_own_files(tmp_path):
    """A gelu or causal-stride model would silently come back as a relu one with other positions."""
    save_model(tmp_path / "ours.safetensors", unusual())
    assert main(["convert", str(tmp_path / "ours.safetensors"), str(tmp_path / "ours.npz")]) == 0
    found = load_model(tmp_path / "ours.npz")
    assert found.model == UNUSUAL
    assert found.context_len == 72


@pytest.mark.parametrize("problem", ["absent", "exists", "suffix", "cut", "directory"])
def test_the_command_fails_in_one_line(problem, tmp_path, capsys):
    """A script would go on after a failed conversion, or the user would read a traceback."""
    source = write(tmp_path / "source.npz", arrays_of("draft_stochastic"))
    output = tmp_path / "out.safetensors"
    if problem == "absent":
        source = tmp_path / "absent.npz"
    elif problem == "exists":
        output.write_bytes(b"precious")
    elif problem == "suffix":
        output = tmp_path / "out.pth"
    elif problem == "cut":
        source.write_bytes(source.read_bytes()[:3000])
    else:
        source = tmp_path / "empty"
        source.mkdir()
    assert main(["convert", str(source), str(output)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
