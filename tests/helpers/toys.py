"""Small forecasters and decodes shared by the tests of the decoders."""

import dataclasses
import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from stride_jax.decoding.processes import cached_process, window_process
from stride_jax.decoding.speculative import decode
from stride_jax.decoding.types import ACCEPTED, BONUS, DecodeConfig
from stride_jax.models import init_params
from stride_jax.models.cached import CachedTimerXL
from stride_jax.models.config import TimerXLConfig
from stride_jax.types import PatchDistribution

PATCH_LEN, NUM_VARS, CONTEXT_LEN = 3, 2, 12
TARGET_LEN, DRAFT_LEN = 10, 7  # both shorter than the context, and different
SIGMA = 0.6


def forecast_tanh(weight, mix, window):
    """A bounded forecaster that depends on the place and the variable of every value."""
    return jnp.tanh(weight @ window @ mix)


def parameters(length: int, gap: float = 0.0, patch_len: int = PATCH_LEN, num_vars: int = NUM_VARS):
    """`(weight, mix)` of `forecast_tanh`; `gap` is added to the weights of the latest steps."""
    rng = np.random.default_rng(2)
    weight = rng.normal(size=(patch_len, 40))[:, -length:] / 3
    weight[:, -3:] += gap
    mix = rng.normal(size=(num_vars, num_vars)) / np.sqrt(num_vars)
    return weight.astype(np.float32), mix.astype(np.float32)


def process(length: int, gap: float = 0.0, **sizes: int):
    """A window process of `forecast_tanh` that sees `length` steps."""
    predict = Partial(forecast_tanh, *map(jnp.asarray, parameters(length, gap, **sizes)))
    return window_process(predict, sizes.get("patch_len", PATCH_LEN), context_len=length)


def history(*shape: int) -> np.ndarray:
    """A random context."""
    return np.random.default_rng(4).normal(size=shape).astype(np.float32)


TARGET, DRAFT = process(TARGET_LEN), process(DRAFT_LEN, 0.1)
CONTEXT = history(CONTEXT_LEN, NUM_VARS)
BATCH = history(5, CONTEXT_LEN, NUM_VARS)
CONFIG = DecodeConfig(horizon=20, num_draft=3)  # N = 7, the last patch is cut


def speculate(key, context=CONTEXT, target=TARGET, draft=DRAFT, sigma=SIGMA, config=CONFIG, **rest):
    """`decode` of target and draft with defaults."""
    return decode(key, context, target=target, draft=draft, sigma=sigma, config=config, **rest)


def roll(key, context=CONTEXT, target=TARGET, sigma=SIGMA, config=CONFIG, **rest):
    """`decode` of the target alone with defaults."""
    return decode(key, context, target=target, sigma=sigma, config=config, **rest)


def one_loop(*args, config, **rest):
    """`decode` whose loop is compiled once; the paths do not depend on that, see `test_lanes`."""
    return decode(*args, config=dataclasses.replace(config, compactions=0), **rest)


def registered(cls):
    """The class as what a rule of one's own must be: a frozen dataclass registered as a pytree."""
    return jax.tree_util.register_dataclass(dataclass(frozen=True)(cls))


