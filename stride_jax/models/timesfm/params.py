"""Tensor names of TimesFM 2.5 in the two files it comes in: google's, and that of transformers.

google/timesfm-2.5-200m-pytorch stacks query, key and value in one array;
google/timesfm-2.5-200m-transformers keeps them apart. The weights are the same. All sizes are read
off the shapes: the number of heads from the length of the norm of the queries, and the lengths of
the two heads by their 10 outputs per step.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from stride_jax.errors import InputError
from stride_jax.models.tensors import (
    Params,
    Shapes,
    Tensor,
    num_layers,
    read_tensors,
    share,
    sizes,
)
from stride_jax.models.timesfm.config import NUM_OUTPUTS, TimesFMConfig

TITLE = "TimesFM 2.5"
GOOGLE, TRANSFORMERS = "google", "transformers"
LAYERS = {GOOGLE: "stacked_xf.", TRANSFORMERS: "model.layers."}
"""Beginnings of the names of a layer, by layout."""

BLOCKS = {
    "tokenizer": {GOOGLE: "tokenizer", TRANSFORMERS: "model.input_ff_layer"},
    "point": dict.fromkeys(LAYERS, "output_projection_point"),
    "long": dict.fromkeys(LAYERS, "output_projection_quantiles"),
}
"""Residual blocks: our name, and the original's by layout."""

PARTS = {
    "hidden": {GOOGLE: "hidden_layer", TRANSFORMERS: "input_layer"},
    "output": dict.fromkeys(LAYERS, "output_layer"),
    "residual": dict.fromkeys(LAYERS, "residual_layer"),
}
"""Parts of a residual block."""

LAYER = {
    "attention/out/kernel": {
        GOOGLE: "attn.out.weight",
        TRANSFORMERS: "self_attn.o_proj.weight",
    },
    "attention/query_norm/scale": {
        GOOGLE: "attn.query_ln.scale",
        TRANSFORMERS: "self_attn.q_norm.weight",
    },
    "attention/key_norm/scale": {
        GOOGLE: "attn.key_ln.scale",
        TRANSFORMERS: "self_attn.k_norm.weight",
    },
    "attention/query_scale": {
        GOOGLE: "attn.per_dim_scale.per_dim_scale",
        TRANSFORMERS: "self_attn.scaling",
    },
    "before_attention/scale": {
        GOOGLE: "pre_attn_ln.scale",
        TRANSFORMERS: "input_layernorm.weight",
    },
    "after_attention/scale": {
        GOOGLE: "post_attn_ln.scale",
        TRANSFORMERS: "post_attention_layernorm.weight",
    },
    "before_ffn/scale": {
        GOOGLE: "pre_ff_ln.scale",
        TRANSFORMERS: "pre_feedforward_layernorm.weight",
    },
    "after_ffn/scale": {
        GOOGLE: "post_ff_ln.scale",
        TRANSFORMERS: "post_feedforward_layernorm.weight",
    },
    "ffn_in/kernel": {GOOGLE: "ff0.weight", TRANSFORMERS: "mlp.fc1.weight"},
    "ffn_out/kernel": {GOOGLE: "ff1.weight", TRANSFORMERS: "mlp.fc2.weight"},
}
"""Parts of a layer whose arrays are the same in both: our path, and the original's by layout."""


def tensors(config: TimesFMConfig, layout: str) -> list[Tensor]:
    """The table of a model in one of the two layouts."""
    d, ff, e = config.d_model, config.d_ff, config.head_width
    shapes = {
        "attention/out/kernel": (d, d),
        "attention/query_norm/scale": (e,),
        "attention/key_norm/scale": (e,),
        "attention/query_scale": (e,),
        "ffn_in/kernel": (ff, d),
        "ffn_out/kernel": (d, ff),
    }
    table = _residual("tokenizer", layout, 2 * config.token_len, d, d, biased=True)
    for i in range(config.num_layers):
        theirs, ours = f"{LAYERS[layout]}{i}.", f"layer_{i}/"
        names: tuple[str, ...] = (f"{theirs}attn.qkv_proj.weight",)
        shape = (3 * d, d)
        if layout == TRANSFORMERS:
            names = tuple(f"{theirs}self_attn.{part}_proj.weight" for part in "qkv")
            shape = (d, d)
        table.append(Tensor(f"{ours}attention/qkv/kernel", shape, names))
        table += [
            Tensor(ours + path, shapes.get(path, (d,)), (theirs + by_layout[layout],))
            for path, by_layout in LAYER.items()
        ]
    table += _residual("point", layout, d, d, config.patch_len * NUM_OUTPUTS)
    return table + _residual("long", layout, d, d, config.long_len * NUM_OUTPUTS)


