"""Programs compiled for an H100, on a machine without one.

It needs jax for CUDA. `--xla_gpu_autotune_level=0` has to be among the `XLA_FLAGS` before jax is
used: autotuning runs kernels, and there is no device to run them.
"""

from __future__ import annotations

import functools

from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from stride_jax.evaluation.launches import Block, count
from stride_jax.evaluation.programs import Program

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


@functools.cache
def device() -> SingleDeviceSharding:
    """An H100 to compile for."""
    topology = topologies.get_topology_desc(
        platform="cuda", topology_name="h100", target_config=H100, topology="1x1x1"
    )
    return SingleDeviceSharding(topology.devices[0])


def compiled(program: Program, library: bool) -> Block:
    """The launches of a program whose products are library calls, or else fusions."""
    options = {"xla_gpu_enable_triton_gemm": not library}
    return count(program.compile(*[device()] * len(program.args), **options).as_text())


def main_loop(program: Block) -> Block:
    """The loop of a decoder, its heaviest."""
    return max(program.loops, key=lambda body: body.total(1))
