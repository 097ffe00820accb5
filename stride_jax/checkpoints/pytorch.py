"""PyTorch state dicts of the original (and of OpenLTM's Timer-XL) in and out.

The table of names, both ways; `stride-jax convert IN OUT` uses it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from stride_jax.checkpoints.files import read_arrays, stored_model
from stride_jax.errors import InputError
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.timer_xl import Params

ATTENTION = {
    "attention.query_projection": "attention/query",
    "attention.key_projection": "attention/key",
    "attention.value_projection": "attention/value",
    "attention.out_projection": "attention/out",
    "conv1": "ffn_in",
    "conv2": "ffn_out",
    "norm1": "norm1",
    "norm2": "norm2",
}
"""Sub-modules of a block: the original's name, and ours."""


BIAS_TABLE = "attention.inner_attention.attn_bias.emb.weight"


WRAPS = {"_orig_mod", "module"}
"""Parts that compiled and data-parallel modules put into names, in any place and order."""


ONLY_OURS = "only_stride_jax."
"""In front of a field that the original has not: an empty array of that name, which makes a strict
load of the original fail and say why."""


def inexpressible(config: TimerXLConfig) -> list[str]:
    """`field=value` for each field that makes a model another function than the original's."""
    fields = {
        "instance_norm": config.instance_norm == "causal",
        "covariate_mask": config.covariate and config.covariate_mask == "causal",
        "variable_stride": config.variable_stride is not None,
        "max_patches": config.max_patches is not None,
        "output_patches": config.output_patches > 1,
        "anchor": config.anchor == "last",
    }
    return [f"{name}={getattr(config, name)}" for name, differs in fields.items() if differs]


