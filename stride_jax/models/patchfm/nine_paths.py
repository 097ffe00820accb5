"""The released decode of PatchFM: nine paths of a series, fed back and verified together.

The first patch after the history is nine quantiles, and each becomes a path. From then on every
path has nine quantiles of its next patch. Of these 81 values of a step the original takes the nine
deciles, and feeds them back as the next values of the nine paths. So a path is no sample, and what
comes next depends on all nine.

The nine paths of a variable are nine columns of a patch here, `9 c` to `9 c + 8` of variable c, so
the decoders and rules see nine variables. They are accepted or rejected together, as rules decide
on whole patches. The pass over the history is shared by the nine.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.errors import InputError
from stride_jax.models.causal import KeyValues
from stride_jax.models.patchfm.config import LEVELS, PatchFMConfig
from stride_jax.models.patchfm.module import Params
from stride_jax.models.patchfm.process import Memory, PatchFMProcess, checked_length
from stride_jax.models.running import State
from stride_jax.types import PatchDistribution

PATHS = len(LEVELS)
RANKS = tuple(round(level * (PATHS**2 - 1)) for level in LEVELS)
"""Places of the deciles among 81 sorted values: 8, 16, ..., 72, all whole numbers."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NinePathsProcess(PatchFMProcess):
    """PatchFM with nine paths per variable; build it with `nine_paths_process`.

    Contexts and patches have `9 C` columns, see `nine_times`. The mean of a prediction is what the
    original feeds back, and column `9 c + i` is quantile `LEVELS[i]` of variable c. With several
    variables all of them are accepted together too; decode them as series of their own instead.
    """

    @property
    def reports(self) -> tuple[float | str, ...]:
        """Nothing: the quantiles are the paths themselves."""
        return ()

    def prepare(self, context: jax.Array, length: jax.Array | None = None) -> Memory:
        """Runs the model once over the first of each nine equal columns of `[L, 9 C]`.

        Raises:
            InputError: no step, or another number of columns.
        """
        if context.shape[1] % PATHS:
            raise InputError(
                f"the context has {context.shape[1]} columns; nine paths need every variable nine "
                "times, see nine_times."
            )
        memory = super().prepare(context[:, ::PATHS], length)
        return memory._replace(
            prefill=[KeyValues(*(nine_times(z, 0) for z in part)) for part in memory.prefill],
            pending=nine_times(memory.pending),
            moments=nine_times(memory.moments, 0),
            origin=nine_times(memory.origin),
        )

    def _extend(
        self, memory: Memory, state: State, patches: jax.Array, start: jax.Array
    ) -> tuple[PatchDistribution, State]:
        """Predictions after each of some patches, see `outputs`."""
        quantiles, state = self.outputs(memory, state, patches, start)  # [k, P, 9 C, Q]
        count, size, columns, _ = quantiles.shape
        # [k, P, 9 C, Q] -> [k, P, C, 9, Q]
        quantiles = quantiles.reshape(count, size, columns // PATHS, PATHS, PATHS)

        # Right after the history path i takes quantile i; later it takes decile i of all 81 values.
        diagonal = jnp.diagonal(quantiles, axis1=3, axis2=4)  # [k, P, C, 9]
        values = jnp.sort(quantiles.reshape(*quantiles.shape[:3], PATHS**2), axis=-1)
        first = start + jnp.arange(count) == self.lag - 1
        fed_back = jnp.where(first[:, None, None, None], diagonal, values[..., np.array(RANKS)])
        # [k, P, C, 9] -> [k, P, 9 C]
        return PatchDistribution(fed_back.reshape(count, size, columns)), state


def nine_times(values: jax.Array | np.ndarray, axis: int = -1) -> jax.Array:
    """Every entry of an axis nine times, one after the other: `[L, C]` -> `[L, 9 C]`."""
    return jnp.repeat(jnp.asarray(values), PATHS, axis=axis)


def nine_paths_process(
    config: PatchFMConfig, params: Params, context_len: int | None = None
) -> NinePathsProcess:
    """The process of a PatchFM as released, which feeds back nine paths.

    Args:
        config: sizes.
        params: from `params.read`.
        context_len: see `process.patchfm_process`.

    Raises:
        InputError: a context_len that is no whole number, below 1, or beyond the limit.
    """
    return NinePathsProcess(params, config, checked_length(config, context_len))
