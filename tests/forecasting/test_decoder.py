"""Decoders that are compiled once, and decoders in a file of their own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.toys import (
    BATCH,
    CONFIG,
    CONTEXT,
    CONTEXT_LEN,
    DRAFT,
    NUM_VARS,
    PATCH_LEN,
    SIGMA,
    TARGET,
    assert_same,
    fading,
    forecast_tanh,
    parameters,
    roll,
    speculate,
)
from jax.tree_util import Partial

import stride_jax as sj
from stride_jax.checkpoints.pair import Pair
from stride_jax.decoding.draft_length import Gain
from stride_jax.decoding.processes import window_process
from stride_jax.decoding.rules import Mean
from stride_jax.decoding.scale import PatchCovariance
from stride_jax.decoding.types import DecodeConfig
from stride_jax.errors import InputError
from stride_jax.forecasting.decoder import Decoder, build_decoder
from stride_jax.forecasting.saved_decoder import load_decoder

PAIR = Pair(TARGET, DRAFT)
Loaded = Callable[..., Any]
ALONE = """
import sys
import jax, numpy as np
data = np.load(sys.argv[2])
found = jax.export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
out, _ = found.call(data["key"], data["context"], data["sigma"])
assert not any(name.startswith(("stride_jax", "flax")) for name in sys.modules)
np.save(sys.argv[3], out)
"""


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    """Target and draft for a batch."""
    return build_decoder(PAIR, CONFIG, context_shape=BATCH.shape)


@pytest.fixture(scope="module")
def exported(decoder: Decoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder for three platforms."""
    path = tmp_path_factory.mktemp("export") / "decoder.bin"
    decoder.save(path, platforms=("cpu", "cuda", "tpu"))
    return path


@pytest.fixture(scope="module")
def loaded(exported: Path) -> Loaded:
    """The decoder from its file."""
    return load_decoder(exported)


@pytest.fixture(scope="module")
def padded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Decoder, Loaded]:
    """A padded decoder, and the same from its file."""
    path = tmp_path_factory.mktemp("export") / "padded.bin"
    decoder = build_decoder(fading(), CONFIG, context_shape=BATCH[:2].shape, padded=True)
    decoder.save(path)
    return decoder, load_decoder(path)


