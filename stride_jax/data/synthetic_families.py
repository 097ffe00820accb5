"""Families of synthetic series: pure functions `(key, length) -> [T]` float32.

Each consumes its key; level and scale are any.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.data import synthetic_parts as parts

PERIODS = (4, 5, 7, 10, 12, 13, 24, 26, 30, 48, 52, 60, 96, 144, 168, 288, 336, 365)
"""Season lengths in steps that half of the seasonal series take; others are continuous."""
CLOCKS = (
    (24.0, 168.0, 8766.0),  # hours
    (48.0, 336.0, 17532.0),  # half hours
    (96.0, 672.0, 35064.0),  # quarters of an hour
    (144.0, 1008.0, 52596.0),  # ten minutes
    (12.0, 84.0, 4383.0),  # two hours
    (6.0, 42.0, 2191.5),  # four hours
    (3.0, 21.0, 1095.75),  # shifts
    (0.0, 7.0, 365.25),  # days
    (0.0, 5.0, 260.9),  # working days
    (0.0, 6.0, 313.1),  # days but Sunday
    (0.0, 0.0, 52.18),  # weeks
    (0.0, 0.0, 12.0),  # months
    (0.0, 0.0, 4.0),  # quarters
)
"""Steps in a day, a week and a year; 0 where the clock is too slow for one."""
CLOCK_SHARES = (6, 2, 2, 1, 1, 1, 1, 4, 1, 1, 3, 5, 2)


def usual_period(u: jax.Array, low: float = 4.0, high: float = 400.0) -> jax.Array:
    """A season's length in steps: one of `PERIODS`, or continuous; `u` is `[2]`."""
    usual = jnp.asarray(PERIODS, jnp.float32)[parts.pick(u[1], [1.0] * len(PERIODS))]
    return jnp.where(u[0] < 0.5, usual, parts.log_uniform(u[1], low, high))


def seasonal(key: jax.Array, length: int) -> jax.Array:
    """Up to three seasons of any length, added to a trend or multiplied with it, and noise."""
    u, keys = parts.draws(key, 3 * (parts.SEASON + 4) + parts.TREND + 6, 2)
    each, rest = u[: 3 * (parts.SEASON + 4)].reshape(3, -1), u[3 * (parts.SEASON + 4) :]
    first = usual_period(each[0])
    total = parts.season(each[0, 4:], length, first)
    for v in each[1:]:
        size = v[2] * (v[3] < 0.4)
        total = total + size * parts.season(v[4:], length, usual_period(v))
    path = parts.trend(rest[6:], keys[0], length, first)
    error = parts.log_uniform(rest[0], 0.01, 1.0) * parts.noise(rest[1:4], keys[1], length)
    depth = parts.between(rest[4], 0.1, 0.6)
    grown = jnp.exp(jnp.clip(0.5 * path, -4, 4) + depth * total + 0.5 * error)
    return jnp.where(rest[5] < 0.4, grown, path + total + error)


