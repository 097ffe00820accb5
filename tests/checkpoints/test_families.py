"""Foundation models from their own files: recognised, read strictly, paired with any draft."""

import json
import re
import sys
import types
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import GOLDEN
from helpers.families import Jitted
from helpers.fracast import recorded, tensors, tiny_file
from safetensors.flax import save_file as save_jax
from safetensors.numpy import save_file

from stride_jax.checkpoints.build import family_pair, load_pair
from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.checkpoints.families import FamilyCheckpoint, is_timer_xl, read_family
from stride_jax.checkpoints.store import load_any, load_model, save_model
from stride_jax.checkpoints.tensor_files import read_tensors
from stride_jax.decoding.naive_drafts import last_value_draft, seasonal_draft
from stride_jax.decoding.rules import Mean
from stride_jax.decoding.speculative import decode
from stride_jax.decoding.types import DecodeConfig
from stride_jax.errors import InputError
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.families import FAMILIES
from stride_jax.models.fracast.process import FracastProcess
from stride_jax.models.timer_xl import init_params

TENSORS = tensors(recorded("tiny"))


@pytest.fixture
def model(tmp_path: Path) -> str:
    """The path of a small Fracast-0."""
    return tiny_file(tmp_path / "tiny.safetensors")


KEY = jax.random.key(0)


def golden_model(name: str) -> dict[str, np.ndarray]:
    """The tensors of a recorded small model of two layers."""
    layout = "google" if name == "timesfm" else name
    with np.load(GOLDEN / f"{name}.npz") as file:
        start = f"{layout}/"
        return {k.removeprefix(start): file[k] for k in file.files if k.startswith(start)}


def next_means(process, context, proposals) -> np.ndarray:
    """Means after the context and after each of K proposals, `[K + 1, P, C]`."""
    jitted = Jitted(process)
    memory = jitted.prepare(context)
    return np.asarray(jitted.verify(memory, process.start(memory, 2), proposals)[0].mean)


def next_mean(process, context) -> np.ndarray:
    """The mean of the next patch, `[P, C]`."""
    return next_means(process, context, jnp.zeros((0, process.patch_len, 1)))[0]


def same(found, expected) -> bool:
    equal = jax.tree.map(lambda a, b: bool(jnp.all(a == b)), found, expected)
    return all(jax.tree.leaves(equal))


def shards(folder: Path) -> Path:
    """The model in two shards and their index."""
    names = sorted(TENSORS)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: TENSORS[name] for name in part}, folder / file)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    return path


def wheel(folder: Path) -> Path:
    """A compressed wheel with the weights, and smaller ones of another format beside them."""
    path = folder / "tiny.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.write(tiny_file(folder / "x.safetensors"), "fracast/weights/model.safetensors")
        file.writestr("fracast/weights/model.int8.safetensors", b"other")
    return path


def unpacked(folder: Path) -> Path:
    """The same, unpacked."""
    with zipfile.ZipFile(wheel(folder)) as file:
        file.extractall(folder / "unpacked")
    return folder / "unpacked"


@pytest.mark.parametrize("layout", [shards, lambda f: shards(f).parent, wheel, unpacked])
def test_every_layout_of_a_file_gives_the_same_model(layout, tmp_path, model):
    """A model could be read in one form only, or lose a tensor between shards."""
    expected = read_family(model)
    path = layout(tmp_path / "x") if (tmp_path / "x").mkdir() is None else None
    found = load_any(path)
    assert found.config == expected.config
    assert same(found.params, expected.params)


def test_a_state_dict_of_pytorch_is_read_safely(tmp_path, monkeypatch, model):
    """Code in a downloaded file would run, or that of a training framework not be read."""
    calls = []

    class Tensor:
        def __init__(self, array):
            self.array, self.dtype = array, "torch.float32"

        def float(self):
            return self

        detach = float

        def numpy(self):
            return self.array

    def load(path, **options):
        calls.append(options)
        return {"epoch": 1, "state_dict": {name: Tensor(x) for name, x in TENSORS.items()}}

    stub = types.ModuleType("torch")
    stub.load = load
    monkeypatch.setitem(sys.modules, "torch", stub)
    for name in ("model.ckpt", "model.pth"):
        (tmp_path / name).write_bytes(b"x")
        assert same(load_any(tmp_path / name).params, read_family(model).params)
    assert all(options["weights_only"] is True for options in calls)


