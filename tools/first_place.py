"""How often `maximal` accepts the first proposal of a pair, by the closed form.

    python tools/first_place.py runs/real.npy docs/results/zero_shot/first_place.json

The history is a window of the series of tools/make_pretraining.py, from their last rows, which the
training has not seen. With a gap g between the two means, in the target's stds and with the
correlation of its errors, a proposal is accepted with probability 2 Phi(-g / 2).
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.checkpoints.build import make_target
from stride_jax.checkpoints.covariances import load_covariance
from stride_jax.checkpoints.store import find_model
from stride_jax.data.unseen import unseen_windows
from stride_jax.decoding.base import PatchDistribution
from stride_jax.decoding.gaussian import acceptance
from stride_jax.decoding.scale import make_scale, whiten
from stride_jax.evaluation.results import write_rows

LENGTH, BATCH = 1024, 100
"""Steps of a history; histories that are forecast at a time."""


def histories(values: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Windows of random series `[T, C]`, `[W, L, 1]`, whole batches of them."""
    windows = unseen_windows(values, count, LENGTH, rng)
    kept: np.ndarray = windows[: len(windows) // BATCH * BATCH, :, None].astype(np.float32)
    return kept


def predictions(model: str, windows: np.ndarray) -> PatchDistribution:
    """Of the patch after each history, `[W, P]`."""
    process = make_target(find_model(model), "cached", None, 1)

    @jax.jit
    @jax.vmap
    def of_one(window: jax.Array) -> PatchDistribution:
        memory = process.prepare(window)
        nothing = jnp.zeros((0, process.patch_len, 1))
        found, _ = process.verify(memory, process.start(memory, 1), nothing)
        return jax.tree.map(lambda leaf: leaf[0, :, 0], found)

    parts = [of_one(windows[i : i + BATCH]) for i in range(0, len(windows), BATCH)]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("series", type=Path, help="[T, C] in a .npy file")
    parser.add_argument("out", type=Path)
    parser.add_argument("--target", default="zero_shot_target.safetensors")
    parser.add_argument("--draft", default="zero_shot_draft.safetensors")
    parser.add_argument("--windows", type=int, default=2000)
    args = parser.parse_args()
    windows = histories(np.load(args.series), args.windows, np.random.default_rng(3))
    target, draft = (predictions(model, windows) for model in (args.target, args.draft))
    errors, sigma = (draft.mean - target.mean)[..., None], jnp.exp(target.logvar / 2)[..., None]
    covariances = {"correlated": load_covariance("zero_shot"), "independent": None}
    rows = []
    for name, covariance in covariances.items():
        scale = None if covariance is None else make_scale(covariance, errors.shape[1:]).correlation
        gaps = jnp.linalg.norm(whiten(errors, sigma, scale), axis=(1, 2))
        accepted = float(jnp.mean(acceptance(gaps)))
        rows.append({"errors": name, "windows": len(windows), "accepted": accepted})
        rows[-1]["median gap"] = float(jnp.median(gaps))
        print(rows[-1])
    write_rows(args.out, rows)


if __name__ == "__main__":
    main()
