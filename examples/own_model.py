"""Speculative decoding of a forecaster that is not Timer-XL: a small network in plain JAX.

`python examples/own_model.py` (under a minute on a laptop): trains a wide network and a narrow one
on a noisy wave with nothing but jax, and lets the narrow one propose what the wide one verifies.
"""

import functools
import time

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from stride_jax import Block, DecodeConfig, decode, window_process

PATCH, CONTEXT, SIGMA = 8, 64, 0.1


def init(key: jax.Array, width: int) -> list[tuple[jax.Array, jax.Array]]:
    """Three layers from a window of one variable to its next patch."""
    sizes = [CONTEXT, width, width, PATCH]
    keys = jax.random.split(key, len(sizes) - 1)
    return [
        (jax.random.normal(k, (m, n)) / jnp.sqrt(m), jnp.zeros(n))
        for k, m, n in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]


def predict(params: list[tuple[jax.Array, jax.Array]], window: jax.Array) -> jax.Array:
    """`[L, 1]` -> the mean of the next patch, `[P, 1]`: all that the decoder needs to know."""
    x = window[:, 0]
    for weight, bias in params[:-1]:
        x = jax.nn.gelu(x @ weight + bias)
    weight, bias = params[-1]
    return (x @ weight + bias)[:, None]


def waves(key: jax.Array, count: int, steps: int) -> jax.Array:
    """Noisy waves of random period and phase, `[count, steps, 1]`."""
    period_key, phase_key, noise_key = jax.random.split(key, 3)
    period = jax.random.uniform(period_key, (count, 1), minval=12.0, maxval=40.0)
    phase = jax.random.uniform(phase_key, (count, 1), maxval=2 * jnp.pi)
    clean = jnp.sin(2 * jnp.pi * jnp.arange(steps)[None] / period + phase)
    return (clean + SIGMA * jax.random.normal(noise_key, clean.shape))[..., None]


@functools.partial(jax.jit, static_argnames="steps")
def train(params: list[tuple[jax.Array, jax.Array]], key: jax.Array, steps: int) -> object:
    """Gradient descent with momentum on the squared error of the next patch."""

    def loss(params: object, series: jax.Array) -> jax.Array:
        made = jax.vmap(lambda window: predict(params, window))(series[:, :CONTEXT])
        return jnp.mean(jnp.square(made - series[:, CONTEXT:]))

    def step(carry: tuple, key: jax.Array) -> tuple:
        params, speed = carry
        slope = jax.grad(loss)(params, waves(key, 128, CONTEXT + PATCH))
        speed = jax.tree.map(lambda v, g: 0.9 * v - 0.02 * g, speed, slope)
        return (jax.tree.map(jnp.add, params, speed), speed), None

    still = jax.tree.map(jnp.zeros_like, params)
    return jax.lax.scan(step, (params, still), jax.random.split(key, steps))[0][0]


def main() -> None:
    """Trains both, then decodes 8 series with 20 sample paths each."""
    keys = jax.random.split(jax.random.key(0), 5)
    target = window_process(Partial(predict, train(init(keys[0], 512), keys[1], 1500)), PATCH)
    draft = window_process(Partial(predict, train(init(keys[2], 64), keys[3], 3000)), PATCH)
    context = waves(keys[4], 8, CONTEXT)
    config = DecodeConfig(horizon=96, num_draft=4, num_paths=20)
    alone = functools.partial(decode, target=target, sigma=SIGMA, config=config)
    both = functools.partial(alone, draft=draft, rule=Block())
    for name, run in (("target only", alone), ("speculative", both)):
        jax.block_until_ready(run(keys[0], context))  # compiles
        start = time.perf_counter()
        paths, info = jax.block_until_ready(run(keys[0], context))
        took = 1000 * (time.perf_counter() - start)
        passes = float(info.target_passes.mean())
        print(f"{name:12} {paths.shape}: {passes:.2f} target passes per path, {took:.1f} ms")


if __name__ == "__main__":
    main()