def calendar(key: jax.Array, length: int) -> jax.Array:
    """A clock's day, week and year: shapes of a day, levels of weekdays, growth and noise."""
    sizes = (parts.SEASON, parts.SEASON, parts.WAVEFORM, parts.TREND, 7, 20)
    u, keys = parts.draws(key, sum(sizes), 2)
    of_day, of_rest, of_year, of_trend, of_week, v = jnp.split(u, np.cumsum(sizes)[:-1])
    day, week, year = jnp.asarray(CLOCKS)[parts.pick(v[0], CLOCK_SHARES)]
    time = jnp.arange(length) + v[1] * year
    daily = parts.season(of_day, length, jnp.maximum(day, 1.0))
    other = parts.season(of_rest, length, jnp.maximum(day, 1.0))  # of a day off
    yearly = parts.waveform(of_year, time / year)
    place = jnp.floor(time / jnp.maximum(week, 1.0) % 1.0 * 7).astype(jnp.int32) % 7
    rest = jnp.asarray([0, 0, 0, 0, 0, 1, 1.0])[place]
    weekday = 0.3 * parts.normal(of_week)[place] + 1.2 * parts.normal(v[2]) * rest
    has_day, has_week = day > 0, week > 0
    size = jnp.exp(0.7 * parts.normal(v[3:6])) * jnp.stack([has_day, has_week, year > 0])
    differs = has_week * v[6] * (v[7] < 0.5) * rest
    total = size[0] * (daily + differs * (other - daily))
    total = total + size[1] * weekday + 0.7 * size[2] * yearly
    total = total / jnp.sqrt(jnp.sum(jnp.square(size * jnp.asarray([1, 0.6, 0.7]))))
    path = parts.trend(of_trend, keys[0], length, jnp.where(has_day, week, 2 * year))
    path = jnp.where(has_week & ~has_day, path * 6, path)
    error = parts.log_uniform(v[8], 0.03, 0.8) * parts.noise(v[9:12], keys[1], length)
    depth = parts.log_uniform(v[12], 0.05, 0.7)
    grown = jnp.exp(jnp.clip(0.3 * path, -3, 3) + depth * (total + error))
    return jnp.where(v[13] < 0.5, grown, 0.5 * path + total + error)


def gaussian_process(key: jax.Array, length: int) -> jax.Array:
    """Smooth, rough or quasi-periodic, or a sum of two, by its power spectrum."""
    u, keys = parts.draws(key, 18, 3)
    omega = 2 * math.pi * parts.frequencies(length)

    def density(v: jax.Array) -> jax.Array:
        scale = parts.log_uniform(v[0], 2.0, length / 4)
        squared = jnp.exp(-jnp.square(omega * scale) / 2)
        rough = (1 + jnp.square(omega * scale)) ** -parts.between(v[1], 0.6, 2.5)
        centre = 2 * math.pi / usual_period(v[2:4])
        width = centre * parts.log_uniform(v[4], 0.005, 0.3)
        order = jnp.arange(1, 4)[:, None]
        decay = order ** -parts.between(v[5], 1.0, 4.0)
        comb = jnp.sum(decay / (1 + jnp.square((omega[None] - order * centre) / width)), axis=0)
        return jnp.stack([squared, rough, comb])[parts.pick(v[6], (1, 1, 1))]

    first = parts.spectral_noise(keys[0], length, density(u[:7]))
    second = parts.spectral_noise(keys[1], length, density(u[7:14]))
    error = parts.log_uniform(u[14], 0.003, 0.5) * jax.random.normal(keys[2], (length,))
    return first + u[15] * (u[16] < 0.5) * second + error * (u[17] < 0.5)


def autoregression(key: jax.Array, length: int) -> jax.Array:
    """Two pairs of roots anywhere in the unit disc, innovations with heavy tails."""
    u, keys = parts.draws(key, 5, 1)
    roots = 1 - parts.log_uniform(u[:2], 0.003, 1.0)
    angles = 2 * math.pi / parts.log_uniform(u[2:4], 2.0, 200.0)
    innovations = parts.heavy_normal(keys[0], 2 * length, 0.2 * u[4])
    return parts.standardised(parts.filtered(innovations, roots, angles))


def walk(key: jax.Array, length: int) -> jax.Array:
    """A random walk as of a price: heavy tails, clustered volatility, little drift."""
    u, keys = parts.draws(key, 6, 2)
    steps = parts.heavy_normal(keys[0], length, 0.25 * u[0])
    steps = steps * parts.volatility(u[1:3], keys[1], length)
    drift = parts.normal(u[3]) * parts.log_uniform(u[4], 0.001, 0.05)
    path = jnp.cumsum(steps + drift)
    return jnp.where(u[5] < 0.3, 50 * jnp.exp(0.02 * jnp.clip(path, -150, 150)), path)


