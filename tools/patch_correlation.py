"""The correlation of a target's errors within a patch, as the factor of a covariance.

    python tools/patch_correlation.py runs/real.npy stride_jax/assets/zero_shot_covariance.npy

(two minutes on a CPU core) lets a causal target with a Gaussian head forecast every patch of
windows from the series of tools/make_pretraining.py, their last fifth, and of as many synthetic
ones that no training draws. Errors over the std that the target predicted are clipped at 4, so that
no outlier dominates. The factor has rows of length 1: it multiplies the std of each step.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.checkpoints.build import make_target
from stride_jax.checkpoints.store import find_model
from stride_jax.data.synthetic_series import draw_windows
from stride_jax.data.unseen import unseen_windows
from stride_jax.decoding.base import Process
from stride_jax.decoding.keys import as_key

LENGTH, FIRST, LARGEST = 1024, 4, 4.0
"""Steps of a window; patches of it that are no error's; the largest error, in stds."""
BATCH = 50


def real_windows(values: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Windows of the last fifth of the series `[T, C]`, standardised, `[count, LENGTH]`."""
    windows = unseen_windows(values, count, LENGTH, rng)
    centred = windows - windows.mean(axis=1, keepdims=True)
    standard: np.ndarray = centred / windows.std(axis=1, keepdims=True)
    return standard.astype(np.float32)


def errors(target: Process, windows: np.ndarray) -> np.ndarray:
    """Errors of all patches but the first ones over their predicted stds, `[n, P]`."""
    size = target.patch_len

    @jax.jit
    def of_batch(batch: jax.Array) -> jax.Array:
        def one(series: jax.Array) -> jax.Array:
            patches = series.reshape(-1, size, 1)  # [L] -> [N, P, 1]
            memory = target.prepare(patches[0])
            state = target.start(memory, len(patches))
            predictions, _ = target.verify(memory, state, patches[1:])
            std = jnp.exp(predictions.logvar[:-1] / 2)
            return ((patches[1:] - predictions.mean[:-1]) / std)[FIRST - 1 :, :, 0]

        return jax.vmap(one)(batch)

    whole = len(windows) // BATCH * BATCH
    parts = [of_batch(windows[i : i + BATCH]) for i in range(0, whole, BATCH)]
    return np.concatenate([np.asarray(part, np.float64).reshape(-1, size) for part in parts])


def main() -> None:
    """Fits, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("series", type=Path, help="[T, C] in a .npy file")
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="zero_shot_target.safetensors")
    parser.add_argument("--windows", type=int, default=1000, help="of each of the two sources")
    parser.add_argument("--seed", type=int, default=2**20)
    args = parser.parse_args()
    target = make_target(find_model(args.model), "cached", None, 1)
    key, rng = as_key(args.seed), np.random.default_rng(args.seed)
    real = real_windows(np.load(args.series), args.windows, rng)
    drawn = draw_windows(key, args.windows, LENGTH)[..., 0]
    each = [errors(target, windows) for windows in (real, np.asarray(drawn))]
    z = np.clip(np.concatenate(each), -LARGEST, LARGEST)
    covariance = z.T @ z / len(z)
    std = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(std, std)
    np.save(args.out, np.linalg.cholesky(correlation).astype(np.float32))
    print(f"{len(z)} patches; the first step and those after it:", np.round(correlation[0], 2))


if __name__ == "__main__":
    main()