def assert_same(found, expected, atol: float = 1e-5) -> None:
    """Two decodes are the same: integers exactly, values to `atol`."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, atol=atol if a.dtype == jnp.float32 else 0)


def take(out, *place):
    """One entry of the leading axes of every field."""
    return jax.tree.map(lambda leaf: leaf[place], out)


# --- from caches -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Fading:
    """A `CachedModel`: tanh of a mixed sum of all patches, older ones fading."""

    decay: float = 0.6

    def prefill(self, params, patches, skip):
        """The faded sum of the context, `[P, C]`."""
        sums = self._sums(jnp.zeros(patches.shape[1:]), patches)
        return sums[-1] if len(patches) else jnp.zeros(patches.shape[1:])

    def empty_cache(self, params, prefill, count):
        """The sum after every further patch; void entries are wild, so that reading one shows."""
        return jnp.full((count, *prefill.shape), 1e3)

    def extend(self, params, prefill, cache, patches, start):
        """See `CachedModel`."""
        before = jnp.where(start == 0, prefill, cache[jnp.maximum(start - 1, 0)])
        sums = self._sums(before, patches)
        mean = jnp.tanh(jnp.einsum("pq,kqc,cd->kpd", params["weight"], sums, params["mix"]))
        return PatchDistribution(mean), jax.lax.dynamic_update_slice_in_dim(cache, sums, start, 0)

    def _sums(self, before, patches):
        def add(total, patch):
            total = self.decay * total + patch
            return total, total

        return jax.lax.scan(add, before, patches)[1]


@functools.cache
def fading(gap: float = 0.0):
    """A cached process of `Fading`, with causal normalisation."""
    weight, mix = parameters(PATCH_LEN, gap)
    params = {"weight": jnp.asarray(weight), "mix": jnp.asarray(mix)}
    return cached_process(Fading(), params, PATCH_LEN, norm="causal")


TIMER_XL = TimerXLConfig(
    patch_len=PATCH_LEN,
    d_model=8,
    num_heads=2,
    d_ff=8,
    instance_norm="causal",
    variable_stride=CONTEXT_LEN // PATCH_LEN,
    dropout=0.0,
)


@functools.cache
def timer_xl(change: float = 0.0):
    """A cached process of a small Timer-XL; `change` perturbs the parameters."""
    params = init_params(jax.random.key(1), TIMER_XL)
    other = init_params(jax.random.key(2), TIMER_XL)
    params = jax.tree.map(lambda a, b: a + change * b, params, other)
    return cached_process(CachedTimerXL(TIMER_XL), params, PATCH_LEN, norm="causal")


# --- linear, with distributions in closed form ----------------------------------------------------

MATRIX = np.float32([[0.5, -0.3], [0.4, 0.6]])
LINE = np.float32([[0.3], [-1.2], [0.8], [0.5]])  # a context of two patches of two steps


def forecast_line(matrix, offset, window):
    """Linear in the last patch, plus a constant."""
    return matrix @ window[-2:] + offset


def forecast_line_std(matrix, offset, std, window):
    """`forecast_line` with a learned std, `[P, 1]`."""
    return PatchDistribution(forecast_line(matrix, offset, window), 2 * jnp.log(std))


def line(offset: float = 0.0, std=None):
    """A process of `forecast_line`; with `std` one that knows its own."""
    if std is None:
        return window_process(Partial(forecast_line, jnp.asarray(MATRIX), jnp.float32(offset)), 2)
    args = jnp.asarray(MATRIX), jnp.float32(offset), jnp.asarray(std, jnp.float32)
    return window_process(Partial(forecast_line_std, *args), 2)


def line_distributions(std, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """`(mean [2], std [2])` of each of the first patches after LINE, `std` scalar or `[2]`."""
    matrix, mean, cov, distributions = (
        np.float64(MATRIX),
        np.float64(LINE[-2:, 0]),
        np.zeros((2, 2)),
        [],
    )
    for _ in range(count):
        mean = matrix @ mean
        cov = matrix @ cov @ matrix.T + np.diag(np.broadcast_to(np.square(std), 2))
        distributions.append((mean, np.sqrt(np.diag(cov))))
    return distributions


# --- counting by hand --------------------------------------------------------------------------


def draft_steps(origins: list[int], num_draft: int) -> int:
    """Proposals of all rounds, read off the origins: K, or as many as were still missing."""
    ends = [n + 1 for n, origin in enumerate(origins) if origin != ACCEPTED]
    starts = [n for n in (0, *ends) if n < len(origins)]
    return sum(min(num_draft, len(origins) - start) for start in starts)


def recount(origins: list[int], num_draft: int) -> tuple[list[int], list[int], int]:
    """`(accepted, proposed, rounds)` read off the origins of the patches."""
    accepted, proposed, rounds, place = [0] * num_draft, [0] * num_draft, 0, 0
    for origin in origins:
        rounds += place == 0
        if origin == BONUS:
            assert place == num_draft
        else:
            proposed[place] += 1
            accepted[place] += origin == ACCEPTED
        place = place + 1 if origin == ACCEPTED else 0
    return accepted, proposed, rounds
