"""Rules whose output follows the target process, whatever the draft does.

Letters: x = mu_q + s z is proposed from q = N(mu_q, s^2), the target predicts p = N(mu_p, s^2);
`d = (mu_p - mu_q) / s`, `delta = |d|`, `e = d / delta`, `S = e . z`, so that
`log p(x) / q(x) = delta (S - delta / 2)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri
from jax.scipy.stats import norm

from stride_jax.decoding import gaussian
from stride_jax.decoding.base import Outcome, Round, Rule
from stride_jax.decoding.mixture import leading
from stride_jax.decoding.rules.common import (
    gap_at,
    gap_products,
    log_uniform,
    num_leading,
    target_draw,
    target_patch,
)
from stride_jax.decoding.scale import Correlation, apply, whiten
from stride_jax.decoding.traits import density_at

NEWTON_STEPS = 5
"""Steps in `block`; from the fourth on the rounding of the mass is all that is left."""
LEAST = -6.0
"""A bound of a standard normal: less is below it than a uniform draw in float32 resolves."""
TINY = float(jnp.finfo(jnp.float32).tiny)
"""Keeps a mass of 0 out of logarithms and quotients."""
DRAWS, TRIES = 16, 64
"""`residual` draws at most 64 times 16 patches before it gives up and counts an overflow."""
Search = tuple[jax.Array, jax.Array, jax.Array]
"""Blocks drawn so far, whether a draw was accepted, and the patch."""
SMALL = 1e-6
"""A delta below this is treated as two equal distributions."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Maximal(Rule):
    """Reflection coupling (De Bortoli et al., arXiv 2501.05370): exact, the most any rule accepts.

    A proposal is accepted when `log u <= log p(x) - log q(x)`, else its noise is mirrored. Each
    emitted patch follows the target's distribution given what was emitted before it, whatever the
    draft; P(accept) = 2 Phi(-delta / 2). A draft that is not finite is rejected and replaced by a
    fresh draw.
    """

    exact: ClassVar = True
    guarantee: ClassVar = "the target's distribution, exactly"
    correlated: ClassVar = True

    def decide(self, key: jax.Array, current: Round) -> Outcome:
        """See `Rule`."""
        product, square = gap_products(current)
        ratio = product - 0.5 * square
        log_u = log_uniform(key, len(ratio))
        count = num_leading(log_u <= ratio, current.length)
        first = jnp.minimum(count, len(ratio) - 1)
        noise = gaussian.mirror_along(
            current.noise[first], gap_at(current, first), product[first], square[first]
        )
        mirrored = target_patch(current, first, noise)
        mirror = (count < current.length) & jnp.isfinite(square[first])
        patch = jnp.where(mirror, mirrored, target_draw(current, count))
        return Outcome(count, patch, log_ratio=ratio, threshold=log_u)


def residual_mass(log_lam: jax.Array, delta: jax.Array) -> jax.Array:
    """Z, the mass of `(lam p - q)_+` for lam <= 1; 0 where the two are equal.

    `Z = lam Phi(d/2 + a) - Phi(-d/2 + a)` with `a = log lam / d`.
    """
    safe = jnp.maximum(delta, SMALL)
    shift = log_lam / safe
    mass = jnp.exp(log_lam) * norm.cdf(safe / 2 + shift) - norm.cdf(shift - safe / 2)
    some = (delta > SMALL) & (log_lam > -jnp.inf)
    return jnp.where(some, jnp.maximum(mass, 0.0), 0.0)


