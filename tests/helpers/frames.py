"""Long frames and a process that repeats its last value."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from stride_jax.decoding.processes import cached_process
from stride_jax.types import PatchDistribution

P = 4


@dataclass(frozen=True)
class Repeat:
    """A `CachedModel`: the last patch again, at whatever level and in whatever units."""

    def prefill(self, params: Any, patches: jax.Array, skip: Any) -> jax.Array:
        """Nothing is kept."""
        return jnp.zeros(())

    def empty_cache(self, params: Any, prefill: jax.Array, count: int) -> jax.Array:
        """Nothing is kept."""
        return jnp.zeros(count)

    def extend(
        self, params: Any, prefill: Any, cache: jax.Array, patches: jax.Array, start: Any
    ) -> tuple[PatchDistribution, jax.Array]:
        """The next patch is like this one."""
        return PatchDistribution(patches), cache


REPEAT = cached_process(Repeat(), {}, P, norm=None)
SHORT_REPEAT = cached_process(Repeat(), {}, P, norm=None, context_len=8)


POINT: dict[str, Any] = {"pair": SHORT_REPEAT, "num_samples": 0, "sigma": 1.0}
"""The last four values go on. Everything is forecast from eight steps for six: few programs."""


def long(**series: Any) -> pd.DataFrame:
    """One row per id and time; a series is its times, and its values are different everywhere."""
    parts = [
        pd.DataFrame(
            {"unique_id": name, "ds": times, "y": 100.0 * i + np.arange(len(times)) ** 1.5}
        )
        for i, (name, times) in enumerate(series.items())
    ]
    return pd.concat(parts, ignore_index=True)


def hours(count: int, start: str = "2024-02-28 20:00") -> pd.DatetimeIndex:
    """An hourly clock."""
    return pd.date_range(start, periods=count, freq="h")
