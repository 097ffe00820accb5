"""Makes a trained target deeper: after each block comes a new one that changes next to nothing.

    python tools/deepen.py zero_shot_target.safetensors runs/real.npy runs/deeper.safetensors

The deeper target forecasts as the trained one does, and training goes on from there. A new block
has random layers whose outputs begin at 0. Its two layer norms would still change what passes
through them, so their scale and bias are set to the mean std and mean of a token there, measured on
windows of the series.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.checkpoints.store import find_model, save_model
from stride_jax.decoding.keys import as_key
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.timer_xl import Params, TimerXL, init_params

WINDOWS = 64


def sample_windows(series: np.ndarray, steps: int, rng: np.random.Generator) -> jax.Array:
    """Windows of random columns, `[W, L, 1]`."""
    rows = rng.integers(0, len(series) - steps, WINDOWS)
    columns = rng.integers(0, series.shape[1], WINDOWS)
    cut = [series[row : row + steps, c] for row, c in zip(rows, columns, strict=True)]
    return jnp.asarray(np.stack(cut)[:, :, None])


def token_moments(checkpoint: Checkpoint, windows: jax.Array) -> list[tuple[float, float]]:
    """Mean and std over the width of a token after each block, averaged over the tokens."""
    module = TimerXL(checkpoint.model)
    _, state = module.apply({"params": checkpoint.params}, windows, capture_intermediates=True)

    def moments(number: int) -> tuple[float, float]:
        (out,) = state["intermediates"][f"block_{number}"]["__call__"]  # [B, N, D]
        return float(jnp.mean(out)), float(jnp.mean(jnp.std(out, axis=-1)))

    return [moments(number) for number in range(checkpoint.model.num_layers)]


def idle(block: Params, mean: float, std: float) -> Params:
    """A new block whose outputs are what goes in, for tokens of this mean and std."""
    width = block["norm1"]["scale"].shape
    norm = {"scale": jnp.full(width, std), "bias": jnp.full(width, mean)}
    zeros: Any = jax.tree.map(jnp.zeros_like, block)
    attention = block["attention"] | {"out": zeros["attention"]["out"]}
    changed = {"attention": attention, "ffn_out": zeros["ffn_out"], "norm1": norm, "norm2": norm}
    return block | changed


def deepened(checkpoint: Checkpoint, windows: jax.Array, seed: int) -> Checkpoint:
    """Twice as many blocks: a trained one, an idle one, and so on."""
    layers = checkpoint.model.num_layers
    model: TimerXLConfig = dataclasses.replace(checkpoint.model, num_layers=2 * layers)
    new = init_params(as_key(seed), model)
    params = {name: checkpoint.params.get(name, leaf) for name, leaf in new.items()}
    for number, (mean, std) in enumerate(token_moments(checkpoint, windows)):
        params[f"block_{2 * number}"] = checkpoint.params[f"block_{number}"]
        odd = f"block_{2 * number + 1}"
        params[odd] = idle(new[odd], mean, std)
    return checkpoint._replace(model=model, params=params)


def main() -> None:
    """Reads, writes, and says how much the forecasts moved."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("series", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    checkpoint = find_model(args.model)
    assert isinstance(checkpoint, Checkpoint)
    assert checkpoint.context_len is not None
    series = np.load(args.series).astype(np.float32)
    windows = sample_windows(series, checkpoint.context_len, np.random.default_rng(args.seed))
    deeper = deepened(checkpoint, windows, args.seed)
    before, after = (
        TimerXL(x.model).apply({"params": x.params}, windows)[0] for x in (checkpoint, deeper)
    )
    save_model(args.out, deeper)
    print(f"{args.out}: the means moved by {float(jnp.mean(jnp.abs(after - before))):.4f} stds")


if __name__ == "__main__":
    main()
