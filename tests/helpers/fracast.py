"""The recorded forecasts of the original Fracast-0, and ours beside them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from golden import GOLDEN
from safetensors.numpy import save_file

from stride_jax.models.fracast.config import FracastConfig
from stride_jax.models.fracast.process import make_process
from stride_jax.testing.parity import ParityErrors, parity_errors
from stride_jax.testing.parity import fracast_sizes as sizes_not_in_shapes

__all__ = ["CASES", "recorded", "sizes_not_in_shapes", "tensors", "tiny_file", "worst_errors"]

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


def worst_errors(config: FracastConfig, params, content, case: str) -> ParityErrors:
    """The errors of a recorded case."""
    expected = content[f"y_{case}"]
    blocks = expected.reshape(-1, config.patch_len, 1, len(config.levels))  # -> [3, P, 1, Q]
    process = make_process(config, params)
    return parity_errors(process, content[f"x_{case}"][:, None], blocks, config.median)


def tiny_file(
    path: Path, change: Callable[[dict[str, np.ndarray]], object] = lambda t: None
) -> str:
    """Writes the recorded small model as a `.safetensors` file, after a change; its path."""
    arrays = tensors(recorded("tiny"))
    change(arrays)
    save_file(arrays, path)
    return str(path)
