"""Decoders of untrained pairs as programs that are compiled ahead of time, for any device.

A program is a function and the shapes of its arguments: nothing is computed to build it. The parts
of a round are told apart by models that cost nothing, see `FreeProcess`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.checkpoints.build import (
    make_pair,
    make_target,
)
from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.checkpoints.pair import Pair
from stride_jax.decoding.autoregressive import roll_process
from stride_jax.decoding.base import Process, Rule
from stride_jax.decoding.batching import over_lanes
from stride_jax.decoding.checks import Inputs
from stride_jax.decoding.draft_length import Fixed
from stride_jax.decoding.linear_draft import linear_draft
from stride_jax.decoding.rounds import Model
from stride_jax.decoding.rules import Several, parse_rule
from stride_jax.decoding.speculative import _speculate
from stride_jax.decoding.types import DecodeConfig
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.timer_xl import init_params
from stride_jax.types import PatchDistribution

PATCH_LEN, CONTEXT, HORIZON = 96, 16, 35
"""Steps of a patch; patches of the context and of the forecast."""
DRAFT_FACTOR = 0.25
"""Width of a draft that is a model of its own, over that of the target."""


@dataclass(frozen=True)
class Setting:
    """A pair and how it decodes.

    Attributes:
        layers: of the target.
        d_model: D of the target.
        num_vars: C.
        batch: B, series decoded together.
        num_draft: K.
        draft: `autoregressive` or `multi-patch` for a model of its own, `linear`, or a draft that
            needs no training, see `load_pair`.
        draft_layers: layers of the draft where it is a model of its own.
        rule: the acceptance rule, as text for `parse_rule`, or `several` for two chains.
        dtype: of the computation of both models.
        least_lanes: see `DecodeConfig`; 2 as on a GPU, where steps of a draft are written out too.
    """

    layers: int = 8
    d_model: int = 1024
    num_vars: int = 1
    batch: int = 1
    num_draft: int = 8
    draft: str = "autoregressive"
    draft_layers: int = 1
    rule: str = "maximal"
    dtype: Literal["float32", "bfloat16"] = "float32"
    least_lanes: Literal[1, 2] = 2


class Program(NamedTuple):
    """A function to compile.

    Attributes:
        function: takes `args`.
        args: pytrees of `jax.ShapeDtypeStruct`.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]

    def compile(self, *shardings: Any, **options: Any) -> Any:
        """The program compiled for the devices of shardings, and with options of the compiler.

        There is one sharding for each argument, or for each array of it in its structure.
        """
        placed = jax.tree.map(
            lambda sharding, arg: jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), arg
            ),
            shardings,
            self.args,
        )
        lowered = jax.jit(self.function).lower(*placed)
        return lowered.compile(compiler_options=options)


# --- the programs of a setting -------------------------------------------------------------------


def plain_decode(setting: Setting) -> Program:
    """The target alone, cached: `(inputs, target) -> forecast`."""

    def run(inputs: Inputs, target: Any) -> jax.Array:
        forecast: jax.Array = roll_process(inputs, target, config=_sizes(setting, 0))[0]
        return forecast

    return Program(run, (_inputs(setting), build(setting).target))


def speculative_decode(
    setting: Setting, *, free_target: bool = False, free_draft: bool = False
) -> Program:
    """Target and draft: `(inputs, model) -> forecast`.

    Args:
        setting: the pair and how it decodes.
        free_target: take a target that costs nothing.
        free_draft: take a draft that costs nothing.
    """
    pair = build(setting)
    means = jax.ShapeDtypeStruct(
        (setting.num_draft + 1, PATCH_LEN, setting.num_vars), jnp.dtype("float32")
    )
    rule = jax.eval_shape(lambda: rule_of(setting.rule))
    target = FreeProcess(means) if free_target else pair.target
    draft = FreeDraft(means) if free_draft else pair.proposer()

    def run(inputs: Inputs, model: Model) -> jax.Array:
        forecast: jax.Array = _speculate(inputs, model, config=_sizes(setting, setting.num_draft))[
            0
        ]
        return forecast

    return Program(run, (_inputs(setting), Model(target, draft, rule, Fixed())))


def prefill(setting: Setting) -> Program:
    """The target over the contexts, before the first patch: `(inputs, target) -> memory`."""
    doubled = setting.batch * setting.num_vars == 1 and setting.least_lanes == 2
    lanes = (2 if doubled else setting.batch, 1)

    def run(inputs: Inputs, target: Any) -> Any:
        contexts = jnp.broadcast_to(inputs.context, (lanes[0], *inputs.context.shape[1:]))
        contexts = contexts[:, None]  # [B, 1, L, C]
        return over_lanes(lambda _, context: target.prepare(context), lanes)(None, contexts)

    return Program(run, (_inputs(setting), build(setting).target))


