"""Tensor names of Timer in thuml/timer-base-84m.

All sizes but one are read off the shapes. The number of heads is in no shape: the released model
has 8. It is not the layout of OpenLTM's Timer-XL, which the converter of this project reads.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from stride_jax.errors import InputError
from stride_jax.models.tensors import (
    Params,
    Shapes,
    Tensor,
    layer_norm,
    num_layers,
    read_tensors,
    sizes,
)
from stride_jax.models.timer.config import TimerConfig

TITLE = "Timer 84M"
LAYERS = "model.layers."
EMBEDDING, HEAD = "model.embed_layer.emb.weight", "lm_heads.0.weight"
FFN = f"{LAYERS}0.ffn_layer.up_proj.weight"
NUM_HEADS = 8


def tensors(config: TimerConfig) -> list[Tensor]:
    """The table of a model."""
    d, ff, p = config.d_model, config.d_ff, config.patch_len
    table = [Tensor("embedding/kernel", (d, p), (EMBEDDING,))]
    for i in range(config.num_layers):
        theirs, ours = f"{LAYERS}{i}.", f"layer_{i}/"

        def names(kind: str, parts: tuple[str, ...], start: str = theirs) -> tuple[str, ...]:
            return tuple(f"{start}{part}.{kind}" for part in parts)

        qkv = tuple(f"self_attn.{part}_proj" for part in "qkv")
        gate_up = ("ffn_layer.gate_proj", "ffn_layer.up_proj")
        table += [
            Tensor(f"{ours}attention/qkv/kernel", (d, d), names("weight", qkv)),
            Tensor(f"{ours}attention/qkv/bias", (d,), names("bias", qkv)),
            Tensor(f"{ours}attention/out/kernel", (d, d), names("weight", ("self_attn.o_proj",))),
            Tensor(f"{ours}gate_up/kernel", (ff, d), names("weight", gate_up)),
            Tensor(f"{ours}down/kernel", (d, ff), names("weight", ("ffn_layer.down_proj",))),
        ]
        for part in ("norm1", "norm2"):
            table += layer_norm(f"{ours}{part}", f"{theirs}{part}", d)
    return [*table, *layer_norm("norm", "model.norm", d), Tensor("head/kernel", (p, d), (HEAD,))]


def table_of(shapes: Shapes) -> list[Tensor]:
    """The table for the layers of a file."""
    return tensors(TimerConfig(num_layers=num_layers(shapes, LAYERS)))


def read(
    arrays: Mapping[str, np.ndarray], num_heads: int = NUM_HEADS
) -> tuple[TimerConfig, Params]:
    """Config and parameters from a state dict.

    Args:
        arrays: by the original's names; float32 or bfloat16, which they keep. Kernels are views of
            them, except that query, key and value, and the two gates, are stacked.
        num_heads: H, which no shape tells.

    Raises:
        InputError: missing, extra or misshapen tensors, NaN, or a width that so many heads cannot
            have; each named.
    """
    shapes = {name: tuple(np.shape(array)) for name, array in arrays.items()}
    read_off = sizes(TITLE, shapes, {EMBEDDING: 2, FFN: 2})
    width, patch_len = read_off[EMBEDDING]
    try:
        config = TimerConfig(
            patch_len=patch_len,
            d_model=width,
            num_heads=num_heads,
            d_ff=read_off[FFN][0],
            num_layers=num_layers(shapes, LAYERS),
        )
    except InputError as error:
        raise InputError(
            f"the shape {(width, patch_len)} of {EMBEDDING} does not fit: {error}"
        ) from error
    return config, read_tensors(TITLE, tensors(config), arrays)
