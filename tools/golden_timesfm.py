"""Golden vectors of TimesFM 2.5 from the original PyTorch code, for `tests/models/test_timesfm.py`.

In an environment of its own (torch and stride-jax need not share one):

    pip install torch numpy safetensors huggingface_hub transformers
    pip install --no-deps timesfm==3.0.2
    python tools/golden_timesfm.py tests/golden/timesfm.npz

No weights are downloaded. The original's own classes are built in small sizes (4 steps in a token,
16 in a patch, 2 layers of width 16) and every parameter is filled with seeded random numbers: its
norm scales start at zero, which would switch all blocks off. The file holds

- `google/NAME`, the state dict of `TimesFM_2p5_200M_torch_module`;
- `transformers/NAME`, the same weights in `TimesFm2_5ModelForPrediction`;
- `series` and `pad`: three series `[3, 48]` and their steps of left padding;
- `outputs`, `spread`, `rolled`: what `decode` returned: outputs at every token `[3, 12, 16, 10]`,
  the long quantile head at the last token `[3, 48, 10]`, and the autoregressive patches
  `[3, 7, 16, 10]`, each predicted from the original's cache;
- `spread_all`: that head at every token `[3, 12, 48, 10]`;
- `transformers_forecast`: the one patch that the other implementation forecasts, `[2, 16, 10]`;
- `history/i` with NaN, and `option/NAME/i`: forecasts `[40, 10]` of the original's wrapper with
  one option on at a time, and with all;
- `version` of the original, as text.
"""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import timesfm
import torch
import transformers
from timesfm.timesfm_2p5 import timesfm_2p5_torch as original

TOKEN, PATCH, LONG, WIDTH, HEADS, HIDDEN, LAYERS = 4, 16, 48, 16, 2, 24, 2
OUTPUTS, STEPS, CONTEXT, HORIZON = 10, 8, 64, 40

FULL = original.TimesFM_2p5_200M_torch_module.config


def _block(block: Any, inputs: int, outputs: int) -> Any:
    sizes = {"input_dims": inputs, "hidden_dims": WIDTH, "output_dims": outputs}
    return dataclasses.replace(block, **sizes)


class Small(original.TimesFM_2p5_200M_torch_module):
    """The original in small sizes."""

    config = dataclasses.replace(
        FULL,
        input_patch_len=TOKEN,
        output_patch_len=PATCH,
        output_quantile_len=LONG,
        tokenizer=_block(FULL.tokenizer, 2 * TOKEN, WIDTH),
        stacked_transformers=dataclasses.replace(
            FULL.stacked_transformers,
            num_layers=LAYERS,
            transformer=dataclasses.replace(
                FULL.stacked_transformers.transformer,
                model_dims=WIDTH,
                hidden_dims=HIDDEN,
                num_heads=HEADS,
            ),
        ),
        output_projection_point=_block(FULL.output_projection_point, WIDTH, PATCH * OUTPUTS),
        output_projection_quantiles=_block(FULL.output_projection_quantiles, WIDTH, LONG * OUTPUTS),
    )


