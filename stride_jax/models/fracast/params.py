"""Fracast-0's tensors by their names in the released file, strictly both ways."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from stride_jax.errors import InputError
from stride_jax.models.fracast.config import DECILES, FracastConfig
from stride_jax.models.tensors import (
    Params,
    Shapes,
    Tensor,
    num_layers,
    read_tensors,
    sizes,
)

TITLE = "Fracast-0"
RANKS = {
    "core.block.ffn.down.weight": 2,
    "core.block.dw_weight": 3,
    "core.periodic.proj.weight": 2,
    "core.scale.to_gb.weight": 2,
    "head.decoder_ffns.0.down.weight": 2,
    "head.out_proj.weight": 2,
    "head.queries": 2,
}
"""Tensors that the sizes are read off, and their axes."""


def table(config: FracastConfig) -> list[Tensor]:
    """Every tensor of the file of a config."""
    d, taps = config.d_model, config.kernel_size
    tensors: list[Tensor] = []

    def add(ours: str, theirs: str, *shape: int) -> None:
        tensors.append(Tensor(ours, shape, (theirs,)))

    def dense(ours: str, theirs: str, out: int, inputs: int) -> None:
        add(f"{ours}/kernel", f"{theirs}.weight", out, inputs)
        add(f"{ours}/bias", f"{theirs}.bias", out)

    def norm(ours: str, theirs: str) -> None:
        add(f"{ours}/scale", f"{theirs}.weight", d)

    def convolution(ours: str, theirs: str) -> None:
        add(f"{ours}/taps", f"{theirs}.dw_weight", d, 1, taps)
        add(f"{ours}/bias", f"{theirs}.dw_bias", d)

    def gated(ours: str, theirs: str, hidden: int) -> None:
        dense(f"{ours}/up", f"{theirs}.up", 2 * hidden, d)
        dense(f"{ours}/down", f"{theirs}.down", d, hidden)

    def block(ours: str, theirs: str) -> None:
        convolution(f"{ours}/convolution", theirs)
        dense(f"{ours}/pointwise", f"{theirs}.pw", d, d)
        gated(f"{ours}/ffn", f"{theirs}.ffn", config.d_ff)
        norm(f"{ours}/norm1", f"{theirs}.norm1")
        norm(f"{ours}/norm2", f"{theirs}.norm2")

    # The encoder: 2 + 5 features of a step, and sine and cosine of its phases.
    dense("encoder/in_proj", "core.in_proj", d, 7)
    dense("encoder/phase_proj", "core.periodic.proj", d, 2 * config.num_periods)
    dense("encoder/film", "core.scale.to_gb", 2 * d, 2 * config.scale_frequencies)
    block("encoder/block", "core.block")
    norm("encoder/norm", "core.norm")

    # The head.
    dense("head/summary", "head.summary_proj", d, 2 * d + 5)
    add("head/queries", "head.queries", config.patch_len, d)
    for i in range(config.head_layers):
        gated(f"head/ffn_{i}", f"head.decoder_ffns.{i}", config.head_d_ff)
        norm(f"head/norm_{i}", f"head.decoder_norms.{i}")
    for i in range(config.head_convolutions):
        convolution(f"head/convolution_{i}", f"head.fc_blocks.{i}")
        norm(f"head/convolution_norm_{i}", f"head.fc_blocks.{i}.norm")
    dense("head/future/in_proj", "head.future_conv.in_proj", d, 6)
    block("head/future/block", "head.future_conv.block")
    dense("head/future/out_proj", "head.future_conv.out_proj", d, d)
    dense("head/out_proj", "head.out_proj", len(config.levels), d)
    return tensors


def table_of(shapes: Shapes) -> list[Tensor]:
    """The table for the layers of a file, with the released sizes."""
    return table(_with_layers(shapes))


def _with_layers(shapes: Shapes) -> FracastConfig:
    """The released sizes with as many layers of the head as the names number."""
    return FracastConfig(
        head_layers=num_layers(shapes, "head.decoder_ffns."),
        head_convolutions=num_layers(shapes, "head.fc_blocks."),
    )


def read_config(shapes: Shapes) -> FracastConfig:
    """The sizes that the shapes tell; the window, the scales and the test are those released.

    Raises:
        InputError: a tensor that tells a size is missing or has another number of axes, or there
            are not nine quantiles.
    """
    read_off = sizes(TITLE, shapes, RANKS)
    patch_len, width = read_off["head.queries"]
    count = read_off["head.out_proj.weight"][0]
    if count != len(DECILES):
        raise InputError(
            f"head.out_proj.weight of {TITLE} has {count} quantiles, expected the {len(DECILES)} "
            "deciles .1 to .9."
        )
    return dataclasses.replace(
        _with_layers(shapes),
        patch_len=patch_len,
        d_model=width,
        d_ff=read_off["core.block.ffn.down.weight"][1],
        head_d_ff=read_off["head.decoder_ffns.0.down.weight"][1],
        kernel_size=read_off["core.block.dw_weight"][2],
        scale_frequencies=read_off["core.scale.to_gb.weight"][1] // 2,
        num_periods=read_off["core.periodic.proj.weight"][1] // 2,
    )


def read(arrays: Mapping[str, np.ndarray]) -> tuple[FracastConfig, Params]:
    """Config and parameters from the tensors of a file; see `Family.read`.

    Raises:
        InputError: tensors that are missing, too many, of another shape, or hold NaN; all named.
    """
    config = read_config({name: tuple(np.shape(array)) for name, array in arrays.items()})
    return config, read_tensors(TITLE, table(config), arrays)