def test_tensors_are_mapped_and_half_of_them_stay_half(tmp_path, model):
    """Loading would need the memory of a model twice, or double that of a bfloat16 file."""
    arrays, _ = read_tensors(Path(model))
    assert all(isinstance(array, np.memmap) for array in arrays.values())
    path = tmp_path / "half.safetensors"
    save_jax({name: jnp.asarray(x, jnp.bfloat16) for name, x in TENSORS.items()}, path)
    stored = jax.tree.leaves(read_family(path, dtype="stored").params)
    assert {leaf.dtype for leaf in stored} == {jnp.dtype(jnp.bfloat16)}
    single = jax.tree.leaves(read_family(path).params)
    assert {leaf.dtype for leaf in single} == {jnp.dtype(jnp.float32)}
    pairs = zip(stored, single, strict=True)
    assert all(bool(jnp.all(jnp.asarray(a, jnp.float32) == b)) for a, b in pairs)
    with pytest.raises(InputError, match="dtype must be"):
        read_family(path, dtype="int8")


@pytest.mark.parametrize(
    ("name", "draft"),
    [("last-value", last_value_draft(6)), ("seasonal:24", seasonal_draft(6, 24)), (None, None)],
)
def test_drafts_without_training_go_with_a_family(name, draft, model):
    """A foundation model could not be decoded speculatively without a model trained for it."""
    pair = load_pair(model, name)
    assert isinstance(pair.target, FracastProcess)
    assert pair.target.context_len == 2048
    assert jax.tree.structure(pair.draft) == jax.tree.structure(draft)
    assert load_pair(model, name, context_len=100).target.context_len == 100