def residual_along(log_lam: jax.Array, delta: jax.Array, v: jax.Array) -> jax.Array:
    """`S - d`, S with the density of `(lam p - q)_+` along e: where p is N(0, 1) and q N(-d, 1).

    The mass above a point r there, `F(r) = lam Phi(-r) - Phi(-r - d)`, falls from Z at
    `a = -d/2 - log lam / d` to 0; `F(r) = v Z` is solved for r. Counted from p, so that a huge d
    costs no digits.

    `log F` is nearly a line in `(r - a)^2`, for a small d exactly `-(r - a)^2 / 2`, so Newton's
    method in that variable is there after a few steps. It starts where `lam Phi(-r) = v Z`, which
    is the solution for a large d. The steps are written out, not looped: one operation of an
    accelerator.
    """
    # The bracket of r.
    safe, lam = jnp.maximum(delta, SMALL), jnp.exp(log_lam)
    crossing = -safe / 2 - log_lam / safe
    low = jnp.maximum(crossing, LEAST)
    high = jnp.maximum(low, 0.0) + 12

    # The start, and the goal.
    goal = v * residual_mass(log_lam, delta)
    log_goal = jnp.log(goal)
    r = jnp.clip(-ndtri(jnp.minimum(goal / jnp.maximum(lam, TINY), 1.0)), low, high)

    for _ in range(NEWTON_STEPS):
        x = jnp.maximum(r - low, SMALL)
        above = jnp.maximum(lam * norm.cdf(-r) - norm.cdf(-r - delta), TINY)
        # The density lam p - q as lam p (1 - q / (lam p)), over x.
        slope = lam * norm.pdf(r) * -jnp.expm1(-delta * (x + (low - crossing))) / x
        square = jnp.square(x) + 2 * (jnp.log(above) - log_goal) * above / slope
        new = jnp.clip(low + jnp.sqrt(jnp.maximum(square, 0.0)), low, high)
        r = jnp.where(jnp.isfinite(square), new, r)
    return r


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Block(Rule):
    """Block verification (Sun et al., arXiv 2403.10444; Gaussian: Soen et al., arXiv 2606.13426).

    Proposals are judged together: `p_0 = 1`, `p_i = min(p_{i-1} p(x_i) / q(x_i), 1)`, and the
    longest prefix i with `u_i <= h_i` is kept, `h_i = Z_i / (Z_i + 1 - p_i)` with Z_i the mass of
    `(p_i p - q)_+` at the next patch, and `h_n = p_n` for the last. The patch after it comes from
    that residual. Exact like `maximal`, and never keeps fewer on average.
    """

    exact: ClassVar = True
    guarantee: ClassVar = "the target's distribution, exactly"
    correlated: ClassVar = True

    def decide(self, key: jax.Array, current: Round) -> Outcome:
        """See `Rule`."""
        # Ratios and gaps; a draft that is not finite shares nothing with the target.
        places = jnp.arange(current.proposals.shape[0])
        products = product, square = gap_products(current)
        ratio, delta = product - 0.5 * square, jnp.sqrt(square)
        ratio = jnp.where(jnp.isfinite(ratio), ratio, -jnp.inf)
        delta = jnp.where(jnp.isfinite(delta), delta, jnp.inf)

        def clip(log_p: jax.Array, step: jax.Array) -> tuple[jax.Array, jax.Array]:
            log_p = jnp.minimum(log_p + step, 0.0)
            return log_p, log_p

        # log p_1 ... log p_K
        _, log_p = jax.lax.scan(clip, jnp.zeros((), jnp.float32), ratio, unroll=True)

        # h_i of each prefix; the last drafted proposal has no next patch to look at.
        mass = residual_mass(log_p[:-1], delta[1:])
        rest = mass - jnp.expm1(log_p[:-1])  # Z + 1 - p
        share = jnp.where(rest > 0, mass / jnp.where(rest > 0, rest, 1.0), 1.0)
        last = places == current.length - 1
        none = jnp.zeros(1, jnp.float32)
        log_h = jnp.where(last, log_p, jnp.log(jnp.concatenate([share, none])))

        # The longest prefix that fits.
        uniform_key, along_key = jax.random.split(key)
        log_u = log_uniform(uniform_key, len(places))
        fits = (log_u <= log_h) & (places < current.length)
        count = jnp.max(jnp.where(fits, places + 1, 0)).astype(jnp.int32)

        # The patch after it, from the residual distribution.
        before = jnp.concatenate([none, log_p])  # log p_0 ... log p_K
        patch = residual_patch(along_key, current, count, before, products)
        return Outcome(count, patch, log_ratio=log_h, threshold=log_u)


