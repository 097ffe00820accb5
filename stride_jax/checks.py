"""Checks of arguments that may be traced: shapes always, values only where they are concrete."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from stride_jax.errors import InputError


def check_scalar(name: str, value: Any, *, at_least: float) -> None:
    """Raises InputError unless a concrete `value` is a finite number, at least `at_least`."""
    if np.ndim(value) != 0:
        raise InputError(f"{name} must be a scalar, got shape {np.shape(value)}.")
    if isinstance(value, jax.core.Tracer):
        return
    number = np.asarray(value).dtype.kind in "biuf"
    if not (number and np.isfinite(value) and value >= at_least):
        raise InputError(f"{name} must be finite and at least {at_least}, got {value}.")