def test_a_family_is_a_draft_and_takes_one(tmp_path, model):
    """A pretrained draft would be of no use to any other target, or a trained one to a family."""
    small = TimerXLConfig(patch_len=6, d_model=8, num_heads=2, d_ff=8, dropout=0.0)
    path = tmp_path / "timer.safetensors"
    save_model(path, Checkpoint(small, init_params(jax.random.key(0), small), 12))
    assert isinstance(load_pair(path, model).draft, FracastProcess)
    assert isinstance(load_pair(model, model).draft, FracastProcess)
    assert load_pair(model, path).draft.patch_len == 6
    with pytest.raises(InputError, match="share a patch length, got 6 and 24"):
        load_pair(model, "beijing")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"process": "cached"}, "has one process"),
        ({"draft": "lst-value"}, "no draft 'lst-value' for Fracast-0.*Did you mean 'last-value'"),
        ({"draft": "seasonal:x"}, "whole number"),
        ({"context_len": 4000}, "context_len 4000 is more than the 2048"),
    ],
)
def test_what_does_not_fit_a_family_is_refused(call, message, model):
    """A choice of the user would be dropped without a word."""
    with pytest.raises(InputError, match=message):
        load_pair(model, **call)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.pop("core.norm.weight"),
            r"nearest family is Fracast-0, with 98% .* missing core.norm.weight; it holds",
        ),
        (lambda t: t.update(extra=np.zeros(2, np.float32)), "extra is unknown"),
        (lambda t: t.update({"head.queries": np.full((6, 8), np.nan, np.float32)}), "holds NaN"),
        (
            lambda t: t.update({"core.block.pw.bias": np.zeros(9, np.float32)}),
            r"core.block.pw.bias has shape \(9,\), expected \(8,\)",
        ),
        (
            lambda t: (t.clear(), t.update({"encoder.weight": np.zeros((2, 2), np.float32)})),
            "no known model: .* of .*Fracast-0.* or Timer-XL; it holds encoder.weight",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_tensor(change, message, tmp_path):
    """A foreign or damaged model would forecast, or fail inside the compiler."""
    path = tiny_file(tmp_path / "odd.safetensors", change)
    with pytest.raises(InputError, match=f"odd.safetensors: .*{message}"):
        load_pair(path)


@pytest.mark.parametrize("keep", [0.0, 0.001, 0.3, 0.99])
def test_half_a_file_is_an_input_error(keep, tmp_path, model):
    """A broken download would end in a traceback, or be taken for whole."""
    content = Path(model).read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(InputError, match=r"cut\.safetensors is damaged"):
        load_pair(path)
    (tmp_path / "cut.whl").write_bytes(content[:100])
    with pytest.raises(InputError, match=r"cut\.whl is damaged"):
        load_pair(tmp_path / "cut.whl")


def test_shards_that_are_not_whole_are_named(tmp_path):
    """Half a model would be loaded, or the message not say what to download."""
    index = shards(tmp_path)
    save_file({"other": np.zeros(1, np.float32)}, tmp_path / "b.safetensors")
    with pytest.raises(InputError, match=r"b\.safetensors lacks the tensor core\."):
        load_pair(index)
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(InputError, match=r"shard b\.safetensors, which is not beside it \(1 of 2"):
        load_pair(index)
    index.write_text("[]")
    with pytest.raises(InputError, match="no index of shards"):
        load_pair(index)


def test_shards_without_their_index_are_no_models_of_their_own(tmp_path):
    """A download that lacks one file would be called several models, to choose one of."""
    for number in (1, 2):
        tiny_file(tmp_path / f"model-{number:05}-of-00002.safetensors")
    said = r"shards of a model .*; put model\.safetensors\.index\.json beside them"
    with pytest.raises(InputError, match=said):
        load_pair(tmp_path)


def test_a_directory_of_several_models_is_not_guessed(tmp_path):
    """One of two models would be forecast with, by the order of their names."""
    for name in ("a", "b"):
        tiny_file(tmp_path / f"{name}.safetensors")
    with pytest.raises(InputError, match=r"several models: a\.safetensors, b\.safetensors"):
        load_pair(tmp_path)


def test_a_timer_xl_is_still_read_as_one(model):
    """The original's own files would be called unknown."""
    with np.load(GOLDEN / "target_multivariate.npz") as file:
        names = [name.removeprefix("param/") for name in file.files if name.startswith("param/")]
    assert is_timer_xl(names)
    assert is_timer_xl(f"module.{name}" for name in names)
    assert not is_timer_xl(TENSORS)
    with pytest.raises(InputError, match="another kind than Timer-XL"):
        load_model(model)


@pytest.mark.parametrize("name", ["timesfm", "timer", "patchfm", "toto"])
def test_the_first_layers_of_a_model_are_a_draft(name: str) -> None:
    """A draft for free would see other layers than the first, or change what the target says."""
    arrays = golden_model(name)
    family = FAMILIES[name]
    target = FamilyCheckpoint(family, *family.read(arrays))
    pair = family_pair(target, "layer-skip:1", None, 1)
    draft, reference = pair.draft, pair.target
    context = jnp.asarray(np.random.default_rng(0).normal(size=(64, 1)), jnp.float32)

    # Its prediction is that of a file which has the first layer alone. Toto's last layer is across
    # variables, so there is no such file of it; its second layer is made to add nothing.
    second = re.compile(r"(layers|stacked_xf)\.1\.")
    if name == "toto":
        changed = {key: np.zeros_like(x) if second.search(key) else x for key, x in arrays.items()}
    else:
        changed = {key: x for key, x in arrays.items() if not second.search(key)}
    without = FamilyCheckpoint(family, *family.read(changed)).process()
    found, expected = (next_mean(process, context) for process in (draft, without))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(found - next_mean(reference, context)).max() > 1e-3

    # It proposes: the second patch of a round is the target's after the draft's first proposal.
    config = DecodeConfig(3 * reference.patch_len, 2)
    options = {"draft": draft, "rule": Mean(tolerance=1e6), "config": config}
    path, info = decode(KEY, context, target=reference, sigma=1.0, **options)
    after = next_means(reference, context, jnp.asarray(found)[None])
    second = path[len(found) : 2 * len(found)]
    np.testing.assert_allclose(second, after[1], rtol=1e-4, atol=1e-4)
    assert int(info.rounds) == 1


def test_layers_that_a_model_has_not_are_no_draft(model) -> None:
    """A draft of no layer, or of the whole target, would be decoded without a word."""
    arrays = golden_model("timer")
    target = FamilyCheckpoint(FAMILIES["timer"], *FAMILIES["timer"].read(arrays))
    for text in ("layer-skip:0", "layer-skip:2", "layer-skip:9"):
        with pytest.raises(InputError, match=f"{text} needs from 1 to 1 layers of .*has 2"):
            family_pair(target, text, None, 1)
    with pytest.raises(InputError, match="Fracast-0 has no layers to leave out"):
        load_pair(model, "layer-skip:1")
    for text in ("layer-skip", "layer-skip:-1", "layer-skip:" + "9" * 5000):
        with pytest.raises(InputError, match="needs a whole number, as in 'layer-skip:4'"):
            family_pair(target, text, None, 1)