def reverting(key: jax.Array, length: int) -> jax.Array:
    """An Ornstein-Uhlenbeck process whose level, speed and noise change with the regime."""
    u, keys = parts.draws(key, 3 * parts.SEGMENTS + 2, 2)
    speed, size, level = (u[i * parts.SEGMENTS : (i + 1) * parts.SEGMENTS] for i in range(3))
    ids = parts.segment_ids(keys[0], length, parts.log_uniform(u[-1], 0.5, 12.0) / length)
    keep = jnp.exp(-jnp.exp(-3 + 1.3 * parts.levels(speed, ids)))
    noisy = jnp.exp(0.6 * parts.levels(size, ids)) * jnp.sqrt(1 - jnp.square(keep))
    centre = parts.log_uniform(u[-2], 0.2, 4.0) * parts.levels(level, ids)
    steps = (1 - keep) * centre + noisy * parts.heavy_normal(keys[1], length, 0.1)
    return parts.recurrence(keep, steps.at[0].add(keep[0] * centre[0]))


def counted(key: jax.Array, length: int) -> jax.Array:
    """Counts of a rate with a season, a slow drift and noise."""
    u, keys = parts.draws(key, parts.SEASON + parts.SLOW + 9, 2)
    v = u[parts.SEASON + parts.SLOW :]
    wave = v[0] * parts.season(u[: parts.SEASON], length, usual_period(v[1:3]))
    wander = v[3] * parts.slow(u[parts.SEASON : parts.SEASON + parts.SLOW], length)
    extra = 0.3 * v[4] * parts.noise(v[5:8], keys[0], length)
    rate = parts.log_uniform(v[8], 0.1, 100.0) * jnp.exp(jnp.clip(wave + wander + extra, -4, 3))
    return parts.counts(keys[1], rate)


def intermittent(key: jax.Array, length: int) -> jax.Array:
    """Mostly 0, now and then a demand; how often follows a season or a slow drift."""
    u, keys = parts.draws(key, parts.SEASON + parts.SLOW + 6, 2)
    v = u[parts.SEASON + parts.SLOW :]
    wave = 2 * v[0] * parts.season(u[: parts.SEASON], length, usual_period(v[1:3]))
    wander = parts.slow(u[parts.SEASON : parts.SEASON + parts.SLOW], length)
    chance = jax.nn.sigmoid(jnp.log(parts.log_uniform(v[3], 0.03, 1.0)) + wave + wander)
    happens = jax.random.uniform(keys[0], (length,)) < chance
    size = jnp.exp(v[4] * jax.random.normal(keys[1], (length,)))
    return happens * jnp.where(v[5] < 0.5, jnp.ceil(2 * size), size)


def peaks(key: jax.Array, length: int) -> jax.Array:
    """A peak a season, each of another height, over a floor: illness, sales, sunshine."""
    sizes = (parts.SLOW, parts.TREND, 64, 20)
    u, keys = parts.draws(key, sum(sizes), 3)
    of_slow, of_trend, of_height, v = jnp.split(u, np.cumsum(sizes)[:-1])
    period = usual_period(v[0:2], 6.0, 400.0)
    phase = jnp.arange(length) / period + v[2] + 0.1 * v[3] * parts.slow(of_slow, length)
    cycle = jnp.floor(phase).astype(jnp.int32)
    height = jnp.exp(0.7 * v[4] * parts.normal(of_height)[cycle % 64])
    wave = jnp.cos(2 * math.pi * phase)
    bump = jnp.exp(parts.log_uniform(v[5], 0.5, 15.0) * (wave - 1))
    sun = jnp.maximum(parts.between(v[6], -0.3, 0.3) + 0.6 * wave, 0.0)
    shape = jnp.where(v[7] < 0.4, sun, bump)
    growth = jnp.exp(jnp.clip(0.3 * parts.trend(of_trend, keys[0], length, period), -2, 2))
    size = parts.log_uniform(v[8], 0.01, 0.5)
    rough = jnp.exp(size * parts.noise(v[9:12], keys[1], length))  # noise that grows with the level
    floor = -0.2 * jnp.log(v[12]) * jnp.exp(0.2 * size * parts.noise(v[13:16], keys[2], length))
    return growth * (height * shape * rough + floor * (v[16] < 0.7))


