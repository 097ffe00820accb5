"""Golden vectors of Toto 1.0 from the original PyTorch code, for `tests/models/test_toto.py`.

In an environment of its own (torch and stride-jax need not share one):

    pip install torch numpy einops jaxtyping rotary-embedding-torch huggingface_hub safetensors
    pip install pandas pydantic toolz tqdm typing_extensions lightning
    pip install --no-deps gluonts toto-ts==0.2.0
    python tools/golden_toto.py tests/golden/toto.npz

No weights are downloaded. The original's own `Toto` is built in small sizes (8 steps in a patch, 2
layers of width 32, the second one across variables, a mixture of 3) and every parameter is filled
with seeded random numbers, which float16 holds, so that the file is small. The file holds

- `toto/NAME`, the state dict of `Toto` (float32), with the frequencies that a released file may
  hold beside the parameters;
- for each case, `CASE/series [C, T]` and `CASE/mask [C, T]` (False for padding and for missing
  values, which are 0), as they are before the original pads them to whole patches;
- `CASE/df`, `loc`, `scale` and `weights [C, N, P, M]`: the mixture after each patch of a full pass
  over the padded series, before it is moved by `center` and `spread [C, N]`, and `CASE/mean
  [C, N, P]`, its mean in the units of the series;
- `CASE/log_prob [C, N, P]` of the values `CASE/values [C, N, P]` under it;
- `CASE/generated [C, 8 P]`: `generate_mean` with `use_kv_cache=False`;
- `version` of the original, as text.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from toto.data.util.dataset import MaskedTimeseries, pad_array
from toto.inference.forecaster import TotoForecaster
from toto.model.toto import Toto

PATCH, WIDTH, HEADS, HIDDEN, LAYERS, COMPONENTS, STEPS = 8, 32, 2, 64, 2, 3, 8


def build() -> Toto:
    """The original in small sizes."""
    return Toto(
        patch_size=PATCH,
        stride=PATCH,
        embed_dim=WIDTH,
        num_layers=LAYERS,
        num_heads=HEADS,
        mlp_hidden_dim=HIDDEN,
        dropout=0.0,
        spacewise_every_n_layers=LAYERS,
        spacewise_first=False,
        scaler_cls="<class 'model.scaler.CausalPatchStdMeanScaler'>",
        output_distribution_classes=["<class 'model.distribution.MixtureOfStudentTsOutput'>"],
        output_distribution_kwargs={"k_components": COMPONENTS},
        use_memory_efficient_attention=False,
    ).eval()


def fill(model: torch.nn.Module, seed: int) -> None:
    """Random values for every parameter: kernels over the root of their inputs, scales near 1."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = rng.normal(size=tuple(value.shape))
            if value.ndim == 2:
                noise /= np.sqrt(value.shape[1])
            elif name.endswith("scale"):
                noise = 1 + 0.3 * noise
            else:
                noise *= 0.5
            value.copy_(torch.from_numpy(noise.astype(np.float16).astype(np.float32)))


def cases() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Series `[C, T]` and masks: one and three variables, padding, missing values, an offset."""
    rng = np.random.default_rng(1)
    steps = np.arange(48)
    wave = 3 + np.sin(steps / 3) + 0.2 * rng.normal(size=48)
    several = np.stack([wave, 1e3 + 40 * rng.normal(size=48), np.cumsum(rng.normal(size=48))])
    gappy, mask = several[:, 5:].copy(), np.ones((3, 43), bool)
    mask[0, 20:23], mask[1, :9], mask[2, -1] = False, False, False
    gappy[~mask] = 0
    series = {
        "one": (wave[None], None),
        "padded": (wave[None, :43], None),
        "constant": (np.full((1, 24), 7.0), None),
        "several": (several, None),
        "missing": (gappy, mask),
    }
    return {
        name: (x.astype(np.float32), np.ones(x.shape, bool) if seen is None else seen)
        for name, (x, seen) in series.items()
    }


def record_case(model: Toto, series: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """The full pass at all patches, and the autoregressive mean path."""
    backbone, shape = model.model, series.shape
    values, seen = torch.from_numpy(series), torch.from_numpy(mask)
    padded, real = pad_array(values, PATCH)[None], pad_array(seen, PATCH)[None]
    ids = torch.zeros(padded.shape, dtype=torch.int)
    # The original clamps by the statistics of the context, which is the whole series here.
    out = backbone(padded, real, ids, scaling_prefix_length=padded.shape[-1])
    mixture, parts = out.distribution, out.distribution.component_distribution
    whole = TotoForecaster.create_affine_transformed(mixture, out.loc, out.scale)
    points = whole.mean + 2 * torch.from_numpy(
        np.random.default_rng(2).normal(size=tuple(whole.mean.shape)).astype(np.float32)
    )
    patches = (shape[0], -1, PATCH)
    recorded = {"series": series, "mask": mask}
    for name, value in (
        ("df", parts.df),
        ("loc", parts.loc),
        ("scale", parts.scale),
        ("weights", mixture.mixture_distribution.probs),
    ):
        recorded[name] = value.reshape(*patches, COMPONENTS).numpy()
    recorded |= {
        "center": out.loc.reshape(patches)[..., 0].numpy(),
        "spread": out.scale.reshape(patches)[..., 0].numpy(),
        "mean": whole.mean.reshape(patches).numpy(),
        "values": points.reshape(patches).numpy(),
        "log_prob": whole.log_prob(points).reshape(patches).numpy(),
    }
    inputs = MaskedTimeseries(
        series=values,
        padding_mask=seen,
        id_mask=torch.zeros(shape, dtype=torch.int),
        timestamp_seconds=torch.zeros(shape, dtype=torch.int),
        time_interval_seconds=torch.ones(shape[0], dtype=torch.int),
    )
    path = TotoForecaster(backbone).forecast(inputs, STEPS * PATCH, use_kv_cache=False).mean
    return recorded | {"generated": path[0].numpy()}


def record(path: Path) -> None:
    """Builds, runs and writes."""
    model = build()
    fill(model, 0)
    arrays = {f"toto/{k}": v.numpy().copy() for k, v in model.state_dict().items()}
    freqs = model.model.transformer.rotary_emb.freqs
    arrays["toto/model.transformer.rotary_emb.freqs"] = freqs.numpy().copy()
    with torch.no_grad():
        for name, (series, mask) in cases().items():
            found = record_case(model, series, mask)
            arrays |= {f"{name}/{k}": v for k, v in found.items()}
    arrays["version"] = np.array(f"0.2.0, torch {torch.__version__}")
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
