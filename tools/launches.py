"""Counts the kernel launches of the decoders on an H100, compiled without one.

It needs jax for CUDA, several GB, in a virtual environment of its own on any machine:

    python -m venv venv_cuda && venv_cuda/bin/pip install ".[cuda12]"
    PYTHONPATH=. venv_cuda/bin/python tools/launches.py --layers 8 --d-model 1024 --draft-layers 1

The last line is one JSON object with the sizes and the counts. Each decoder is compiled for the
topology of an H100, and `stride_jax.evaluation.launches` counts what one iteration of its loops
launches. The counts are

- `target_pass`: one step of the plain cached decode, the body of its loop;
- `draft_step`: each later step of the draft, the body of the inner loop; 0 where the draft proposes
  all K patches at once;
- `proposals`: drafting in a round, all K patches;
- `verification`: the target's pass over the K proposals in a round;
- `round_overhead`: everything else in a round, that is rule and bookkeeping;
- `round`: a whole round, the sum of these three;
- `round_surplus`: what a round launches beyond one `target_pass` and K times `draft_step`;
- `prefill`: the target over the context, before the first patch;
- `outside`: all that the speculative decoder launches before and after its loop, once a call;
- `copies`, `scatters`: in the loop bodies of both decoders.

The parts of a round come from three rounds that are compiled: as it is, with a target that costs
nothing, and with target and draft that cost nothing. Such a model hands out means that were
arguments of the program, so the compiler can leave out nothing of rule and bookkeeping. The first
less the second is `verification`, the second less the third `proposals`, and the third
`round_overhead`. It does not depend on the sizes of the models, and what a model does to commit its
patches counts as the model's.
"""

from __future__ import annotations

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Autotuning runs kernels; there is no device to run them.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_gpu_autotune_level=0"

import argparse
import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from stride_jax.checkpoints.build import Pair, make_pair
from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.decoding.autoregressive import roll_process
from stride_jax.decoding.base import DecodeConfig
from stride_jax.decoding.batching import over_lanes
from stride_jax.decoding.checks import Inputs
from stride_jax.decoding.draft_length import Fixed
from stride_jax.decoding.rules import parse_rule
from stride_jax.decoding.speculative import Model, _speculate
from stride_jax.evaluation.launches import Block, count
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.timer_xl import init_params
from stride_jax.types import PatchDistribution