def residual_patch(
    key: jax.Array,
    current: Round,
    count: jax.Array,
    log_p: jax.Array,
    products: tuple[jax.Array, jax.Array],
) -> jax.Array:
    """The patch after `count` kept ones: the residual along e, the noise it had across e.

    Args:
        key: consumed.
        current: the round.
        count: int32, how many proposals are kept.
        log_p: `[K + 1]`, log p_0 ... log p_K.
        products: each `[K]`, see `gap_products`.
    """
    first = jnp.minimum(count, len(current.proposals) - 1)
    product, square = products[0][first], products[1][first]
    size = jnp.sqrt(square)
    uniform = jax.random.uniform(key, (), jnp.float32, minval=2.0**-24)
    safe = jnp.maximum(size, SMALL)
    # From the part along e that the noise had to the one it gets.
    moved = residual_along(log_p[first], size, uniform) - product / safe
    noise = current.noise[first] + moved / safe * gap_at(current, first)
    recovered = target_patch(current, first, noise)
    good = (count < current.length) & jnp.isfinite(size) & (size > SMALL)
    return jnp.where(good, recovered, target_draw(current, count))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Residual(Rule):
    """Any two densities, such as Gaussians of unequal variance: the full ratio, else rejection.

    The draft's is a Gaussian; the target's may be any (`PatchDistribution.density`). On rejection y
    is drawn from p until `u > q(y) / p(y)`, which leaves `(p - q)_+`. The loop is bounded at 1,024
    draws; a run-out takes a plain draw from p and is counted in `overflow`: at most one patch in
    e x 1,024, whatever p and q are. A draft that is not finite is replaced by a plain draw, which
    is right.
    """

    exact: ClassVar = True
    guarantee: ClassVar = "the target's distribution, exactly"
    correlated: ClassVar = True
    scales: ClassVar = "free"
    densities: ClassVar = True

    def decide(self, key: jax.Array, current: Round) -> Outcome:
        """See `Rule`."""
        ratio = target_log_ratio(current, slice(len(current.proposals)), current.proposals)

        # Accept the leading proposals by the full ratio.
        accept_key, redraw_key = jax.random.split(key)
        log_u = log_uniform(accept_key, len(ratio))
        count = num_leading(log_u <= ratio, current.length)
        first = jnp.minimum(count, len(ratio) - 1)

        # Draw the patch after them from the residual distribution, or afresh for the bonus.
        rejected = count < current.length
        needed = rejected & jnp.isfinite(ratio[first])
        accepted, drawn = _redraw(redraw_key, current, first, needed=needed)
        patch = jnp.where(rejected & accepted, drawn, target_draw(current, count))
        ran_out = needed & ~accepted
        return Outcome(
            count, patch, log_ratio=ratio, threshold=log_u, overflow=ran_out.astype(jnp.int32)
        )


def target_log_ratio(current: Round, place: jax.Array | slice, x: jax.Array) -> jax.Array:
    """`log p(x) - log q(x)` of patches `[..., P, C]` after `place` proposals, `[...]`."""

    def part(array: jax.Array) -> jax.Array:  # with the axes that x has more
        return leading(array[place], x.ndim)

    drawn_from = part(current.draft_mean), part(current.draft_sigma)
    if current.density is None:
        predicted = part(current.target_mean), part(current.target_sigma)
        return full_log_ratio(x, *predicted, *drawn_from, current.correlation)
    log_p = density_at(current.density, place).log_prob(x)  # [..., P, C]
    return jnp.sum(log_p - norm.logpdf(x, *drawn_from), axis=(-2, -1))


def target_draws(key: jax.Array, current: Round, place: jax.Array, count: int) -> jax.Array:
    """Draws `[count, P, C]` from the target's prediction after `place` proposals; uses `key`."""
    if current.density is not None:
        return density_at(current.density, place).sample(key, count)
    mean, sigma = current.target_mean[place], current.target_sigma[place]
    noise = jax.random.normal(key, (count, *mean.shape), jnp.float32)
    return mean[None] + apply(noise, sigma[None], current.correlation)


def full_log_ratio(
    x: jax.Array,
    mean_p: jax.Array,
    sigma_p: jax.Array,
    mean_q: jax.Array,
    sigma_q: jax.Array,
    correlation: Correlation | None = None,
) -> jax.Array:
    """`log p(x) - log q(x)` summed over the last two axes, the log-determinants included.

    Both share the correlation, whose determinant drops out. Written as
    `(z_q - z_p)(z_q + z_p) / 2`, so that two large squares never cancel after the sum.
    """
    z_p = whiten(x - mean_p, sigma_p, correlation)
    z_q = whiten(x - mean_q, sigma_q, correlation)
    terms = 0.5 * (z_q - z_p) * (z_q + z_p) + jnp.log(sigma_q) - jnp.log(sigma_p)
    return jnp.sum(terms, axis=(-2, -1))


def _redraw(
    key: jax.Array, current: Round, place: jax.Array, *, needed: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """A draw from `(p - q)_+` after `place` proposals: `(accepted, patch)`; consumes `key`.

    No work unless `needed`.
    """

    def tries(carry: Search) -> Search:
        number, _, _ = carry
        noise_key, uniform_key = jax.random.split(jax.random.fold_in(key, number))
        y = target_draws(noise_key, current, place, DRAWS)
        log_q_over_p = -target_log_ratio(current, place, y)
        good = log_uniform(uniform_key, DRAWS) > log_q_over_p
        return number + 1, jnp.any(good), y[jnp.argmax(good)]

    def more(carry: Search) -> jax.Array:
        number, accepted, _ = carry
        return needed & ~accepted & (number < TRIES)

    start = (jnp.zeros((), jnp.int32), jnp.zeros((), bool), current.target_mean[place])
    _, accepted, patch = jax.lax.while_loop(more, tries, start)
    return accepted, patch
