"""Windows gathered inside jit from a series that sits on the device once."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from stride_jax.errors import InputError


@dataclass(frozen=True)
class Windows:
    """The windows of one split; static, so that it can be closed over or passed to jit.

    Window `i` of joint variables starts at row `start + i * stride`. Separate variables are laid
    out variable-major: window `i` is variable `i // num_starts`, start `i % num_starts`.

    Attributes:
        start: first row of the split.
        num_starts: windows of one variable.
        length: rows in a window (context and horizon together).
        num_vars: C of the series.
        separate: one variable a window.
        stride: rows between two windows.
    """

    start: int
    num_starts: int
    length: int
    num_vars: int
    separate: bool
    stride: int = 1

    @property
    def count(self) -> int:
        """Number of windows."""
        return self.num_starts * (self.num_vars if self.separate else 1)

    def gather(self, values: jax.Array, index: jax.Array) -> jax.Array:
        """`values [T, C]`, `index [B]` int -> `[B, length, C]` (`[B, length, 1]` if separate)."""

        def one(i: jax.Array) -> jax.Array:
            row = self.start + self.stride * (i % self.num_starts)
            if self.separate:
                return jax.lax.dynamic_slice(values, (row, i // self.num_starts), (self.length, 1))
            return jax.lax.dynamic_slice(values, (row, 0), (self.length, self.num_vars))

        return jax.vmap(one)(index)


def make_windows(
    rows: tuple[int, int], length: int, num_vars: int, *, separate: bool, stride: int = 1
) -> Windows:
    """All windows of `length` rows inside the row range, every `stride` rows.

    Raises:
        InputError: the range is shorter than one window.
    """
    start, stop = rows
    if stop - start < length:
        raise InputError(
            f"a window of {length} rows (context and horizon) does not fit the {stop - start} rows "
            "of this split; shorten the horizon or the context."
        )
    num_starts = (stop - start - length) // stride + 1
    return Windows(start, num_starts, length, num_vars, separate, stride)


def epoch_order(key: jax.Array, epoch: int, count: int) -> jax.Array:
    """The shuffled window indices `[count]` of an epoch; depends on `(key, epoch)` alone.

    A run resumed at a step finds the same order again. `key` is folded, not consumed.
    """
    return jax.random.permutation(jax.random.fold_in(key, epoch), count)


def batch_index(order: jax.Array, step: jax.Array, batch_size: int) -> jax.Array:
    """The indices `[B]` of batch number `step` within the epoch."""
    return jax.lax.dynamic_slice(order, (step * batch_size,), (batch_size,))


def padded_batches(count: int, batch_size: int) -> tuple[jax.Array, jax.Array]:
    """All window indices in order, in equal batches.

    Returns:
        `(index, weight)`, both `[num_batches, B]`: the last batch is filled up with index 0 at
        weight 0, so that every window counts once.
    """
    num = -(-count // batch_size)
    index = jnp.arange(num * batch_size)
    weight = (index < count).astype(jnp.float32)
    index = jnp.where(index < count, index, 0)
    # [num * B] -> [num, B]
    return index.reshape(num, batch_size), weight.reshape(num, batch_size)
