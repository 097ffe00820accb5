"""Records forecasts of the original Fracast-0 for the parity tests, in a separate environment.

    python -m venv other && other/bin/pip install torch numpy safetensors
    other/bin/pip install --no-deps fracast==0.1.0
    other/bin/python tools/golden_fracast.py tests/golden/fracast.npz

The file holds the package's version; `real/x_CASE` and `real/y_CASE`, a history and the quantiles
`[3 P, 9]` of its three next blocks with the released float32 weights, which are not in the file;
and `tiny/...`, the same of a small configuration of the original's code (`tiny/config`) whose
parameters (`tiny/param/NAME`) are all drawn at random, those that start at zero or one too.
"""

import argparse
import json
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from fracast import FracastModel
from fracast._core.model import build_from_cfg

TINY = {
    "d_model": 8,
    "W": 64,
    "horizon": 6,
    "quantiles": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
    "level_widths": [64],
    "n_stages": 4,
    "kernel_size": 3,
    "ffn_mult": 1.5,
    "scale_cond_dim": 4,
    "periodic_topk": 2,
    "periodic_alpha": 0.05,
    "head_d_ff": 10,
    "head_layers": 2,
    "head_fc_layers": 1,
    "head_future_conv": True,
    "head_future_conv_layers": 3,
    "head_future_conv_seed": 16,
    "head_phase_bins": 8,
    "future_queries": 3,
    "future_patch": 2,
}
BLOCKS = 3


def histories(window: int, period: int) -> dict[str, np.ndarray]:
    """Histories of one variable around a window's length: long, short, with gaps, still, far."""
    rng = np.random.default_rng(16)

    def waves(steps: int) -> np.ndarray:
        t = np.arange(steps)
        season = np.sin(2 * np.pi * t / period) + 0.3 * np.sin(2 * np.pi * t / (3 * period))
        return season + 0.2 * rng.normal(size=steps)

    gaps = waves(window // 2)
    gaps[rng.random(len(gaps)) < 0.1] = np.nan
    gaps[5:12] = np.nan
    still = np.full(window // 4, 7.0)
    far = 10_000 + 300 * waves(window + window // 8)
    cases = {
        "long": waves(window + window // 8),
        "short": waves(window // 5),
        "gaps": gaps,
        "still": still,
        "far": far,
    }
    return {name: values.astype(np.float32) for name, values in cases.items()}


def record(model: FracastModel, period: int) -> dict[str, np.ndarray]:
    """The histories and their forecasts of three blocks."""
    content = {}
    for name, values in histories(model.context_length, period).items():
        content[f"x_{name}"] = values
        content[f"y_{name}"] = model.forecast(values, horizon=BLOCKS * model.horizon)
    return content


def tiny_model() -> tuple[FracastModel, dict[str, np.ndarray]]:
    """A small model of the original's code with every parameter random, and its tensors."""
    torch.manual_seed(0)
    config = {"model": TINY, "pyramid": {"ratios": []}}
    core, head = build_from_cfg(config)
    state = {f"core.{name}": value for name, value in core.state_dict().items()}
    state |= {f"head.{name}": value for name, value in head.state_dict().items()}
    with torch.no_grad():
        for name, value in state.items():
            scale = value.shape[-1] ** -0.5 if value.ndim > 1 else 0.2
            value.copy_(scale * torch.randn(value.shape) + (1.0 if "norm" in name else 0.0))
        # Forecasts stay near the range of the history, as those of a trained model do.
        state["head.out_proj.weight"].mul_(0.1)
        state["head.out_proj.bias"].add_(0.5)
    return FracastModel(core, head, config), {name: x.numpy() for name, x in state.items()}


def main() -> None:
    """Writes the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    tiny, state = tiny_model()
    real = FracastModel.from_pretrained(weights="fp32")
    content = {"version": np.array(metadata.version("fracast")), "tiny/config": json.dumps(TINY)}
    content |= {f"tiny/param/{name}": value for name, value in state.items()}
    content |= {f"tiny/{name}": value for name, value in record(tiny, period=12).items()}
    content |= {f"real/{name}": value for name, value in record(real, period=24).items()}
    np.savez_compressed(args.out, **content)
    print(f"{args.out}: {args.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