def _name_pairs(config: TimerXLConfig) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The original's array names -> `(our path, the original's shape)`."""
    d, ff, p = config.d_model, config.d_ff, config.patch_len
    pairs: dict[str, tuple[str, tuple[int, ...]]] = {}

    def linear(theirs: str, ours: str, shape: tuple[int, ...]) -> None:
        pairs[f"{theirs}.weight"] = (f"{ours}/kernel", shape)
        pairs[f"{theirs}.bias"] = (f"{ours}/bias", shape[:1])

    def norm(theirs: str, ours: str) -> None:
        pairs[f"{theirs}.weight"] = (f"{ours}/scale", (d,))
        pairs[f"{theirs}.bias"] = (f"{ours}/bias", (d,))

    linear("embedding", "embedding", (d, p))
    for layer in range(config.num_layers):
        theirs, ours = f"blocks.attn_layers.{layer}", f"block_{layer}"
        bias_shape = (2, config.num_heads)
        pairs[f"{theirs}.{BIAS_TABLE}"] = (f"{ours}/attention/variable_bias", bias_shape)
        for their_part, our_part in ATTENTION.items():
            if our_part.startswith("norm"):
                norm(f"{theirs}.{their_part}", f"{ours}/{our_part}")
            else:
                shape = {"ffn_in": (ff, d, 1), "ffn_out": (d, ff, 1)}.get(our_part, (d, d))
                linear(f"{theirs}.{their_part}", f"{ours}/{our_part}", shape)
    norm("blocks.norm", "norm")
    for name in ("head",) if config.head == "mean" else ("head_mean", "head_logvar"):
        linear(name, name, (p * config.output_patches, d))
    return pairs


def _read_config(arrays: Mapping[str, np.ndarray], settings: dict[str, Any]) -> TimerXLConfig:
    """Reads every dimension off the arrays."""
    layers = {
        int(m[1]) for m in (re.match(r"blocks\.attn_layers\.(\d+)\.", n) for n in arrays) if m
    }
    gaussian = "head_mean.weight" in arrays or "head_logvar.weight" in arrays
    conv1, table = "blocks.attn_layers.0.conv1.weight", f"blocks.attn_layers.0.{BIAS_TABLE}"
    problems = []
    for name, rank in (("embedding.weight", 2), (conv1, 3), (table, 2)):
        if name not in arrays:
            problems.append(f"missing {name}")
        elif np.ndim(arrays[name]) != rank:
            problems.append(f"{name} has shape {np.shape(arrays[name])}, expected {rank} axes")
    if problems:
        raise InputError(
            f"not a Timer-XL state dict of the original: {'; '.join(problems)}; "
            f"it holds {', '.join(sorted(arrays)[:5])}, ..."
        )
    width, patch_len = arrays["embedding.weight"].shape
    try:
        return TimerXLConfig(
            patch_len=patch_len,
            d_model=width,
            num_heads=arrays[table].shape[1],
            d_ff=arrays[conv1].shape[0],
            num_layers=max(layers) + 1,
            head="gaussian" if gaussian else "mean",
            **settings,
        )
    except InputError as error:
        shapes = ", ".join(f"{n} {arrays[n].shape}" for n in ("embedding.weight", table, conv1))
        raise InputError(f"the shapes of {shapes} do not fit: {error}") from error


def load_pytorch(
    path_or_arrays: str | Path | Mapping[str, np.ndarray],
    *,
    activation: Literal["relu", "gelu"] = "relu",
    instance_norm: Literal["window"] | None = "window",
    covariate: bool = False,
) -> tuple[TimerXLConfig, Params]:
    """Reads a state dict of the original's target or draft.

    Width, layers, heads, patch length and the kind of head are read off the arrays; what arrays
    cannot say is given by the keywords.

    Args:
        path_or_arrays: a `.pth` (extra `torch`), `.safetensors` or `.npz` file, or the arrays by
            the original's names. The parts `module` and `_orig_mod` of names are dropped.
        activation: of the feed-forward layers.
        instance_norm: window, as the original's `use_norm`, or None.
        covariate: the original's covariate mask.

    Returns:
        `(config, params)` for `TimerXL(config).apply({"params": params}, x)`; float32.

    Raises:
        InputError: a missing, extra or misshapen array, each named; an unreadable file.
    """
    settings = {"activation": activation, "instance_norm": instance_norm, "covariate": covariate}
    if isinstance(path_or_arrays, Mapping):
        arrays = dict(path_or_arrays)
        return from_arrays(arrays, settings)
    arrays, meta = read_arrays(Path(path_or_arrays))
    config, params = from_arrays(only_weights(arrays) if meta else arrays, settings)
    if meta and stored_model(Path(path_or_arrays), meta) != config:
        raise InputError(
            f"{path_or_arrays} was written by stride-jax with another config than the keywords "
            "say; read it with load_model."
        )
    return config, params


def only_weights(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of a file of ours without those that only say what the original cannot express."""
    return {name: array for name, array in arrays.items() if not name.startswith(ONLY_OURS)}


def _unwrapped(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays by their names without `WRAPS`.

    Raises:
        InputError: two of them then have the same name.
    """
    sources: dict[str, str] = {}
    for name in arrays:
        plain = ".".join(part for part in name.split(".") if part not in WRAPS)
        if plain in sources:
            raise InputError(f"{sources[plain]} and {name} are the same array twice; drop one.")
        sources[plain] = name
    return {plain: arrays[name] for plain, name in sources.items()}


def from_arrays(
    arrays: dict[str, np.ndarray], settings: dict[str, Any]
) -> tuple[TimerXLConfig, Params]:
    """Config and parameters from arrays by the original's names.

    Args:
        arrays: see `load_pytorch`.
        settings: fields of the config that the arrays do not tell.

    Raises:
        InputError: a missing, extra or misshapen array, each named.
    """
    arrays = _unwrapped(arrays)
    config = _read_config(arrays, settings)
    pairs = _name_pairs(config)
    problems = [f"missing {name}" for name in pairs if name not in arrays]
    problems += [f"unexpected {name}" for name in arrays if name not in pairs]
    problems += [
        f"{name} has shape {tuple(arrays[name].shape)}, expected {shape}"
        for name, (_, shape) in pairs.items()
        if name in arrays and tuple(arrays[name].shape) != shape
    ]
    if problems:
        raise InputError("state dict does not fit a Timer-XL: " + "; ".join(problems) + ".")
    params: Params = {}
    for name, (path, _) in pairs.items():
        value = np.asarray(arrays[name], np.float32)
        if path.endswith("/kernel"):
            value = value.reshape(value.shape[:2]).T  # [out, in(, 1)] -> [in, out]
        *parents, leaf = path.split("/")
        node = params
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    # on the device once: numpy arrays would be copied there by every call of a jitted decoder
    return config, jax.device_put(params)


def to_pytorch(config: TimerXLConfig, params: Params) -> dict[str, np.ndarray]:
    """Parameters by the original's names and shapes, float32; the inverse of `load_pytorch`.

    Raises:
        InputError: the original would load them and compute another function; the fields of the
            config that it cannot express are named.
    """
    if fields := inexpressible(config):
        raise InputError(
            f"the original cannot express {', '.join(fields)}: it would load these weights and "
            "forecast something else. save_model writes a file for stride-jax that says so. "
            "(variable_stride makes no difference to a model of one variable; there, pass "
            "dataclasses.replace(config, variable_stride=None).)"
        )
    return arrays_by_name(config, params)


def arrays_by_name(config: TimerXLConfig, params: Params) -> dict[str, np.ndarray]:
    """Parameters by the original's names, also where the original cannot express the config."""
    arrays = {}
    for name, (path, shape) in _name_pairs(config).items():
        value: Any = params
        for part in path.split("/"):
            value = value[part]
        value = np.asarray(value, np.float32)
        # [in, out] -> [out, in(, 1)]
        arrays[name] = np.ascontiguousarray(value.T if path.endswith("/kernel") else value)
        arrays[name] = arrays[name].reshape(shape)
    return arrays