def _residual(
    block: str, layout: str, inputs: int, hidden: int, outputs: int, *, biased: bool = False
) -> list[Tensor]:
    """The arrays of a residual block."""
    kernels = {
        "hidden": (hidden, inputs),
        "output": (outputs, hidden),
        "residual": (outputs, inputs),
    }
    table = []
    for part, shape in kernels.items():
        theirs, ours = f"{BLOCKS[block][layout]}.{PARTS[part][layout]}", f"{block}/{part}"
        table.append(Tensor(f"{ours}/kernel", shape, (f"{theirs}.weight",)))
        if biased:
            table.append(Tensor(f"{ours}/bias", shape[:1], (f"{theirs}.bias",)))
    return table


def _layout(shapes: Shapes) -> tuple[str, list[Tensor]]:
    """The layout that is nearest to a file, and its table for the layers of the file."""
    tables = {
        layout: tensors(TimesFMConfig(num_layers=num_layers(shapes, prefix)), layout)
        for layout, prefix in LAYERS.items()
    }
    return max(tables.items(), key=lambda item: share(item[1], shapes))


def table_of(shapes: Shapes) -> list[Tensor]:
    """The table of the nearest layout for the layers of a file."""
    return _layout(shapes)[1]


def read(arrays: Mapping[str, np.ndarray]) -> tuple[TimesFMConfig, Params]:
    """Config and parameters from a state dict in either layout.

    Args:
        arrays: by the original's names; float32 or bfloat16, which they keep. Kernels are views of
            them, except that query, key and value of the transformers layout are stacked.

    Raises:
        InputError: missing, extra or misshapen tensors, NaN, or a number of heads that does not
            fit; each named.
    """
    shapes = {name: tuple(np.shape(array)) for name, array in arrays.items()}
    layout, _ = _layout(shapes)
    config = _read_config(shapes, layout)
    return config, read_tensors(TITLE, tensors(config, layout), arrays)


def _read_config(shapes: Shapes, layout: str) -> TimesFMConfig:
    """Every size that the shapes tell."""
    first = f"{LAYERS[layout]}0."
    tokens = f"{BLOCKS['tokenizer'][layout]}.{PARTS['residual'][layout]}.weight"
    point, long = (f"{BLOCKS[block][layout]}.output_layer.weight" for block in ("point", "long"))
    query = first + LAYER["attention/query_norm/scale"][layout]
    ffn = first + LAYER["ffn_in/kernel"][layout]
    read_off = sizes(TITLE, shapes, {tokens: 2, point: 2, long: 2, query: 1, ffn: 2})
    width, heads = read_off[tokens][0], read_off[query][0]
    for name, size, unit in (
        (tokens, read_off[tokens][1], 2),
        (point, read_off[point][0], NUM_OUTPUTS),
        (long, read_off[long][0], NUM_OUTPUTS),
    ):
        if size == 0 or size % unit:
            raise InputError(
                f"not a file of {TITLE}: {name} has shape {read_off[name]}, and {size} is not a "
                f"multiple of {unit}."
            )
    if heads == 0 or width % heads:
        raise InputError(
            f"not a file of {TITLE}: {query} has {heads} numbers, which heads of {tokens} "
            f"{read_off[tokens]} cannot have; the width must be a multiple of it."
        )
    try:
        return TimesFMConfig(
            token_len=read_off[tokens][1] // 2,
            patch_len=read_off[point][0] // NUM_OUTPUTS,
            long_len=read_off[long][0] // NUM_OUTPUTS,
            d_model=width,
            num_heads=width // heads,
            d_ff=read_off[ffn][0],
            num_layers=num_layers(shapes, LAYERS[layout]),
        )
    except InputError as error:
        names = f"{tokens}, {point} and {query}"
        raise InputError(f"the shapes of {names} do not fit: {error}") from error
