"""Tensor names of PatchFM 3.2 in vilhess/PatchFM and vilhess/PatchFM-Leakage.

All sizes are read off the shapes; the number of heads from the length of the norm of the queries.
The frequencies of the rotation, which the file holds for each layer, are no parameters: they are
checked and left out.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from stride_jax.errors import InputError
from stride_jax.models.patchfm.config import LEVELS, PatchFMConfig
from stride_jax.models.rotary import frequencies
from stride_jax.models.tensors import (
    Params,
    Shapes,
    Tensor,
    affine,
    layer_norm,
    num_layers,
    read_tensors,
    sizes,
)

TITLE = "PatchFM 3.2"
LAYERS = "transformer_encoder.layers."
EMBEDDING, HEAD = "proj_embedding.residual_layer.weight", "proj_output.residual_layer.weight"
QUERY, FFN = f"{LAYERS}0.attn.q_norm.weight", f"{LAYERS}0.ff.w1.weight"
FREQUENCIES = ".attn.rope.freqs"
"""End of the name of the frequencies of a layer."""


def tensors(config: PatchFMConfig) -> list[Tensor]:
    """The table of a model."""
    d, ff, e, p = config.d_model, config.d_ff, config.head_width, config.patch_len
    table = _residual("embedding", "proj_embedding", p, config.d_hidden, d)
    for i in range(config.num_layers):
        theirs, ours = f"{LAYERS}{i}.", f"layer_{i}/"
        qkv = tuple(f"{theirs}attn.W{part}" for part in "QKV")
        table += [
            *layer_norm(f"{ours}norm1", f"{theirs}ln1", d),
            *affine(f"{ours}attention/qkv", qkv, (d, d)),
            *affine(f"{ours}attention/out", (f"{theirs}attn.out_proj",), (d, d)),
            Tensor(f"{ours}attention/query_norm/scale", (e,), (f"{theirs}attn.q_norm.weight",)),
            Tensor(f"{ours}attention/key_norm/scale", (e,), (f"{theirs}attn.k_norm.weight",)),
            Tensor(
                f"{ours}attention/query_scale", (e,), (f"{theirs}attn.per_dim_scale.per_dim_scale",)
            ),
            *layer_norm(f"{ours}norm2", f"{theirs}ln2", d),
            Tensor(
                f"{ours}gate_up/kernel",
                (ff, d),
                (f"{theirs}ff.w1.weight", f"{theirs}ff.w3.weight"),
            ),
            Tensor(f"{ours}down/kernel", (d, ff), (f"{theirs}ff.w2.weight",)),
        ]
    table += layer_norm("norm", "transformer_encoder.norm", d)
    return table + _residual("head", "proj_output", d, config.d_hidden, p * len(LEVELS))


def _residual(ours: str, theirs: str, inputs: int, hidden: int, outputs: int) -> list[Tensor]:
    """The arrays of a residual block."""
    shapes = {
        "hidden": (hidden, inputs),
        "output": (outputs, hidden),
        "residual": (outputs, inputs),
    }
    return [
        tensor
        for part, shape in shapes.items()
        for tensor in affine(f"{ours}/{part}", (f"{theirs}.{part}_layer",), shape)
    ]


def table_of(shapes: Shapes) -> list[Tensor]:
    """The table for the layers of a file."""
    return tensors(PatchFMConfig(num_layers=num_layers(shapes, LAYERS)))


def read(arrays: Mapping[str, np.ndarray]) -> tuple[PatchFMConfig, Params]:
    """Config and parameters from a state dict.

    Args:
        arrays: by the original's names; float32 or bfloat16, which they keep. Kernels are views of
            them, except that query, key and value, and the two gates, are stacked.

    Raises:
        InputError: missing, extra or misshapen tensors, NaN, a number of heads or of quantiles that
            does not fit, or a rotation with other frequencies; each named.
    """
    config = _read_config({name: tuple(np.shape(array)) for name, array in arrays.items()})
    turning = [f"{LAYERS}{i}{FREQUENCIES}" for i in range(config.num_layers)]
    expected = frequencies(config.head_width // 2)
    for name in turning:
        if name in arrays:
            _check_frequencies(name, np.asarray(arrays[name], np.float32), expected)
    parameters = {name: array for name, array in arrays.items() if name not in turning}
    return config, read_tensors(TITLE, tensors(config), parameters)


def _check_frequencies(name: str, stored: np.ndarray, expected: np.ndarray) -> None:
    """Raises InputError for frequencies that are not those of the model, to bfloat16 precision."""
    if stored.shape != expected.shape or not np.allclose(stored, expected, rtol=1e-2, atol=0):
        raise InputError(
            f"not a file of {TITLE}: {name} holds {stored.ravel()[:4]} of shape {stored.shape}, "
            f"expected 10000 ** (-i / {len(expected)}) for i from 0 to {len(expected) - 1}."
        )


def _read_config(shapes: Shapes) -> PatchFMConfig:
    """Every size that the shapes tell."""
    read_off = sizes(TITLE, shapes, {EMBEDDING: 2, HEAD: 2, QUERY: 1, FFN: 2})
    (width, patch_len), outputs = read_off[EMBEDDING], read_off[HEAD][0]
    head_width = read_off[QUERY][0]
    if outputs != patch_len * len(LEVELS):
        raise InputError(
            f"not a file of {TITLE}: {HEAD} has shape {read_off[HEAD]}, expected "
            f"{patch_len * len(LEVELS)} rows, {len(LEVELS)} quantiles of each of {patch_len} steps."
        )
    if head_width == 0 or width % head_width:
        raise InputError(
            f"not a file of {TITLE}: {QUERY} has {head_width} numbers, which heads of {EMBEDDING} "
            f"{read_off[EMBEDDING]} cannot have; the width must be a multiple of it."
        )
    try:
        return PatchFMConfig(
            patch_len=patch_len,
            d_model=width,
            num_heads=width // head_width,
            d_ff=read_off[FFN][0],
            num_layers=num_layers(shapes, LAYERS),
        )
    except InputError as error:
        raise InputError(f"the shapes of {EMBEDDING} and {QUERY} do not fit: {error}") from error
