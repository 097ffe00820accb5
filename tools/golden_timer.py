"""Golden vectors of Timer from the original PyTorch code, for `tests/models/test_timer.py`.

In an environment of its own, with Python below 3.13 (the original's `generate` needs transformers
4.40, which torch and stride-jax need not share):

    pip install torch sktime==1.2.0 "transformers==4.40.2"
    python tools/golden_timer.py tests/golden/timer.npz

No weights are downloaded. `TimerForPrediction` of sktime 1.2.0, a copy of the code of
thuml/timer-base-84m (revision 70077a7), is built in a small size (8 steps in a patch, 2 layers of
width 32, 8 heads) and every parameter is filled with seeded random numbers. The file holds

- `timer/NAME`, its state dict;
- `series`, `[2, 48]`, and `mean` and `std` `[2, 1]` of torch, the std unbiased;
- `outputs`: the next patch after every patch of the normalised series, `[2, 6, 8]`;
- `generated`: `generate(normalised, max_new_tokens=32, revin=False)`, four patches `[2, 4, 8]`,
  each after the first from the original's cache;
- `released`: the first patch of `generate(series, max_new_tokens=8)` with its default
  normalisation, `[2, 8]`;
- `version` of the original, as text.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import sktime
import torch
import transformers
from sktime.libs.timer.configuration_timer import TimerConfig
from sktime.libs.timer.modeling_timer import TimerForPrediction

PATCH, WIDTH, HIDDEN, LAYERS, HEADS, STEPS = 8, 32, 48, 2, 8, 48


def small_model(seed: int) -> TimerForPrediction:
    """The original in a small size, with random values for every parameter."""
    config = TimerConfig(
        input_token_len=PATCH,
        output_token_lens=[PATCH],
        hidden_size=WIDTH,
        intermediate_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
    )
    model = TimerForPrediction(config).eval()
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = rng.normal(size=tuple(value.shape))
            if value.ndim == 2:
                noise /= np.sqrt(value.shape[1])
            elif "norm" in name and name.endswith("weight"):
                noise = 1 + 0.3 * noise
            else:
                noise *= 0.3
            value.copy_(torch.from_numpy(noise.astype(np.float32)))
    return model


def record(path: Path) -> None:
    """Builds, runs and writes."""
    model, rng = small_model(0), np.random.default_rng(1)
    steps = np.arange(STEPS)
    waves = 3 + np.sin(steps / 3) + 0.2 * rng.normal(size=STEPS)
    trend = -20 + 0.5 * steps + rng.normal(size=STEPS)
    series = torch.from_numpy(np.stack([waves, trend]).astype(np.float32))
    mean, std = series.mean(dim=-1, keepdim=True), series.std(dim=-1, keepdim=True)
    normal = (series - mean) / std
    with torch.no_grad():
        hidden = model.model(input_ids=normal, use_cache=False, return_dict=True)
        outputs = model.lm_heads[0](hidden.last_hidden_state)
        generated = model.generate(normal, max_new_tokens=4 * PATCH, revin=False)
        released = model.generate(series, max_new_tokens=PATCH)
    others = f"transformers {transformers.__version__}, torch {torch.__version__}"
    arrays = {f"timer/{name}": value.numpy() for name, value in model.state_dict().items()}
    arrays |= {"series": series.numpy(), "mean": mean.numpy(), "std": std.numpy()}
    arrays |= {"outputs": outputs.numpy(), "released": released.numpy()[:, -PATCH:]}
    arrays["generated"] = generated.numpy()[:, -4 * PATCH :].reshape(2, 4, PATCH)
    arrays["version"] = np.array(f"in sktime {sktime.__version__}, {others}")
    np.savez_compressed(path, **arrays)


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
