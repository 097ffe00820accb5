"""Windows gathered inside jit from a series that sits on the device once."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from stride_jax.data.gaps import Gaps
from stride_jax.errors import InputError, counted


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
        ahead: rows of a window after its context, 0 where all of it is context.
        fill_ahead: fill missing values there too, for training; else they stay NaN.
    """

    start: int
    num_starts: int
    length: int
    num_vars: int
    separate: bool
    stride: int = 1
    ahead: int = 0
    fill_ahead: bool = False

    @property
    def count(self) -> int:
        """Number of windows."""
        return self.num_starts * (self.num_vars if self.separate else 1)

    def gather(self, values: jax.Array | Gaps, index: jax.Array) -> jax.Array:
        """`values [T, C]`, `index [B]` int -> `[B, length, C]` (`[B, length, 1]` if separate).

        Of a series with gaps, a missing value of the context is filled from what is known before
        the context ends: on a straight line between its neighbours, or where the next one comes
        after the end, with the last value before it. After the context missing values are NaN, or
        with `fill_ahead` filled in the same way from what is known before the window ends.
        """

        def one(i: jax.Array) -> jax.Array:
            row = self.start + self.stride * (i % self.num_starts)
            column, width = (i // self.num_starts, 1) if self.separate else (0, self.num_vars)

            def cut(array: jax.Array) -> jax.Array:
                return jax.lax.dynamic_slice(array, (row, column), (self.length, width))

            if isinstance(values, Gaps):
                return self._filled(Gaps(*[cut(array) for array in values]), row)
            return cut(values)

        return jax.vmap(one)(index)

    def _filled(self, gaps: Gaps, row: jax.Array) -> jax.Array:
        """One window `[length, C]` of a slice with gaps that begins at `row`."""
        place = jnp.arange(self.length)[:, None]
        context_len = self.length - self.ahead
        end = row + jnp.where(place < context_len, context_len, self.length)
        filled = jnp.where(gaps.next_seen < end, gaps.interpolated, gaps.forward)
        if self.fill_ahead:
            return filled
        seen = gaps.next_seen == row + place
        return jnp.where(seen | (place < context_len), filled, jnp.nan)


def make_windows(
    rows: tuple[int, int],
    length: int,
    num_vars: int,
    *,
    separate: bool,
    stride: int = 1,
    ahead: int = 0,
    fill_ahead: bool = False,
) -> Windows:
    """All windows of `length` rows inside the row range, every `stride` rows; see `Windows`.

    Raises:
        InputError: the range is shorter than one window.
    """
    start, stop = rows
    if stop - start < length:
        raise InputError(
            f"a window of {length} rows (context and horizon) does not fit this split of "
            f"{counted(stop - start, 'row')}; shorten the horizon or the context."
        )
    num_starts = (stop - start - length) // stride + 1
    return Windows(start, num_starts, length, num_vars, separate, stride, ahead, fill_ahead)


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