H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84942979072 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA" dnn_version_info { major: 9 minor: 8 }
runtime_version { major: 12 minor: 9 } device_description_str: "NVIDIA H100 80GB HBM3"
"""


@dataclass(frozen=True)
class Setting:
    """One decoder pair to count.

    Attributes:
        layers: of the target.
        d_model: D of the target.
        num_vars: C.
        batch: B, series decoded together.
        num_draft: K.
        draft: `autoregressive` or `multi-patch` for a model of its own, or a name of `load_pair`.
        draft_layers: layers of the draft where it is a model of its own.
        rule: the acceptance rule.
        dtype: of the computation of both models.
    """

    layers: int = 8
    d_model: int = 1024
    num_vars: int = 1
    batch: int = 1
    num_draft: int = 8
    draft: str = "autoregressive"
    draft_layers: int = 1
    rule: str = "maximal"
    dtype: str = "float32"


PATCH_LEN, CONTEXT, HORIZON = 96, 16, 35
"""Steps of a patch; patches of the context and of the forecast."""


# --- the models ----------------------------------------------------------------------------------


def build(setting: Setting) -> Pair:
    """The pair of a setting, without training."""
    target = TimerXLConfig(
        patch_len=PATCH_LEN,
        d_model=setting.d_model,
        d_ff=2 * setting.d_model,
        num_layers=setting.layers,
        instance_norm="causal",
        variable_stride=0,
        dtype=setting.dtype,  # type: ignore[arg-type]
    )
    draft: str | Checkpoint = setting.draft
    if draft in ("autoregressive", "multi-patch"):
        model = dataclasses.replace(target.scaled(0.25), num_layers=setting.draft_layers)
        if draft == "multi-patch":
            model = dataclasses.replace(model, output_patches=setting.num_draft)
        draft = untrained(model)
    return make_pair(untrained(target), draft, "cached", CONTEXT * PATCH_LEN, setting.num_vars)


def untrained(model: TimerXLConfig) -> Checkpoint:
    """A model with its first parameters."""
    return Checkpoint(model, init_params(jax.random.key(0), model), CONTEXT * PATCH_LEN)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FreeProcess:
    """A target that costs nothing.

    Attributes:
        means: `[K + 1, P, C]`, its predictions; traced.
    """

    means: jax.Array

    @property
    def patch_len(self) -> int:
        """P."""
        return PATCH_LEN

    def prepare(self, context: jax.Array, length: jax.Array | None = None) -> jax.Array:
        """See `Process`."""
        return self.means

    def start(self, memory: jax.Array, room: int) -> tuple[()]:
        """See `Process`."""
        return ()

    def verify(self, memory: jax.Array, state: tuple[()], proposals: jax.Array) -> Any:
        """See `Process`."""
        return PatchDistribution(memory[: len(proposals) + 1], None), state

    def commit(self, state: tuple[()], patches: jax.Array, number: jax.Array) -> tuple[()]:
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
        return PatchDistribution(memory[: shape[0]], None), state


# --- the programs --------------------------------------------------------------------------------


def device() -> SingleDeviceSharding:
    """An H100 to compile for."""
    topology = topologies.get_topology_desc(
        platform="cuda", topology_name="h100", target_config=H100, topology="1x1x1"
    )
    return SingleDeviceSharding(topology.devices[0])


def launches(function: Any, place: SingleDeviceSharding, *args: Any) -> Block:
    """The launches of a function compiled for a device, from arguments or their shapes."""

    def abstract(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)

    shapes = jax.tree.map(abstract, jax.eval_shape(lambda: args))
    return count(jax.jit(function).lower(*shapes).compile().as_text())


def inputs(setting: Setting) -> Inputs:
    """Inputs of a decode of this setting."""
    context = jnp.zeros((setting.batch, CONTEXT * PATCH_LEN, setting.num_vars))
    return Inputs(jax.random.key_data(jax.random.key(0)), context, jnp.float32(1), None, None)


def main_loop(program: Block) -> Block:
    """The loop of a decoder, its heaviest."""
    return max(program.loops, key=lambda body: sum(b.launches for b in [body, *body.bodies()]))


def round_launches(body: Block, num_draft: int) -> int:
    """The launches of a round; its inner loops run once for each later proposal."""
    return body.launches + sum((num_draft - 1) * loop.launches for loop in body.bodies())


def counts(setting: Setting) -> dict[str, Any]:
    """The row of a setting: its sizes and its counts."""
    place, num_draft = device(), setting.num_draft
    pair = jax.eval_shape(lambda: build(setting))
    rule = parse_rule(setting.rule)
    means = jnp.zeros((num_draft + 1, PATCH_LEN, setting.num_vars))

    def speculate(target: Any, draft: Any) -> Block:
        config = DecodeConfig(HORIZON * PATCH_LEN, num_draft)

        def program(inputs: Inputs, model: Model) -> jax.Array:
            return _speculate(inputs, model, config=config)[0]

        return launches(program, place, inputs(setting), Model(target, draft, rule, Fixed()))

    def roll(inputs: Inputs, target: Any) -> jax.Array:
        return roll_process(inputs, target, config=DecodeConfig(HORIZON * PATCH_LEN, 0))[0]

    def prefill(contexts: jax.Array, target: Any) -> Any:
        lanes = (setting.batch, 1)
        return over_lanes(lambda _, x: target.prepare(x), lanes)(None, contexts[:, None])

    # The decoders, and rounds whose models cost nothing.
    plain = launches(roll, place, inputs(setting), pair.target)
    whole = speculate(pair.target, pair.proposer())
    drafting = speculate(FreeProcess(means), pair.proposer())
    nothing = speculate(FreeProcess(means), FreeDraft(means))
    before = launches(prefill, place, inputs(setting).context, pair.target)

    # A round and its parts.
    step, played = main_loop(plain).launches, main_loop(whole)
    draft_step = sum(loop.launches for loop in played.bodies())
    total, drafted, overhead = (
        round_launches(main_loop(program), num_draft) for program in (whole, drafting, nothing)
    )
    bodies = [*plain.bodies(), *whole.bodies()]
    return {
        **dataclasses.asdict(setting),
        "target_pass": step,
        "draft_step": draft_step,
        "proposals": drafted - overhead,
        "verification": total - drafted,
        "round_overhead": overhead,
        "round": total,
        "round_surplus": total - step - num_draft * draft_step,
        "prefill": before.launches,
        "outside": whole.launches,
        "copies": sum(body.copies for body in bodies),
        "scatters": sum(body.scatters for body in bodies),
        "jax": jax.__version__,
    }


def main() -> None:
    """Prints the counts of one setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for field in dataclasses.fields(Setting):
        flag = "--" + field.name.replace("_", "-")
        parser.add_argument(flag, type=type(field.default), default=field.default)
    print(json.dumps(counts(Setting(**vars(parser.parse_args())))))


if __name__ == "__main__":
    main()
