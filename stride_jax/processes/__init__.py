"""What "the target's own forecast" means: how a forecaster is rolled over its own output."""

from stride_jax.processes.window import WindowProcess, window_process

__all__ = ["WindowProcess", "window_process"]
