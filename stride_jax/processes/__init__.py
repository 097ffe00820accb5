"""What "the target's own forecast" means: how a forecaster is rolled over its own output."""

from stride_jax.processes.base import Process
from stride_jax.processes.cached import CachedModel, CachedProcess, Norm, cached_process
from stride_jax.processes.window import WindowProcess, window_process

__all__ = [
    "CachedModel",
    "CachedProcess",
    "Norm",
    "Process",
    "WindowProcess",
    "cached_process",
    "window_process",
]
