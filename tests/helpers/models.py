"""Small models with random parameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.models import TimerXL, init_params
from stride_jax.models.config import TimerXLConfig


def series(batch: int, length: int, num_vars: int, seed: int = 0) -> np.ndarray:
    """Random input."""
    return np.random.default_rng(seed).normal(size=(batch, length, num_vars)).astype(np.float32)


@functools.cache
def shapes_of(config: TimerXLConfig):
    """The parameters of a config as shapes, traced once: that takes most of the time of a pair."""
    return jax.eval_shape(lambda: init_params(jax.random.key(0), config))


def zeros_of(key: jax.Array, config: TimerXLConfig):
    """`init_params` for pairs of which only shapes matter: its shapes, all 0."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes_of(config))


@functools.cache
def params_of(config: TimerXLConfig):
    """Parameters of a config, every bias and scale random too; equal for equal shapes."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        noise = rng.normal(size=leaf.shape) / np.sqrt(leaf.shape[0])
        return jnp.asarray(noise + (path[-1].key == "scale"), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes_of(config))


@functools.cache
def compiled(config: TimerXLConfig, deterministic: bool = True, last_only: bool = False):
    """`(params, x, dropout key) -> outputs`, compiled."""

    def run(params, x, key):
        rngs = None if key is None else {"dropout": key}
        options = {"deterministic": deterministic, "last_only": last_only}
        return TimerXL(config).apply({"params": params}, x, rngs=rngs, **options)

    # Compiling takes longer than running these small models.
    return jax.jit(run, compiler_options={"xla_backend_optimization_level": 0})


def forward(config, x, params=None, *, key=None, deterministic=True, last_only=False):
    """All outputs of the model; a tuple for a gaussian head."""
    params = params_of(config) if params is None else params
    return jax.tree.map(np.asarray, compiled(config, deterministic, last_only)(params, x, key))


def sensitivity(config: TimerXLConfig, x: np.ndarray) -> np.ndarray:
    """`[n, c, n', c']`: the largest slope of output patch (n, c) in input patch (n', c')."""
    params, (_, length, num_vars) = params_of(config), x.shape
    slope = jax.jit(jax.jacobian(lambda v: TimerXL(config).apply({"params": params}, v)))(x)
    patches = (length // config.patch_len, config.patch_len, num_vars)
    return np.abs(np.asarray(slope)).reshape(*patches, *patches).max(axis=(1, 4))
