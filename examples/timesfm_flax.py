"""Speculative decoding of another library's model: TimesFM 2.5 in Flax, as it comes from PyPI.

    pip install -e ".[examples]"
    python examples/timesfm_flax.py

(a minute on 2 CPU cores). The released weights need a download of 900 MB, so two models
of that architecture are made small and trained here, on the weather in the package: 4 layers of
width 128, and 1 of 32 that proposes what the other verifies. Nothing of TimesFM is changed but its
sizes; the released model would join by the same function `predict`.
"""

import dataclasses
import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.tree_util import Partial
from timesfm.flax import util
from timesfm.timesfm_2p5.timesfm_2p5_flax import TimesFM_2p5_200M_flax_module as TimesFM

from stride_jax import Block, DecodeConfig, decode, window_process
from stride_jax.data import embedded_series

PATCH, CONTEXT = 32, 512


class SmallTimesFM(TimesFM):
    """TimesFM 2.5 with other sizes."""

    def __init__(self, num_layers: int, width: int) -> None:
        full = TimesFM.config
        sizes = {"model_dims": width, "hidden_dims": width, "num_heads": 4}
        layer = dataclasses.replace(full.stacked_transformers.transformer, **sizes)
        dims = {"hidden_dims": width}
        self.config = dataclasses.replace(
            full,
            tokenizer=dataclasses.replace(full.tokenizer, **dims, output_dims=width),
            stacked_transformers=dataclasses.replace(
                full.stacked_transformers, num_layers=num_layers, transformer=layer
            ),
            output_projection_point=dataclasses.replace(
                full.output_projection_point, **dims, input_dims=width
            ),
            output_projection_quantiles=dataclasses.replace(
                full.output_projection_quantiles, **dims, input_dims=width
            ),
        )
        super().__init__()


def laws(model: Any, series: jax.Array) -> jax.Array:
    """`[B, N P]` -> `[B, N, P]`: after each patch, the mean of the next one."""
    patches = series.reshape(len(series), -1, PATCH)
    real = jnp.zeros(patches.shape, bool)  # nothing is masked
    zero = jnp.zeros(len(series))
    _, (_, mean, std) = util.scan_along_axis(
        lambda carry, x: util.update_running_stats(*carry, *x), (zero,) * 3, (patches, real), axis=1
    )
    normed = util.revin(patches, mean, std, reverse=False)
    layers, (batch, count) = model.x, patches.shape[:2]
    slots = jnp.zeros((layers, batch, count, model.h, model.hd))
    none = jnp.zeros((layers, batch), jnp.int32)
    cache = util.DecodeCache(next_index=none, num_masked=none, key=slots, value=slots)
    (_, _, out, _), _ = model(normed, real, cache)
    out = util.revin(out, mean, std, reverse=True)  # [B, N, 128 * 10]
    return out.reshape(*out.shape[:2], -1, 10)[:, :, :PATCH, 0]  # channel 0 is the mean


def predict(graph: Any, params: Any, window: jax.Array) -> jax.Array:
    """`[L, 1]` -> the mean of the next patch, `[P, 1]`: all that the decoder needs to know."""
    return laws(nnx.merge(graph, params, copy=True), window.T)[0, -1][:, None]


def trained(model: SmallTimesFM, series: np.ndarray, steps: int) -> Partial:
    """Adam on the squared error of every next patch of random windows of `series [T]`."""
    graph, params = nnx.split(model)
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, steps))

    def loss(params: Any, batch: jax.Array) -> jax.Array:
        made = laws(nnx.merge(graph, params), batch[:, :-PATCH])
        return jnp.mean(jnp.square(made - batch[:, PATCH:].reshape(made.shape)))

    @jax.jit
    def step(params: Any, state: Any, batch: jax.Array) -> tuple[Any, Any]:
        updates, state = optimizer.update(jax.grad(loss)(params, batch), state)
        return optax.apply_updates(params, updates), state

    state, rng = optimizer.init(params), np.random.default_rng(0)
    for _ in range(steps):
        first = rng.integers(0, len(series) - CONTEXT - PATCH, 16)
        batch = series[first[:, None] + np.arange(CONTEXT + PATCH)[None]]
        params, state = step(params, state, batch)
    return Partial(functools.partial(predict, graph), params)


def main() -> None:
    """Trains both, then decodes 8 stretches of the last 30 %, with 4 sample paths each."""
    table = embedded_series()
    series = table.values[:, table.names.index("TEMP")]
    series = ((series - series.mean()) / series.std()).astype(np.float32)
    cut = int(0.7 * len(series))
    target = window_process(trained(SmallTimesFM(4, 128), series[:cut], 300), PATCH)
    draft = window_process(trained(SmallTimesFM(1, 32), series[:cut], 600), PATCH)
    first = np.linspace(cut, len(series) - CONTEXT, 8).astype(int)
    context = series[first[:, None] + np.arange(CONTEXT)[None]][..., None]  # [8, L, 1]
    config = DecodeConfig(horizon=8 * PATCH, num_draft=3, num_paths=4)
    alone = functools.partial(decode, target=target, sigma=0.3, config=config)
    both = functools.partial(alone, draft=draft, rule=Block())
    for name, run in (("target only", alone), ("speculative", both)):
        jax.block_until_ready(run(jax.random.key(0), context))  # compiles
        start = time.perf_counter()
        paths, info = jax.block_until_ready(run(jax.random.key(0), context))
        took = 1000 * (time.perf_counter() - start)
        passes = float(info.target_passes.mean())
        print(f"{name:12} {paths.shape}: {passes:.2f} target passes per path, {took:.1f} ms")


if __name__ == "__main__":
    main()
