"""Forecasters; the only package that imports flax."""

from stride_jax.models.timer_xl import TimerXL, init_params, make_predict

__all__ = ["TimerXL", "init_params", "make_predict"]