def bursts(key: jax.Array, length: int) -> jax.Array:
    """0 or little most of the time, then events that decay: rain, traffic, runoff."""
    u, keys = parts.draws(key, 11, 4)
    happens = jax.random.bernoulli(keys[0], parts.log_uniform(u[0], 0.003, 0.2), (length,))
    size = jnp.exp(jax.random.normal(keys[1], (length,)))
    keep = jnp.full((length,), 1 - parts.log_uniform(u[1], 0.01, 1.0))
    shot = parts.recurrence(keep, happens * size)
    omega = 2 * math.pi * parts.frequencies(length)
    density = 1 / (1 + jnp.square(omega * parts.log_uniform(u[2], 1.0, 50.0)))
    above = jnp.maximum(parts.spectral_noise(keys[2], length, density) - 1.5 * u[3], 0.0)
    rain = above ** parts.between(u[4], 1.0, 2.5)
    base = parts.log_uniform(u[5], 0.001, 0.3) * parts.noise(u[6:9], keys[3], length)
    return jnp.where(u[9] < 0.5, rain, shot + base * (u[10] < 0.7))


def stepped(key: jax.Array, length: int) -> jax.Array:
    """Levels that hold for a while, or a machine that is on and off by the clock; little noise."""
    u, keys = parts.draws(key, parts.SEGMENTS + 10, 2)
    v = u[parts.SEGMENTS :]
    ids = parts.segment_ids(keys[0], length, parts.log_uniform(v[0], 1.0, 60.0) / length)
    held = parts.levels(u[: parts.SEGMENTS], ids)
    phase = jnp.arange(length) / usual_period(v[1:3]) + v[3]
    on = (phase % 1.0 < parts.between(v[4], 0.1, 0.9)) * 1.0
    path = jnp.where(v[5] < 0.5, held, on + 0.3 * held * on)
    return path + parts.log_uniform(v[6], 0.003, 0.5) * parts.noise(v[7:10], keys[1], length)


def waves(key: jax.Array, length: int) -> jax.Array:
    """Clean sines, triangles or saws, two periods together, with hardly any noise."""
    u, keys = parts.draws(key, 12, 1)

    def one(v: jax.Array) -> jax.Array:
        phase = jnp.arange(length) / usual_period(v[0:2]) + v[2]
        saw = (2 * (phase % 1.0) - 1) * jnp.where(v[3] < 0.5, -1.0, 1.0)
        shapes = jnp.stack([jnp.sin(2 * math.pi * phase), 2 * jnp.abs(saw) - 1, saw])
        return shapes[parts.pick(v[4], (0.5, 0.25, 0.25))]

    error = parts.log_uniform(u[10], 0.001, 0.1) * jax.random.normal(keys[0], (length,))
    return one(u[:5]) + u[11] * one(u[5:10]) + error


def growing(key: jax.Array, length: int) -> jax.Array:
    """A trend with a bend, a saturation or a decay, with noise and at times a weak season."""
    u, keys = parts.draws(key, parts.SEASON + parts.TREND + 14, 2)
    v = u[parts.SEASON + parts.TREND :]
    time = jnp.arange(length) / length
    middle = parts.between(v[0], -0.2, 1.2)
    logistic = jax.nn.sigmoid((time - middle) * parts.log_uniform(v[1], 3.0, 60.0))
    decay = jnp.exp(-time * parts.log_uniform(v[1], 0.5, 20.0))
    of_trend = u[parts.SEASON : parts.SEASON + parts.TREND]
    bent = parts.trend(of_trend, keys[0], length, length / 10)
    path = jnp.stack([logistic, decay, bent])[parts.pick(v[2], (1, 1, 2))]
    path = parts.standardised(path) * jnp.where(v[3] < 0.5, -1.0, 1.0)
    wave = parts.season(u[: parts.SEASON], length, usual_period(v[4:6]))
    size = parts.log_uniform(v[6], 0.003, 0.5) * (v[7] < 0.4)
    error = parts.log_uniform(v[8], 0.003, 0.3) * parts.noise(v[9:12], keys[1], length)
    return path + size * wave + error
