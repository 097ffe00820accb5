"""Several proposals of a place: the first one that passes is kept, and its chain goes on.

SpecTr (Sun et al., arXiv 2310.15141) and its form for Gaussians. Letters as in `rules.exact`, and
n independent proposals with the projections S_1 ... S_n. Proposal k is compared with what the
proposals before it have left of the target's distribution, `(p - lam_{k-1} q)_+ / G_k`:

    lam_0 = 0, G_1 = 1
    S_k is kept with probability min(1, (p(S_k) / q(S_k) - lam_{k-1})_+ / G_k)
    lam_k = lam_{k-1} + G_k
    G_{k+1} = the mass of (p - lam_k q)_+

Where all n are rejected, the patch comes from `(p - lam_n q)_+ / G_{n+1}`. The chance that one of
them is kept is `1 - G_{n+1}`; for n = 1 it is `2 Phi(-delta / 2)`, as for `maximal`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from stride_jax.config import whole_number
from stride_jax.decoding.base import Outcome, Round, Rule
from stride_jax.decoding.rules.common import gap_at, target_draw
from stride_jax.decoding.rules.exact import Block, Maximal, Residual, residual_mass, residual_patch
from stride_jax.decoding.types import no_value
from stride_jax.errors import InputError


def left_over(delta: jax.Array, chains: int) -> tuple[jax.Array, jax.Array]:
    """lam_0 ... lam_n and G_1 ... G_{n+1}, each `[n + 1]`: what n proposals leave of the target.

    `G_{k+1} = lam_k Z` with Z the mass of `(p / lam_k - q)_+`, see `residual_mass`.

    Args:
        delta: distance of the two means in sigmas; may be infinite.
        chains: n.
    """
    lam, share = jnp.zeros((), jnp.float32), jnp.ones((), jnp.float32)
    lams, shares = [lam], [share]
    for _ in range(chains):
        lam = lam + share
        share = lam * residual_mass(-jnp.log(lam), delta)
        lams.append(lam)
        shares.append(share)
    return jnp.stack(lams), jnp.stack(shares)


def acceptance(delta: jax.Array, chains: int) -> jax.Array:
    """`1 - G_{n+1}`: the probability that one of n proposals of a place is kept."""
    return 1 - left_over(delta, chains)[1][-1]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Several(Rule):
    """Several independent chains of the draft; the chain whose first proposal passes goes on.

    Each round drafts n chains of K proposals, and the target verifies all of them in one pass over
    n (K + 1) patches. At the first place the n proposals are tried one after the other. The chain
    of the one that is kept is then decided by another rule from its second place on. Exact: the
    later places of a chain do not depend on which chain was chosen, given its first proposal. A
    draft that is not finite is rejected and replaced by a fresh draw.

    In `DecodeInfo` the counts are those of one chain: `drafted` does not count the others.

    Attributes:
        rest: the exact rule from the second place on, with its settings.
        chains: n; static.
    """

    exact: ClassVar = True
    guarantee: ClassVar = "the target's distribution, exactly"
    correlated: ClassVar = True

    rest: Rule = dataclasses.field(default_factory=Maximal)
    chains: int = dataclasses.field(default=2, metadata={"static": True})

    def check(self) -> None:
        """Raises InputError for a number of chains below 1, or a rest that is not exact."""
        whole_number("chains", self.chains, least=1)
        if not isinstance(self.rest, Maximal | Block | Residual):
            raise InputError(
                f"rest must be one of Maximal(), Block() and Residual(), got {self.rest!r}."
            )
        self.rest.check()

    def decide(self, key: jax.Array, current: Round) -> Outcome:
        """See `Rule`; a single chain."""
        return self.choose(key, jax.tree.map(lambda x: x[None], current))[1]

    def choose(self, key: jax.Array, rounds: Round) -> tuple[jax.Array, Outcome]:
        """Chooses a chain and decides it; consumes the key.

        Args:
            key: of this round.
            rounds: n rounds that differ in their noise and in what follows from it; every leaf has
                a leading n.

        Returns:
            The number of the chain, int32 (0 where no first proposal was kept), and its outcome.
        """
        first_key, along_key, rest_key = jax.random.split(key, 3)
        zero = jnp.zeros((), jnp.int32)

        # The first place: all n proposals have the same two distributions.
        gap = gap_at(jax.tree.map(lambda x: x[0], rounds), zero)  # [P, C]
        product = jnp.sum(gap[None] * rounds.noise[:, 0], axis=(1, 2))  # [n]
        square = jnp.sum(jnp.square(gap))
        ratio = product - 0.5 * square
        delta = jnp.where(jnp.isfinite(square), jnp.sqrt(square), jnp.inf)
        lam, share = left_over(delta, len(product))

        # The first proposal that passes, u <= (p / q - lam) / G.
        u = jax.random.uniform(first_key, product.shape, jnp.float32, minval=2.0**-24)
        threshold = jnp.log(lam[:-1] + u * share[:-1])
        passed = (threshold <= ratio) & (rounds.length > 0)
        some, chain = jnp.any(passed), jnp.argmax(passed).astype(jnp.int32)
        current = jax.tree.map(lambda x: x[chain], rounds)

        # None: the patch comes from what they have left, with the noise of the first across e.
        one = product[:1], square[None]
        recovered = residual_patch(along_key, current, zero, -jnp.log(lam[-1:]), one)

        # One: its chain goes on.
        rest = self._go_on(rest_key, current)
        return chain, Outcome(
            num_accepted=jnp.where(some, 1 + rest.num_accepted, 0).astype(jnp.int32),
            patch=jnp.where(some, rest.patch, recovered),
            log_ratio=_behind(ratio[chain], rest.log_ratio, current),
            threshold=_behind(threshold[chain], rest.threshold, current),
            overflow=jnp.where(some, jnp.asarray(rest.overflow), 0),
        )

    def _go_on(self, key: jax.Array, current: Round) -> Outcome:
        """The decision from the second place of a chain on."""
        if len(current.proposals) == 1:
            bonus = jnp.ones((), jnp.int32)
            return Outcome(jnp.zeros((), jnp.int32), target_draw(current, bonus))
        parts: dict[str, Any] = {
            name: value if value is None else value[1:]
            for name, value in current._asdict().items()
            if name not in ("length", "correlation", "missing")
        }
        length = jnp.maximum(current.length - 1, 0)
        # The exact rules do not read how many patches are missing.
        rest = current._replace(length=length, missing=None, **parts)
        return self.rest.decide(key, rest)


def _behind(first: jax.Array, rest: jax.Array | None, current: Round) -> jax.Array:
    """Numbers that were compared at each place, `[K]`; NaN where the other rule has no number."""
    missing = jnp.full(len(current.proposals) - 1, no_value(), jnp.float32)
    return jnp.concatenate([first[None], missing if rest is None else rest])
