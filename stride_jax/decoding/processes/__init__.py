"""Processes: how a forecaster is rolled over its own output."""

from stride_jax.decoding.base import Process
from stride_jax.decoding.processes.cached import CachedModel, CachedProcess, Norm, cached_process
from stride_jax.decoding.processes.window import WindowProcess, window_process
from stride_jax.decoding.traits import Traits, traits_of

__all__ = [
    "CachedModel",
    "CachedProcess",
    "Norm",
    "Process",
    "Traits",
    "WindowProcess",
    "cached_process",
    "traits_of",
    "window_process",
]
