"""Decoders in a file of their own."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.toys import BATCH, CONFIG, DRAFT, SIGMA, TARGET, speculate

from stride_jax.checkpoints.build import Pair
from stride_jax.errors import InputError
from stride_jax.forecasting.export import export_decoder, load_decoder

PAIR = Pair(TARGET, DRAFT)
ALONE = """
import sys
import jax, numpy as np
data = np.load(sys.argv[2])
found = jax.export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
out = found.call(data["key"], data["context"], data["sigma"])
assert not any(name.startswith(("stride_jax", "flax")) for name in sys.modules)
np.save(sys.argv[3], out)
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder for three platforms."""
    path = tmp_path_factory.mktemp("export") / "decoder.bin"
    platforms = ("cpu", "cuda", "tpu")
    export_decoder(path, PAIR, CONFIG, context_shape=BATCH.shape, platforms=platforms)
    return path


def test_a_file_decodes_as_the_decoder_does(exported: Path, key: jax.Array) -> None:
    """A deployed file that forecasts something else is worse than none."""
    decode = load_decoder(exported)
    for seed in (key, jax.random.key(7)):
        expected, _ = speculate(seed, BATCH)
        np.testing.assert_allclose(decode(seed, BATCH, SIGMA), expected, atol=1e-6)
    assert jnp.abs(decode(key, BATCH, SIGMA) - decode(key, BATCH, 2 * SIGMA)).max() > 0.1


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


def test_bad_files(exported: Path, tmp_path: Path) -> None:
    """Nothing is overwritten, and a wrong file is named."""
    with pytest.raises(InputError, match="exists"):
        export_decoder(exported, PAIR, CONFIG, context_shape=BATCH.shape)
    with pytest.raises(InputError, match=r"nowhere\.bin"):
        load_decoder(tmp_path / "nowhere.bin")
    (tmp_path / "other.bin").write_bytes(b"not it")
    with pytest.raises(InputError, match=r"other\.bin is no exported"):
        load_decoder(tmp_path / "other.bin")
    with pytest.raises(InputError, match="fewer than one patch"):
        export_decoder(tmp_path / "new.bin", PAIR, CONFIG, context_shape=(2, 2))
    assert not (tmp_path / "new.bin").exists()
