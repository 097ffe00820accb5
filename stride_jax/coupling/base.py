"""The contract of an acceptance rule: `Rule`, the `Round` it is given, the `Outcome` it returns."""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp


class Round(NamedTuple):
    """One round of drafting and verifying, for one series. Place i holds proposal i + 1.

    Attributes:
        proposals: `[K, P, C]`, `draft_mean + draft_sigma * noise`.
        noise: `[K, P, C]`, standard normal; 0 for rules that propose means.
        draft_mean: `[K, P, C]`.
        draft_sigma: `[K, P, C]`, std the proposals were drawn with.
        target_mean: `[K + 1, P, C]`; entry i is the target's mean after i proposals.
        target_sigma: `[K + 1, P, C]`, std of the target's predictions.
        draft_logvar: `[K, P, C]`, the draft's learned log variance, or None.
        fresh: `[K + 1, P, C]`, standard normal noise of the patches of this round; sampled
            proposals have not used it.
        length: int32, 0 to K, proposals that count; those from there on were not drafted.
    """

    proposals: jax.Array
    noise: jax.Array
    draft_mean: jax.Array
    draft_sigma: jax.Array
    target_mean: jax.Array
    target_sigma: jax.Array
    draft_logvar: jax.Array | None
    fresh: jax.Array
    length: jax.Array


class Outcome(NamedTuple):
    """What a rule decides.

    Attributes:
        num_accepted: int32, 0 to `length`: the leading proposals that are kept as context.
        patch: `[P, C]`, what follows them: recovered, or the bonus if all were accepted.
        emitted: `[K, P, C]`, what is put out where proposals are accepted; None for themselves.
        log_ratio: `[K]`, what was compared, for the trace; None if the rule has no such number.
        threshold: `[K]`, what it was compared with.
        overflow: int32, 1 if a bounded loop ran out and the patch is not what it should be.
    """

    num_accepted: jax.Array
    patch: jax.Array
    emitted: jax.Array | None = None
    log_ratio: jax.Array | None = None
    threshold: jax.Array | None = None
    overflow: jax.Array | int = 0


class Rule:
    """An acceptance rule: which leading proposals of a round stay, and which patch follows them.

    A rule is a frozen dataclass registered as a pytree. Its fields are its settings; they are
    traced, so a sweep over them compiles once. A rule of your own needs `decide` alone:

        @jax.tree_util.register_dataclass
        @dataclass(frozen=True)
        class AcceptAll(Rule):
            def decide(self, key, current):
                return Outcome(current.length, target_draw(current, current.length))

    Attributes:
        exact: the output follows the distribution of the target process, whatever the draft does.
        guarantee: what the output follows, in words for the tables.
        proposes: sample draws proposals from the draft's distribution, mean takes its means (noise
            0), patch_noise draws with the noise that the target would use for the same patch.
        scales: tied rules need one sigma for target and draft; a free rule allows the draft a
            sigma of its own.
    """

    exact: ClassVar[bool] = False
    guarantee: ClassVar[str] = "none stated"
    proposes: ClassVar[Literal["sample", "mean", "patch_noise"]] = "sample"
    scales: ClassVar[Literal["tied", "free"]] = "tied"

    def check(self) -> None:
        """Raises InputError for settings that are concrete and out of range."""

    def decide(self, key: jax.Array, current: Round) -> Outcome:
        """Decides one round of one path; consumes the key."""
        raise NotImplementedError


def num_leading(accepted: jax.Array, length: jax.Array) -> jax.Array:
    """How many of the first `length` entries of `[K]` bool are true before one is false; int32."""
    real = jnp.arange(accepted.shape[0]) < length
    return jnp.sum(jnp.cumprod((accepted & real).astype(jnp.int32))).astype(jnp.int32)


def log_uniform(key: jax.Array, count: int) -> jax.Array:
    """`log u` of `[count]` uniform draws, never minus infinity; `key` is consumed."""
    tiny = jnp.finfo(jnp.float32).tiny
    return jnp.log(jax.random.uniform(key, (count,), jnp.float32, minval=tiny))


def gaps(current: Round) -> jax.Array:
    """`(target mean - draft mean) / sigma` at each proposal, `[K, P, C]`."""
    return (current.target_mean[:-1] - current.draft_mean) / current.target_sigma[:-1]


def log_ratios(current: Round) -> jax.Array:
    """`log p(x) - log q(x)` of each proposal under one sigma for both distributions, `[K]`.

    With the gap d and the noise z of the proposal it is `d . z - |d|^2 / 2`: no difference of two
    large squares, and nothing is read back from the rounded proposal.
    """
    d = gaps(current)
    return jnp.sum(d * current.noise, axis=(1, 2)) - 0.5 * jnp.sum(jnp.square(d), axis=(1, 2))


def target_draw(current: Round, place: jax.Array) -> jax.Array:
    """A fresh draw from the target's distribution after `place` proposals, `[P, C]`."""
    return current.target_mean[place] + current.target_sigma[place] * current.fresh[place]
