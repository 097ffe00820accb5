"""Config, info and trace: the request of a decode, and its answer beside the forecast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax

from stride_jax.config import whole_number
from stride_jax.errors import InputError


@dataclass(frozen=True)
class DecodeConfig:
    """Sizes and choices of one decode; everything here is static (a new value compiles anew).

    Attributes:
        horizon: steps to forecast.
        num_draft: K, patches the draft proposes a round (the last rounds: what is still missing);
            0 is plain autoregression.
        num_paths: S, sample paths of each series, an axis of the forecast; None for one path
            without that axis. The context is processed once for all of them.
        batch_size: series decoded at once, to bound the memory; None for all.
        path_chunk: paths of a series decoded at once; None for all.
        learned_scale: take the std of a prediction from its model where that has a gaussian head,
            instead of sigma; the draft's own needs a rule with free scales (residual).
        trace: keep what the rule saw of every proposal, in `DecodeInfo.trace`.
        least_lanes: 2 to decode a single path of one variable twice and return it once, where a
            model predicts one patch at a time; 1 not to; None for 2 on a GPU and 1 elsewhere. A GPU
            takes fewer launches for products of two rows than for those of one, which the compiler
            turns into sums.
        compactions: how often the unfinished paths of a speculative decode go on in a smaller
            batch, see `decoding.lanes`; each one compiles the loop once more. None for 2 where 64
            lanes or more (paths of a series, or series of one path) are decoded together and have 4
            patches or more, and 0 elsewhere, as well as for series that lie on several devices. The
            caches of the smaller batches take memory: half as much again for 2.
        unrolled: True to write out all K steps of a draft that predicts patch by patch, so that a
            round has no inner loop: fewer launches on a GPU, a larger program, and K steps also in
            the last rounds, where fewer count. False for a loop; None for True on a GPU where the
            draft is small (four layers for K 8) and its length fixed, and False elsewhere.
    """

    horizon: int
    num_draft: int = 3
    num_paths: int | None = None
    batch_size: int | None = None
    path_chunk: int | None = None
    learned_scale: bool = False
    trace: bool = False
    least_lanes: Literal[1, 2] | None = None
    compactions: int | None = None
    unrolled: bool | None = None

    @property
    def paths_at_once(self) -> int:
        """Paths of a series that are decoded at a time."""
        paths = self.num_paths or 1
        return min(self.path_chunk or paths, paths)

    def __post_init__(self) -> None:
        for name in (
            "horizon", "num_draft", "num_paths", "batch_size", "path_chunk", "compactions"
        ):  # fmt: skip
            value, least = getattr(self, name), 0 if name in ("num_draft", "compactions") else 1
            if value is not None or name in ("horizon", "num_draft"):
                object.__setattr__(self, name, whole_number(name, value, least=least))
        if self.least_lanes not in (None, 1, 2):
            raise InputError(f"least_lanes must be 1, 2 or None, got {self.least_lanes!r}.")
        if self.unrolled not in (None, True, False):
            raise InputError(f"unrolled must be True, False or None, got {self.unrolled!r}.")


ACCEPTED, RECOVERED, BONUS, AUTOREGRESSIVE = 0, 1, 2, 3
"""Where an emitted patch comes from; the values of `DecodeInfo.origin`."""


ORIGIN_NAMES = ("accepted", "recovered", "bonus", "autoregressive")


class Trace(NamedTuple):
    """The numbers a rule compared, round by round; R = N rounds have room.

    Attributes:
        start: `[R]` int32, the patch its first proposal stood for; -1 in rounds not played.
        log_ratio: `[R, K]`, what the rule compared.
        threshold: `[R, K]`, what it compared it with, see `info.rows`.
        accepted: `[R, K]` bool, kept.
        gap: `[R, K]`, RMS distance of the two means in units of sigma; with a covariance, of the
            whitened means.
        length: `[R]` int32, proposals drafted; what stands from there on means nothing.
    """

    start: jax.Array
    log_ratio: jax.Array
    threshold: jax.Array
    accepted: jax.Array
    gap: jax.Array
    length: jax.Array


class DecodeInfo(NamedTuple):
    """Counts and origins of one decoded path; N = ceil(horizon / P) patches.

    Fields get the leading axes that the forecast has.

    Only patches within the N count, so accepted + recovered + bonus = N.

    Attributes:
        accepted: `[K]` int32, accepted proposals by their place in the round.
        proposed: `[K]` int32, proposals tested at that place (all before them were accepted).
        rounds: int32, draft-and-verify rounds.
        target_passes: int32, sequential calls of the target; one verification is one pass over
            K + 1 prefixes. The pass over the context is not counted.
        drafted: int32, proposals drafted.
        overflow: int32, patches for which a rule's bounded loop ran out; 0 or say so.
        origin: `[N]` int32: 0 accepted, 1 recovered, 2 bonus, 3 autoregressive (also for K = 0).
        proposal: `[N, P, C]`, what the draft proposed last at each patch: the patch itself where
            accepted, the rejected one where recovered, NaN where nothing was proposed (0 with
            `jax_debug_nans`, which would stop there).
        trace: with `DecodeConfig.trace`, else None.
        valid_input: bool, whether the values of the series are such as `decode` accepts: a finite
            context, a finite sigma that is not negative (above 0 where a draft proposes), a factor
            that is one, and a length of whole patches (or steps, see `Traits`). `decode` raises for
            values on the host. It does not read those of a `jax.Array`, and where this is False the
            forecast means nothing.
        reported: `[N, P, C, Q]` float32 in the units of the series, what the target reports of each
            patch (see `Traits.reports`); None where it reports nothing. It comes from the pass that
            predicts the patch anyway, and is conditioned on the context and on the patches before
            it as the target sees them: those put out, but for rules that put out another patch
            than the accepted proposal (`mean` with emitted means, `shared_noise`) the proposals.
            Of the model that is rolled where the draft decodes alone; None for a draft that is no
            process.
    """

    accepted: jax.Array
    proposed: jax.Array
    rounds: jax.Array
    target_passes: jax.Array
    drafted: jax.Array
    overflow: jax.Array
    origin: jax.Array
    proposal: jax.Array
    trace: Trace | None = None
    valid_input: jax.Array | None = None
    reported: jax.Array | None = None


def no_value() -> float:
    """NaN, for numbers that there are none of; 0 with `jax_debug_nans`, which stops at any NaN."""
    config: Any = jax.config
    return 0.0 if config.jax_debug_nans else float("nan")


def num_patches(horizon: int, patch_len: int) -> int:
    """N, the patches that cover the horizon."""
    return -(-horizon // patch_len)
