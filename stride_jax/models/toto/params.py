"""Tensor names of Toto 1.0 in Datadog/Toto-Open-Base-1.0, in the two layouts of its gated layers.

Most sizes are read off the shapes. The number of heads is in no shape but that of the frequencies
of the rotation, which a file may hold beside its parameters; without them a head has 64 numbers, as
released. That the last layer is the one across variables is in no shape either.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from stride_jax.errors import InputError
from stride_jax.models.tensors import (
    Params,
    Shapes,
    Tensor,
    affine,
    num_layers,
    read_tensors,
    share,
    sizes,
)
from stride_jax.models.toto.config import HEAD_WIDTH, TotoConfig

TITLE = "Toto 1.0"
LAYERS = "model.transformer.layers."
EMBEDDING = "model.patch_embed.projection.weight"
FREQUENCIES = "model.transformer.rotary_emb.freqs"
MIXTURE = "model.output_distribution.df.weight"

FUSED, PLAIN = ("mlp.0.w12", "mlp.0.w3"), ("mlp.0", "mlp.2")
"""The two gated layers: as released, and as the original has them without its fused kernels."""
HEADS = {"df": "df", "loc": "loc_proj", "scale": "scale_proj", "weights": "mixture_weights"}
"""The four heads: our name, and the original's."""


def tensors(config: TotoConfig, gated: tuple[str, str] = FUSED) -> list[Tensor]:
    """The table of a model."""
    d, ff, p, m = config.d_model, config.d_ff, config.patch_len, config.num_components
    table = affine("embedding", "model.patch_embed.projection", (d, p))
    for i in range(config.num_layers):
        theirs, ours = f"{LAYERS}{i}.", f"layer_{i}/"
        table += [
            Tensor(f"{ours}{part}/scale", (d,), (f"{theirs}{part}.scale",))
            for part in ("norm1", "norm2")
        ]
        for path, name, shape in (
            ("attention/qkv", "attention.wQKV", (3 * d, d)),
            ("attention/out", "attention.wO", (d, d)),
            ("gate_up", gated[0], (2 * ff, d)),
            ("down", gated[1], (d, ff)),
        ):
            table += affine(f"{ours}{path}", f"{theirs}{name}", shape)
    table += affine("unembedding", "model.unembed", (p * d, d))
    for ours, theirs in HEADS.items():
        table += affine(ours, f"model.output_distribution.{theirs}", (m, d))
    return table


def _layout(shapes: Shapes) -> tuple[tuple[str, str], list[Tensor]]:
    """The layout that is nearest to a file, and its table for the layers of the file."""
    count = num_layers(shapes, LAYERS)
    config = TotoConfig(num_layers=count, space_every=count)
    tables = {gated: tensors(config, gated) for gated in (FUSED, PLAIN)}
    return max(tables.items(), key=lambda item: share(item[1], shapes))


def table_of(shapes: Shapes) -> list[Tensor]:
    """The table of the nearest layout for the layers of a file."""
    return _layout(shapes)[1]


def read(
    arrays: Mapping[str, np.ndarray], num_heads: int | None = None, space_every: int | None = None
) -> tuple[TotoConfig, Params]:
    """Config and parameters from a state dict in either layout.

    Args:
        arrays: by the original's names; float32 or bfloat16, which they keep. Kernels are views of
            them.
        num_heads: H; None to read it off the frequencies of the rotation, or without them for heads
            of 64 numbers, as released.
        space_every: the last of so many layers is across variables; None for the last layer alone,
            as released.

    Raises:
        InputError: missing, extra or misshapen tensors, NaN, or a width that so many heads cannot
            have; each named.
    """
    arrays = dict(arrays)
    shapes = {name: tuple(np.shape(array)) for name, array in arrays.items()}
    frequencies = arrays.pop(FREQUENCIES, None)
    gated, _ = _layout(shapes)
    ffn = f"{LAYERS}0.{gated[1]}.weight"
    read_off = sizes(TITLE, shapes, {EMBEDDING: 2, ffn: 2, MIXTURE: 2})
    width, patch_len = read_off[EMBEDDING]
    head, source = HEAD_WIDTH, "heads of 64 numbers, as released"
    if frequencies is not None:
        head, source = 2 * np.size(frequencies), f"the frequencies {FREQUENCIES}"
    if num_heads is None and (head == 0 or width % head):
        raise InputError(
            f"not a file of {TITLE}: {EMBEDDING} {read_off[EMBEDDING]} has a width that heads of "
            f"{head} numbers cannot have ({source}); it must be a multiple."
        )
    count = num_layers(shapes, LAYERS)
    if count < 2:
        raise InputError(
            f"not a file of {TITLE}: it has one layer, and the last one is across variables; no "
            "layer reads the past."
        )
    every = count if space_every is None else space_every
    if every < 1 or count % every:
        raise InputError(f"num_layers {count} must be a multiple of space_every {every}.")
    try:
        config = TotoConfig(
            patch_len=patch_len,
            d_model=width,
            num_heads=width // head if num_heads is None else num_heads,
            d_ff=read_off[ffn][1],
            num_layers=count,
            space_every=every,
            num_components=read_off[MIXTURE][0],
        )
    except InputError as error:
        names = f"{EMBEDDING}, {ffn} and {MIXTURE}"
        raise InputError(f"the shapes of {names} do not fit: {error}") from error
    return config, read_tensors(TITLE, tensors(config, gated), arrays)
