"""Synthetic series to train on, drawn by key inside a jitted step and never stored.

`draw_windows` draws from all families by their shares, adds what sensors and shops do, and
standardises.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from stride_jax.data import synthetic_families as families
from stride_jax.data import synthetic_parts as parts
from stride_jax.data.synthetic_effects import observed
from stride_jax.errors import InputError

Family = Callable[[jax.Array, int], jax.Array]

FAMILIES: dict[str, tuple[Family, float]] = {
    "seasonal": (families.seasonal, 4.0),
    "calendar": (families.calendar, 7.0),
    "gaussian_process": (families.gaussian_process, 3.0),
    "autoregression": (families.autoregression, 2.0),
    "walk": (families.walk, 4.0),
    "reverting": (families.reverting, 2.0),
    "counted": (families.counted, 2.0),
    "intermittent": (families.intermittent, 1.0),
    "peaks": (families.peaks, 3.0),
    "bursts": (families.bursts, 1.5),
    "stepped": (families.stepped, 1.0),
    "waves": (families.waves, 1.0),
    "growing": (families.growing, 2.0),
}
"""Every family and its relative share."""


def shares(without: tuple[str, ...] = ()) -> dict[str, float]:
    """The share of each family among the drawn series, those left out apart; they sum to 1.

    Raises:
        InputError: an unknown name, or no family is left.
    """
    unknown = [name for name in without if name not in FAMILIES]
    if unknown:
        raise InputError(f"there is no family {unknown[0]!r}; the families are {list(FAMILIES)}.")
    used = {name: share for name, (_, share) in FAMILIES.items() if name not in without}
    if not used:
        raise InputError("no family of synthetic series is left; leave out fewer.")
    return {name: share / sum(used.values()) for name, share in used.items()}


def draw(key: jax.Array, length: int, without: tuple[str, ...] = ()) -> jax.Array:
    """One series of a random family as it would be stored, standardised; `key` is consumed.

    Args:
        key: equal keys give equal series.
        length: T.
        without: families to leave out.

    Returns:
        `[T]` float32, finite, mean 0 and std 1 over the window (all 0 where it is constant).

    Raises:
        InputError: see `shares`.
    """
    u, (series_key, observed_key) = parts.draws(key, 1, 2)
    used = shares(without)
    kind = parts.pick(u[0], list(used.values()))
    taken = [FAMILIES[name][0] for name in used]
    branches = [lambda key, family=family: family(key, length) for family in taken]
    series = jax.lax.switch(kind, branches, series_key)
    return parts.standardised(observed(observed_key, parts.standardised(series)))


def draw_windows(
    key: jax.Array, count: int, length: int, without: tuple[str, ...] = ()
) -> jax.Array:
    """Windows to train on, `[B, T, 1]`; three in ten are mixtures of two series.

    A mixture adds the next window of the batch with a weight of up to 1. On a CPU the series are
    drawn one after the other, each by one family; elsewhere all at once, where every family is
    computed for every series and one of them taken. The keys, and so the series, are the same.

    Args:
        key: consumed; equal keys give equal windows.
        count: B.
        length: T.
        without: families to leave out.

    Raises:
        InputError: see `shares`.
    """
    draw_key, weight_key = jax.random.split(key)
    one = partial(draw, length=length, without=without)
    series = jax.lax.platform_dependent(
        jax.random.split(draw_key, count), cpu=partial(jax.lax.map, one), default=jax.vmap(one)
    )
    mixed, weight = jax.random.uniform(weight_key, (2, count, 1))
    weight = weight * (mixed < 0.3)
    series = jax.vmap(parts.standardised)(series + weight * jnp.roll(series, 1, axis=0))
    return series[:, :, None]