def fill(model: torch.nn.Module, seed: int) -> None:
    """Random values for every parameter: kernels over the root of their inputs, scales near 1."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = rng.normal(size=tuple(value.shape))
            if value.ndim == 2:
                noise /= np.sqrt(value.shape[1])
            elif "ln" in name:
                noise = 1 + 0.3 * noise
            else:
                noise *= 0.5
            value.copy_(torch.from_numpy(noise.astype(np.float32)))


def transformers_model(google: dict[str, np.ndarray]) -> Any:
    """The same weights in the model of `transformers`."""
    config = transformers.TimesFm2_5Config(
        patch_length=TOKEN,
        context_length=LONG,
        horizon_length=PATCH,
        num_hidden_layers=LAYERS,
        hidden_size=WIDTH,
        intermediate_size=HIDDEN,
        head_dim=WIDTH // HEADS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        output_quantile_len=LONG,
    )
    model = transformers.TimesFm2_5ModelForPrediction(config).eval()
    parts = {
        "input_layernorm": "pre_attn_ln",
        "post_attention_layernorm": "post_attn_ln",
        "pre_feedforward_layernorm": "pre_ff_ln",
        "post_feedforward_layernorm": "post_ff_ln",
    }
    state = {}
    for name in model.state_dict():
        theirs = name.replace("input_layer.", "hidden_layer.")
        theirs = theirs.replace("model.input_ff_layer", "tokenizer")
        theirs = theirs.replace("model.layers", "stacked_xf")
        theirs = theirs.replace("self_attn.o_proj", "attn.out").replace("mlp.fc1", "ff0")
        theirs = theirs.replace("mlp.fc2", "ff1")
        theirs = theirs.replace("self_attn.q_norm.weight", "attn.query_ln.scale")
        theirs = theirs.replace("self_attn.k_norm.weight", "attn.key_ln.scale")
        theirs = theirs.replace("self_attn.scaling", "attn.per_dim_scale.per_dim_scale")
        for part, other in parts.items():
            theirs = theirs.replace(f"{part}.weight", f"{other}.scale")
        if "_proj.weight" in theirs:
            layer, part = theirs.split(".self_attn.")
            stacked = google[f"{layer}.attn.qkv_proj.weight"]
            state[name] = stacked.reshape(3, WIDTH, WIDTH)["qkv".index(part[0])]
        else:
            state[name] = google[theirs]
    model.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in state.items()}, strict=True)
    return model


def histories() -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Three series with padding, and three histories with missing values."""
    rng = np.random.default_rng(1)
    steps = np.arange(LONG)
    waves = 3 + np.sin(steps / 3) + 0.2 * rng.normal(size=LONG)
    trend = -20 + 0.5 * steps + rng.normal(size=LONG)
    constant = np.full(LONG, 7.0)
    series = np.stack([waves, trend, constant]).astype(np.float32)
    pad = np.array([0, 10, 0])  # two tokens of padding, and half of the third
    series[1, : pad[1]] = 0
    gappy = rng.normal(size=50).astype(np.float32)
    gappy[:5], gappy[20:23] = np.nan, np.nan
    positive = np.abs(rng.normal(size=37)).astype(np.float32)
    large = (1e4 + 300 * rng.normal(size=80)).astype(np.float32)
    return series, pad, [gappy, positive, large]


def options() -> dict[str, dict[str, bool]]:
    """Settings of the wrapper, by name."""
    off = {
        "force_flip_invariance": False,
        "infer_is_positive": False,
        "fix_quantile_crossing": False,
        "use_continuous_quantile_head": False,
        "normalize_inputs": False,
    }
    single = {name: {**off, name: True} for name in off}
    return {"none": off, **single, "all": dict.fromkeys(off, True)}


def record(path: Path) -> None:
    """Builds, runs and writes."""
    model = Small().eval()
    fill(model, 0)
    arrays = {f"google/{k}": v.numpy().copy() for k, v in model.state_dict().items()}
    google = {k.removeprefix("google/"): v for k, v in arrays.items()}
    series, pad, missing = histories()
    values = torch.from_numpy(series)
    masks = torch.from_numpy(np.arange(LONG)[None] < pad[:, None])
    outputs, spread, rolled = model.decode(STEPS * PATCH, values, masks)
    arrays |= {"series": series, "pad": pad, "outputs": outputs.numpy()}
    arrays |= {"spread": spread.numpy(), "rolled": rolled.numpy()}

    # The long head at every token is that at the last token of a shorter context.
    at_tokens = [
        model.decode(PATCH, values[:, :end], masks[:, :end])[1].numpy()
        for end in range(TOKEN, LONG + 1, TOKEN)
    ]
    arrays["spread_all"] = np.stack(at_tokens, axis=1)

    other = transformers_model(google)
    arrays |= {f"transformers/{k}": v.numpy() for k, v in other.state_dict().items()}
    inputs = [values[0], values[1, pad[1] :]]
    plain = {"force_flip_invariance": False, "truncate_negative": False}
    other.config.use_continuous_quantile_head = False
    with torch.no_grad():
        forecast = other(past_values=inputs, **plain).full_predictions
    arrays["transformers_forecast"] = forecast.numpy()[:, :PATCH]

    # The wrapper, which reads histories with missing values and changes the outputs.
    wrapper = original.TimesFM_2p5_200M_torch(torch_compile=False)
    wrapper.model = model
    for name, settings in options().items():
        wrapper.compile(
            timesfm.ForecastConfig(max_context=CONTEXT, max_horizon=HORIZON, **settings)
        )
        _, forecasts = wrapper.forecast(HORIZON, [one.copy() for one in missing])
        for i, forecast in enumerate(forecasts):
            arrays[f"option/{name}/{i}"] = forecast
    for i, one in enumerate(missing):
        arrays[f"history/{i}"] = one
    others = f"transformers {transformers.__version__}, torch {torch.__version__}"
    arrays["version"] = np.array(f"3.0.2, {others}")
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