def rule_of(text: str) -> Rule:
    """The rule of a setting."""
    return Several(chains=2) if text == "several" else parse_rule(text)


def _sizes(setting: Setting, num_draft: int) -> DecodeConfig:
    """The config of a decode of K proposals a round, with one loop whose body is counted."""
    lanes = setting.least_lanes
    sizes = HORIZON * PATCH_LEN, num_draft
    return DecodeConfig(*sizes, least_lanes=lanes, compactions=0, unrolled=lanes == 2)


def _inputs(setting: Setting) -> Inputs:
    """The shapes of the inputs."""

    def zeros() -> Inputs:
        context = jnp.zeros((setting.batch, CONTEXT * PATCH_LEN, setting.num_vars))
        return Inputs(jax.random.key_data(jax.random.key(0)), context, jnp.float32(1), None, None)

    shapes: Inputs = jax.eval_shape(zeros)
    return shapes


def build(setting: Setting) -> Pair:
    """The pair of a setting, as shapes."""
    shapes: Pair = jax.eval_shape(lambda: make(setting))
    return shapes


def untrained_target(setting: Setting) -> Checkpoint:
    """The target of a setting, without training."""
    return _untrained(
        TimerXLConfig(
            patch_len=PATCH_LEN,
            d_model=setting.d_model,
            d_ff=2 * setting.d_model,
            num_layers=setting.layers,
            instance_norm="causal",
            variable_stride=0,
            dtype=setting.dtype,
        )
    )


def make(setting: Setting, target: Checkpoint | None = None) -> Pair:
    """The pair of a setting, without training; a linear draft has maps of zeros.

    Args:
        setting: the pair.
        target: the `untrained_target` of the setting, where there is one already.
    """
    target = untrained_target(setting) if target is None else target
    draft: str | Checkpoint | None = None if setting.draft == "linear" else setting.draft
    if draft in ("autoregressive", "multi-patch"):
        smaller = target.model.scaled(DRAFT_FACTOR)
        layers = dataclasses.replace(smaller, num_layers=setting.draft_layers)
        patches = setting.num_draft if draft == "multi-patch" else 1
        draft = _untrained(dataclasses.replace(layers, output_patches=patches))
    pair = make_pair(target, draft, "cached", CONTEXT * PATCH_LEN, setting.num_vars)
    if setting.draft == "linear":
        # numpy: the matrices of K steps are computed from concrete numbers, also for shapes
        maps = np.zeros((CONTEXT * PATCH_LEN, PATCH_LEN), np.float32)
        return Pair(pair.target, linear_draft(maps, num_draft=setting.num_draft))
    return pair


def _untrained(model: TimerXLConfig) -> Checkpoint:
    """A model with its first parameters."""
    return Checkpoint(model, init_params(jax.random.key(0), model), CONTEXT * PATCH_LEN)


def untrained_process(seed: int = 0, **sizes: Any) -> Process:
    """A causal process with its first parameters; `sizes` are fields of `TimerXLConfig`."""
    config = TimerXLConfig(
        **sizes, d_ff=2 * sizes["d_model"], instance_norm="causal", dropout=0.0, variable_stride=0
    )
    checkpoint = Checkpoint(config, init_params(jax.random.key(seed), config), None)
    return make_target(checkpoint, "cached", None, 1)


# --- models that cost nothing --------------------------------------------------------------------


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FreeProcess:
    """A target that costs nothing: its predictions are an argument of the program.

    The compiler knows nothing of their values, so what a round does with them stays in the program.

    Attributes:
        means: `[K + 1, P, C]`.
    """

    means: Any

    @property
    def patch_len(self) -> int:
        """P."""
        return int(self.means.shape[-2])

    def prepare(self, context: jax.Array, length: jax.Array | None = None) -> jax.Array:
        """See `Process`; the predictions."""
        means: jax.Array = self.means
        return means

    def start(self, memory: jax.Array, room: int) -> tuple[()]:
        """See `Process`."""
        return ()

    def verify(
        self, memory: jax.Array, state: tuple[()], proposals: jax.Array
    ) -> tuple[PatchDistribution, tuple[()]]:
        """See `Process`."""
        return PatchDistribution(memory[: len(proposals) + 1]), state

    def commit(self, state: tuple[()], patches: jax.Array, count: jax.Array) -> tuple[()]:
        """See `Process`."""
        return state


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FreeDraft(FreeProcess):
    """A draft that costs nothing; its proposals are still drawn."""

    def predict_next(
        self, memory: jax.Array, state: tuple[()], shape: tuple[int, int, int]
    ) -> tuple[PatchDistribution, tuple[()]]:
        """See `Draft`; all K at once."""
        return PatchDistribution(memory[: shape[0]]), state
