"""Golden vectors of PatchFM from the original PyTorch code, for `tests/models/test_patchfm.py`.

In an environment of its own (torch and stride-jax need not share one):

    pip install torch numpy einops huggingface_hub rotary-embedding-torch
    pip install --no-deps patchfm==3.2.0
    python tools/golden_patchfm.py tests/golden/patchfm.npz

No weights are downloaded. The original's own classes are built in small sizes (8 steps in a patch,
2 layers of width 16, feed-forward layers in multiples of 16) and every parameter is filled with
seeded random numbers. The file holds

- `patchfm/NAME`, the state dict of `PatchFM`;
- `history/i`, six histories `[T]` as they are given: whole patches, a short one, one with missing
  values, one far from zero, one longer than the 64 steps that the small model sees, and one shorter
  than a patch;
- `outputs/i`: the nine quantiles after each patch of the history, `[N, 8, 9]`;
- `median/i`: those of seven more patches, each after the medians of those before it were fed back,
  `[7, 8, 9]`, by a loop over the original's own modules;
- `nine/i`: the nine quantiles of 52 steps that the original's `Forecaster` returns, which feeds
  back nine paths, `[52, 9]`;
- `version` of the original, as text.
"""

import argparse
import functools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import rotary_embedding_torch
import torch
from patchfm.configs import model_config
from patchfm.inference import forecaster, modules

PATCH, WIDTH, HEADS, LAYERS, CONTEXT = 8, 16, 2, 2, 64
QUANTILES, MEDIAN, PATCHES, HORIZON = 9, 4, 7, 52


def original() -> tuple[Any, Any]:
    """The original's model and its forecaster, in small sizes with random parameters."""
    config = model_config.PatchFMConfig(
        max_seq_len=CONTEXT,
        patch_len=PATCH,
        d_model=WIDTH,
        n_heads=HEADS,
        n_layers_encoder=LAYERS,
        compile=False,
    )
    modules.FeedForward = functools.partial(modules.FeedForward, multiple_of=16)
    model = modules.PatchFM(config).eval()
    fill(model, 0)
    modules.PatchFM.from_pretrained = lambda name: model
    return model, forecaster.Forecaster(config)


def fill(model: torch.nn.Module, seed: int) -> None:
    """Random values for every parameter: kernels over the root of their inputs, scales near 1.

    The scales of the queries are larger, so that attention is not nearly even, and the outputs
    smaller, so that a path does not explode. The frequencies of the rotation are no parameters.
    """
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = rng.normal(size=tuple(value.shape))
            if value.ndim == 2:
                noise /= np.sqrt(value.shape[1])
            elif name.endswith("weight"):
                noise = 1 + 0.3 * noise
            else:
                noise *= 0.3
            if name.startswith("proj_output.") and not name.startswith("proj_output.hidden"):
                noise *= 0.7
            if name.endswith("per_dim_scale"):
                noise += 3
            if not name.endswith("freqs"):
                value.copy_(torch.from_numpy(noise.astype(np.float32)))


def histories() -> list[np.ndarray]:
    """Six histories, float32."""
    rng = np.random.default_rng(1)
    steps = np.arange(90)
    waves = 3 + np.sin(steps / 3) + 0.2 * rng.normal(size=90)
    trend = -20 + 0.5 * steps[:29] + rng.normal(size=29)
    gaps = 5 + 2 * rng.normal(size=61)
    # at the start, inside a patch, the first step of one, a whole patch and more, and at the end
    for place in slice(2), slice(15, 18), 21, slice(27, 41), slice(-2, None):
        gaps[place] = np.nan
    far = 1e4 + 300 * rng.normal(size=48)
    values = waves[:64], trend, gaps, far, waves, trend[:5]
    return [one.astype(np.float32) for one in values]


def padded(history: np.ndarray) -> torch.Tensor:
    """The last whole patches `[1, N, P]` of a history, as the forecaster makes them."""
    last = history[-CONTEXT:]
    front = -len(last) % PATCH
    whole = np.concatenate([np.repeat(last[:1], front), last])
    return torch.from_numpy(whole.reshape(1, -1, PATCH))


def one_pass(model: Any, patches: torch.Tensor) -> torch.Tensor:
    """The quantiles `[P, Q]` after the last of patches `[1, n, P]`, from the model's caches."""
    x = model.proj_embedding(model.revin(patches, mode="norm"))
    x = model.transformer_encoder(x)[:, -1:]
    out = model.revin(model.proj_output(x), mode="denorm")
    return out.reshape(PATCH, QUANTILES)


def rolled(model: Any, clear: Any, patches: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The quantiles after each patch of a history, and those of the median path after it."""
    outputs = []
    with torch.inference_mode():
        for count in range(1, patches.shape[1] + 1):
            clear()
            outputs.append(one_pass(model, patches[:, :count]).numpy())
        median = []
        for _ in range(PATCHES):
            fed = outputs[-1] if not median else median[-1]
            fed = torch.from_numpy(fed[:, MEDIAN].copy()).reshape(1, 1, PATCH)
            median.append(one_pass(model, fed).numpy())
    clear()
    return np.stack(outputs), np.stack(median)


def record(path: Path) -> None:
    """Builds, runs and writes."""
    model, forecast = original()
    arrays = {f"patchfm/{k}": v.numpy().copy() for k, v in model.state_dict().items()}
    for i, history in enumerate(histories()):
        arrays[f"history/{i}"] = history
        outputs, median = rolled(model, forecast.clear_cache, padded(history))
        arrays |= {f"outputs/{i}": outputs, f"median/{i}": median}
        _, nine = forecast(torch.from_numpy(history), forecast_horizon=HORIZON)
        arrays[f"nine/{i}"] = nine.numpy()
        print(i, np.abs(outputs).max(), np.abs(median).max(), np.abs(nine.numpy()).max())
    others = f"rotary-embedding-torch {version()}, torch {torch.__version__}"
    arrays["version"] = np.array(f"3.2.0, {others}")
    np.savez_compressed(path, **arrays)


def version() -> str:
    """The version of the package that rotates."""
    from importlib.metadata import version as installed

    return installed(rotary_embedding_torch.__name__)


def main() -> int:
    """Writes the file, unless there is one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    if args.out.exists():
        print(f"error: {args.out} exists; move it away.", file=sys.stderr)
        return 2
    record(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