def same(found, expected) -> None:
    """Two decodes are the same to the last bit."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_a_decoder_returns_what_decode_returns(decoder: Decoder, key: jax.Array) -> None:
    """A server would forecast something else than what was tested."""
    for seed in (key, jax.random.key(7)):
        same(decoder(seed, BATCH, SIGMA), speculate(seed, BATCH))
    expected = decoder(key, BATCH, SIGMA)
    same(decoder(jax.random.key_data(key), BATCH.astype(np.float64), np.float64(SIGMA)), expected)
    same(decoder(key, jnp.asarray(BATCH), jnp.asarray(SIGMA)), expected)
    assert jnp.abs(decoder(key, BATCH, 2 * SIGMA)[0] - expected[0]).max() > 0.1


def test_every_choice_reaches_the_decoder_and_its_file(key: jax.Array, tmp_path: Path) -> None:
    """Rule, draft length, paths or lengths would be those of another decode."""
    config, sizes = DecodeConfig(6, 2, num_paths=2, trace=True), {"context_shape": (2, 12, 2)}
    chosen = {"rule": Mean(tolerance=0.5), "draft_length": Gain(draft_cost=0.1)}
    pair, sigma, lengths = Pair(fading(), fading(0.1)), [0.5, 0.7], [6, 12]
    decoder = build_decoder(pair, config, **chosen, **sizes, sigma_shape=(2,), padded=True)
    models = {"target": pair.target, "draft": pair.draft, "config": config, **chosen}
    expected = speculate(key, BATCH[:2], sigma=sigma, lengths=np.array(lengths), **models)
    same(decoder(key, BATCH[:2], sigma, lengths), expected)
    decoder.save(tmp_path / "decoder.bin")
    found = load_decoder(tmp_path / "decoder.bin")(key, BATCH[:2], sigma, lengths)
    assert found[1].trace is not None
    assert_same(found, expected)


def test_a_decoder_never_traces_again(key: jax.Array) -> None:
    """A server would stand still for seconds while a request compiles."""
    calls: list = []

    def predict(weight, mix, window):
        calls.append(window)
        return forecast_tanh(weight, mix, window)

    target = window_process(Partial(predict, *map(jnp.asarray, parameters(CONTEXT_LEN))), PATCH_LEN)
    decoder = build_decoder(target, CONFIG, context_shape=CONTEXT.shape)
    traced = len(calls)
    for context in (CONTEXT, CONTEXT.astype(np.float64), jnp.asarray(CONTEXT), CONTEXT.tolist()):
        for seed, sigma in ((key, 0.5), (jax.random.key_data(key), jnp.float32(0.5)), (key, 1)):
            decoder(seed, context, sigma)
    assert len(calls) == traced > 0
    roll(key, BATCH, target=target)
    assert len(calls) > traced  # the count above could have seen a trace


BAD = {
    "context of one series": ({"context": CONTEXT}, r"takes a context of shape \(5, 12, 2\).*got"),
    "longer context": ({"context": np.ones((5, 15, 2))}, r"got a context of shape \(5, 15, 2\)"),
    "several sigmas": ({"sigma": np.ones(NUM_VARS)}, r"sigma of shape \(\).*sigma of shape \(2,\)"),
    "lengths": ({"lengths": np.full(5, 6)}, "no lengths, got .* and lengths"),
    "NaN": ({"context": np.full(BATCH.shape, np.nan)}, "120 values that are NaN"),
    "sigma 0": ({"sigma": 0.0}, "sigma must be > 0"),
    "several keys": ({"key": jax.random.split(jax.random.key(0))}, "one PRNG key"),
    "another kind of key": ({"key": jax.random.key(0, impl="rbg")}, "takes keys"),
    "an int key": ({"key": 7}, "PRNG key.*got 7"),
    "no sigma": ({"sigma": None}, "sigma must be real"),
    "negative sigma": ({"sigma": -1.0}, "sigma.*not negative"),
    "a sigma beyond float32": ({"sigma": 1e39}, "sigma must be at most"),
    "a covariance": ({"sigma": PatchCovariance(np.eye(PATCH_LEN))}, "no PatchCovariance"),
    "no context": ({"context": None}, r"context must be \[L, C\]"),
    "a text": ({"context": "series"}, r"context must be \[L, C\]"),
}
IN_A_FILE = [name for name in BAD if name != "sigma 0"]
"""The file does not tell whether its rule samples."""


@pytest.mark.parametrize("name", BAD)
def test_a_decoder_refuses_other_inputs(decoder: Decoder, key: jax.Array, name: str) -> None:
    """A message about avals would be the answer, or a forecast from NaN."""
    changes, said = BAD[name]
    with pytest.raises(InputError, match=said):
        decoder(**{"key": key, "context": BATCH, "sigma": SIGMA, **changes})


@pytest.mark.parametrize("name", IN_A_FILE)
def test_a_decoder_of_a_file_refuses_what_the_decoder_does(
    loaded: Loaded, key: jax.Array, name: str
) -> None:
    """What a test of the decoder refused would be forecast where it is deployed."""
    changes, said = BAD[name]
    with pytest.raises(InputError, match=said):
        loaded(**{"key": key, "context": BATCH, "sigma": SIGMA, **changes})


def test_the_program_of_a_file_tells_what_its_loader_cannot(loaded: Loaded, key: jax.Array) -> None:
    """Nobody would know that the forecast means nothing."""
    _, info = loaded(key, BATCH, 0.0)
    assert not info.valid_input.any()


@pytest.mark.parametrize("lengths", [None, [6, 13], [0, 12], [6.0, 12.0], [6]], ids=repr)
def test_a_padded_decoder_refuses_other_lengths(
    padded: tuple[Decoder, Loaded], key: jax.Array, lengths: Any
) -> None:
    """A missing length would be a message about pytrees, a wrong one a forecast from padding."""
    for decoder in padded:
        with pytest.raises(InputError, match="lengths"):
            decoder(key, BATCH[:2], SIGMA, lengths)


@pytest.mark.parametrize("name", ["context_shape", "sigma_shape"])
@pytest.mark.parametrize("shape", [5, None, (2.5, 1), (0, 1), "96", (True, 1)], ids=repr)
def test_what_is_no_shape_is_refused(name: str, shape: Any) -> None:
    """`'int' object is not iterable` would be the answer to a number of steps."""
    shapes = {"context_shape": BATCH.shape, name: shape}
    with pytest.raises(InputError, match=rf"{name}.* got "):
        build_decoder(PAIR, CONFIG, **shapes)


def test_what_cannot_be_decoded_is_not_built() -> None:
    """The first request would fail instead of the start of the server."""
    with pytest.raises(InputError, match="tolerance"):
        build_decoder(PAIR, CONFIG, Mean(tolerance=-1.0), context_shape=BATCH.shape)
    with pytest.raises(InputError, match="fewer than one patch"):
        build_decoder(PAIR, CONFIG, context_shape=(2, 2))


def test_a_decoder_tells_its_cost(decoder: Decoder) -> None:
    """Whoever plans a server would have to guess its memory."""
    cost = decoder.cost()
    values = sum(x.size for x in jax.tree.leaves(PAIR)) + BATCH.size
    assert cost.peak_bytes > 4 * values
    # one pass of the target over the K + 1 windows of a verification, two products each
    window = 2 * PATCH_LEN * NUM_VARS * (10 + NUM_VARS)
    assert cost.flops > (CONFIG.num_draft + 1) * len(BATCH) * window
    assert cost.bytes_accessed > 4 * values
    assert "stablehlo.while" in decoder.lower().as_text()


# --- files -------------------------------------------------------------------------------------


def test_a_file_decodes_as_the_decoder_does(
    decoder: Decoder, loaded: Loaded, key: jax.Array
) -> None:
    """A deployed file that forecasts something else is worse than none."""
    for seed in (key, jax.random.key_data(jax.random.key(7))):
        assert_same(loaded(seed, BATCH, SIGMA), decoder(seed, BATCH, SIGMA), atol=1e-6)


def test_a_file_needs_jax_alone(exported: Path, key: jax.Array, tmp_path: Path) -> None:
    """A server that must install the training code has gained nothing."""
    inputs, out = tmp_path / "in.npz", tmp_path / "out.npy"
    np.savez(
        inputs,
        key=np.asarray(jax.random.key_data(key)),
        context=BATCH,
        sigma=np.float32(SIGMA),
    )
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    args = [sys.executable, "-I", "-c", ALONE, str(exported), str(inputs), str(out)]
    subprocess.run(args, check=True, env=env)
    np.testing.assert_allclose(np.load(out), speculate(key, BATCH)[0], atol=1e-5)


def test_it_is_lowered_for_every_platform(exported: Path) -> None:
    """A file made on a laptop must run where the accelerator is."""
    found = jax.export.deserialize(bytearray(exported.read_bytes()))
    assert found.platforms == ("cpu", "cuda", "tpu")


def test_bad_files(decoder: Decoder, exported: Path, tmp_path: Path) -> None:
    """Nothing is overwritten, and a wrong file is named."""
    with pytest.raises(InputError, match="exists"):
        decoder.save(exported)
    with pytest.raises(InputError, match=r"nowhere\.bin"):
        load_decoder(tmp_path / "nowhere.bin")
    (tmp_path / "other.bin").write_bytes(b"not it")
    with pytest.raises(InputError, match=r"other\.bin is no saved"):
        load_decoder(tmp_path / "other.bin")
    program = jax.export.export(jax.jit(lambda x: 2 * x))(jnp.ones(3))
    (tmp_path / "program.bin").write_bytes(program.serialize())
    with pytest.raises(InputError, match=r"program\.bin is no saved"):
        load_decoder(tmp_path / "program.bin")


@pytest.mark.parametrize("platforms", ["cpu", (), ("gpu",), ("cpu", "metal")])
def test_a_decoder_is_saved_for_platforms_that_exist(decoder, tmp_path, platforms):
    """A file for the platforms c, p and u would be written, which runs nowhere."""
    with pytest.raises(InputError, match=r"platforms must be a list of some of cpu, .*, got"):
        decoder.save(tmp_path / "decoder", platforms=platforms)
    assert list(tmp_path.iterdir()) == []


def test_a_decoder_is_saved_into_a_directory_that_exists(decoder, tmp_path):
    """A traceback would end the work after the export."""
    with pytest.raises(InputError, match="there is no directory"):
        decoder.save(tmp_path / "nowhere" / "decoder")


def test_a_target_alone_takes_a_sigma_of_zero(key: jax.Array) -> None:
    """A server would refuse the path without noise that `decode` gives."""
    config = DecodeConfig(CONFIG.horizon)
    decoder = build_decoder(TARGET, config, context_shape=BATCH.shape)
    found, info = decoder(key, BATCH, 0.0)
    expected, _ = sj.decode(key, BATCH, target=TARGET, sigma=0.0, config=config)
    np.testing.assert_array_equal(found, expected)
    assert info.valid_input.all()


def test_lengths_that_are_no_whole_patches_are_refused(key: jax.Array) -> None:
    """A server would answer with numbers that mean nothing instead of a reason."""
    decoder = build_decoder(fading(), CONFIG, context_shape=BATCH[:2].shape, padded=True)
    odd = [BATCH.shape[1], BATCH.shape[1] - 1]
    with pytest.raises(InputError, match="lengths"):
        decoder(key, BATCH[:2], SIGMA, odd)
