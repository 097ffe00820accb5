"""What depth adds to a compiled decoder: work for the passes over it, but no kernels."""

import dataclasses
from typing import Any

import jax
import pytest
from helpers.tools import load_tool
from helpers.toys import CONTEXT, SIGMA, TIMER_XL, timer_xl

from stride_jax.decoding.processes import cached_process
from stride_jax.decoding.speculative import decode
from stride_jax.decoding.types import DecodeConfig
from stride_jax.models import init_params
from stride_jax.models.cached import CachedTimerXL


@pytest.fixture(scope="module")
def tool():
    """tools/compile_times.py as a module."""
    return load_tool("compile_times")


def compiled_text(layers: int) -> str:
    """The compiled decode of a target of so many layers."""
    config = dataclasses.replace(TIMER_XL, num_layers=layers)
    params = init_params(jax.random.key(0), config)
    target = cached_process(CachedTimerXL(config), params, config.patch_len, norm="causal")
    sizes = {"sigma": SIGMA, "config": DecodeConfig(6, 2)}

    def run(key, target, draft):
        return decode(key, CONTEXT, target=target, draft=draft, **sizes)

    return jax.jit(run).lower(jax.random.key(0), target, timer_xl()).compile().as_text()


@pytest.mark.slow
def test_depth_adds_few_kernels(tool: Any) -> None:
    """A constant of each layer would give each its own kernels, seconds of compilation a layer."""
    shallow, deep = (compiled_text(layers) for layers in (2, 8))
    assert tool.num_kernels(deep) < 1.25 * tool.num_kernels(shallow)
    assert deep.count(" fusion(") > 1.5 * shallow.count(" fusion(")  # it is deeper


def test_kernels_of_other_names_are_one(tool: Any) -> None:
    """The count above would see two kernels where there is one, or one where there are two."""
    head = "%fused_computation.{0} (param_0.{0}: f32[3]) -> f32[3] {{"
    kernel = head + "\n  %x.{0} = {1} %param_0.{0}\n}}"
    assert tool.num_kernels("\n\n".join(kernel.format(n, "f32[3]") for n in (1, 22))) == 1
    assert tool.num_kernels("\n\n".join(kernel.format(1, size) for size in ("f32", "s32"))) == 2
