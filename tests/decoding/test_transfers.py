"""Arrays that live on a device: never read back, and reported where their values are bad."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.toys import BATCH, SIGMA, assert_same, fading, roll, speculate

from stride_jax.decoding.checks import Inputs
from stride_jax.decoding.types import DecodeConfig
from stride_jax.errors import InputError

HELPER = Path(__file__).parents[1] / "helpers" / "transfers.py"


def test_a_decode_reads_nothing_back() -> None:
    """Every call would wait for the device, which makes a decode on a GPU twice as long."""
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    settings = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_PLATFORMS": "cpu"}
    env = {**os.environ, **settings, "XLA_FLAGS": flags}
    done = subprocess.run([sys.executable, str(HELPER)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "4"


def broken(*place: int) -> np.ndarray:
    """Contexts with a NaN."""
    context = BATCH.copy()
    context[place] = np.nan
    return context


def test_bad_values_on_a_device_are_reported(key: jax.Array) -> None:
    """A NaN that is not read back would become a forecast without a word."""
    config = DecodeConfig(6, 2, num_paths=2)
    found = speculate(key, jnp.asarray(broken(2, 5, 1)), config=config)[1].valid_input
    assert found.tolist() == [[series != 2] * 2 for series in range(len(BATCH))]
    with pytest.raises(InputError, match=r"1 values.*\(2, 5, 1\)"):
        speculate(key, broken(2, 5, 1), config=config)
    sigma = jnp.asarray([SIGMA, -1.0])
    assert not bool(roll(key, BATCH[0], sigma=sigma, config=config)[1].valid_input.any())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [True, True]),
        ({"lengths": [6, 12]}, [True, True]),
        ({"lengths": [6, 3]}, [True, True]),
        ({"lengths": [6, 15]}, [True, False]),
        ({"lengths": [0, 12]}, [False, True]),
        ({"lengths": [7, 12]}, [False, True]),
        ({"context": broken(1, 11, 0)[:2]}, [True, False]),
        ({"context": broken(1, 2, 0)[:2], "lengths": [12, 9]}, [True, True]),
        ({"context": broken(1, 3, 0)[:2], "lengths": [12, 9]}, [True, False]),
        ({"sigma": [0.0, 1.0]}, [False, False]),
        ({"sigma": np.inf}, [False, False]),
        ({"sigma": np.ones((2, 1, 2)) * [[[1]], [[np.nan]]]}, [True, False]),
    ],
)
def test_valid_input_is_what_the_host_accepts(
    changes: dict[str, Any], expected: list[bool]
) -> None:
    """The flag would call a series bad that is decoded, or the other way round."""
    given = {"context": BATCH[:2], "sigma": 1.0, "lengths": None, **changes}
    context, sigma = (jnp.asarray(given[n], jnp.float32) for n in ("context", "sigma"))
    lengths = None if given["lengths"] is None else jnp.asarray(given["lengths"])
    inputs = Inputs(jax.random.key(0), context, sigma, None, lengths)
    assert inputs.valid(3, speculative=True).tolist() == expected


def test_a_sigma_of_0_is_valid_where_nothing_samples(key: jax.Array) -> None:
    """The mean path of a target would be called meaningless."""
    assert bool(roll(key, sigma=jnp.float32(0), config=DecodeConfig(6))[1].valid_input)


def test_padding_of_a_context_on_the_host_may_be_anything(key: jax.Array) -> None:
    """NaN before a history would be refused where only its length lies on the device."""
    context, config = broken(0, 2, 0)[:1], DecodeConfig(6, 2)
    model = {"target": fading(), "config": config}
    found = roll(key, context, lengths=jnp.array([9]), **model)
    assert_same(found, roll(key, context, lengths=np.array([9]), **model))
    assert found[1].valid_input.tolist() == [True]
