"""The recorded forecasts of the original Fracast-0, and ours beside them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from golden import GOLDEN
from safetensors.numpy import save_file

from stride_jax.models.fracast.config import FracastConfig
from stride_jax.models.fracast.process import FracastProcess, make_process

CASES = ("long", "short", "gaps", "still", "far")


def recorded(part: str) -> dict[str, np.ndarray]:
    """Everything under `tiny/` or `real/` in the file, without that prefix."""
    with np.load(GOLDEN / "fracast.npz", allow_pickle=False) as file:
        names = [name for name in file.files if name.startswith(f"{part}/")]
        return {name.removeprefix(f"{part}/"): file[name] for name in names}


def tensors(content: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The recorded state dict."""
    prefix = "param/"
    return {k.removeprefix(prefix): v for k, v in content.items() if k.startswith(prefix)}


def sizes_not_in_shapes(content: dict[str, np.ndarray]) -> dict[str, Any]:
    """Fields of the config that only the original's settings tell."""
    given = json.loads(str(content["config"]))
    return {
        "context_len": given["W"],
        "num_scales": given["n_stages"],
        "future_layers": given["head_future_conv_layers"],
        "future_seed": given["head_future_conv_seed"],
        "phase_bins": given["head_phase_bins"],
    }


@jax.jit
def verified(process, memory, proposals):
    """The quantiles of the patches after 0, 1, ..., K proposals of one variable, in one pass."""
    predictions, _ = process.verify(memory, process.start(memory, 1), proposals)
    return predictions.reported[:, :, 0]  # [K + 1, P, Q]


@jax.jit
def next_patch(process, state):
    """One step of the decode: the quantiles of a patch, and the state with its median."""
    predictions, state = process.verify(state.window, state, jnp.zeros((0, process.patch_len, 1)))
    return predictions.reported[0, :, 0], process.commit(state, predictions.mean, jnp.int32(1))


def worst_errors(config: FracastConfig, params, content, case: str) -> tuple[float, float]:
    """The largest errors over the range of the history: of one pass, and of the decode.

    The pass verifies the original's own medians, so that it does not add up errors. A history that
    stands still has no range; there errors are over its level.
    """
    process: FracastProcess = make_process(config, params)
    history, expected = content[f"x_{case}"], content[f"y_{case}"]
    size = process.patch_len
    blocks = expected.reshape(-1, size, len(config.levels))  # [3 P, Q] -> [3, P, Q]
    memory = process.prepare(jnp.asarray(history)[:, None])
    proposals = jnp.asarray(blocks[:-1, :, config.median])[..., None]
    one_pass = np.asarray(verified(process, memory, proposals))
    state, decoded = process.start(memory, len(blocks)), []
    for _ in blocks:
        patch, state = next_patch(process, state)
        decoded.append(np.asarray(patch))
    wide = float(np.nanmax(history) - np.nanmin(history)) or float(np.abs(history).max())
    return tuple(
        float(np.abs(ours - blocks).max() / wide) for ours in (one_pass, np.stack(decoded))
    )


def tiny_file(
    path: Path, change: Callable[[dict[str, np.ndarray]], object] = lambda t: None
) -> str:
    """Writes the recorded small model as a `.safetensors` file, after a change; its path."""
    arrays = tensors(recorded("tiny"))
    change(arrays)
    save_file(arrays, path)
    return str(path)
