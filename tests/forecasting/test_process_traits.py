"""What a process says of itself decides how `forecast` shows it a history; not its class."""

import dataclasses
import sys
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.forecasts import CAUSAL, WINDOW, pair_of, walk
from helpers.frames import REPEAT
from helpers.levels import P
from helpers.toys import registered
from hypothesis import given
from hypothesis import strategies as st

from stride_jax.checkpoints.build import make_target
from stride_jax.checkpoints.pair import Pair
from stride_jax.decoding.drafts import multi_patch_draft
from stride_jax.decoding.naive_drafts import seasonal_draft
from stride_jax.decoding.processes import cached_process, window_process
from stride_jax.decoding.rules import Mean
from stride_jax.decoding.traits import Traits, traits_of
from stride_jax.decoding.types import DecodeInfo
from stride_jax.errors import InputError, InputWarning
from stride_jax.forecasting.forecast import forecast
from stride_jax.forecasting.lengths import few_patches
from stride_jax.types import PatchDistribution

TRACES: list[tuple[int, ...]] = []


def halfway(window: jax.Array) -> jax.Array:
    """Half the way from the last patch to the mean of all that is seen; counts its traces."""
    TRACES.append(window.shape)
    return (window[-P:] + window.mean(axis=0, keepdims=True)) / 2


def path(
    target: Any, history: Any, horizon: int = 6, *, draft: Any = None, **settings: Any
) -> np.ndarray:
    """The mean path; a sigma that is given need not be measured."""
    settings = {"num_samples": 0, "sigma": 1.0, **settings}
    return forecast(pair_of(target, draft), history, horizon, **settings).mean


def by_hand(one: np.ndarray, horizon: int = 6) -> np.ndarray:
    """What `halfway` says after a history, of which it goes on seeing as many steps."""
    grown = np.concatenate([np.repeat(one[:1], max(0, P - len(one))), one])
    size = len(grown)
    for _ in range(-(-horizon // P)):
        grown = np.append(grown, (grown[-P:] + grown[-size:].mean()) / 2)
    return grown[size:][:horizon]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Own:
    """A process of one's own, with a mask: half the way from the last patch to the mean of all.

    Its state is the sum and the count of the history, and the last patch.
    """

    weight: jax.Array
    patch_len: int = dataclasses.field(default=P, metadata={"static": True})

    @property
    def supports_padding(self) -> bool:
        """Padding is masked."""
        return True

    def prepare(self, context: jax.Array, length: Any = None) -> Any:
        """Sum, count and last patch."""
        count = jnp.int32(context.shape[0]) if length is None else length
        real = jnp.arange(context.shape[0]) >= context.shape[0] - count
        total = jnp.where(real[:, None], context, 0.0).sum(axis=0)
        return total, count.astype(jnp.float32), context[-P:]

    def start(self, memory: Any, room: int) -> Any:
        """The same."""
        return memory

    def verify(
        self, memory: Any, state: Any, proposals: jax.Array
    ) -> tuple[PatchDistribution, Any]:
        """The mean after every prefix."""
        total, count, last = state
        sums = jnp.cumsum(jnp.concatenate([total[None], proposals.sum(axis=1)]), axis=0)
        counts = count + P * jnp.arange(len(proposals) + 1)
        lasts = jnp.concatenate([last[None], proposals])
        mean = sums / counts[:, None]
        return PatchDistribution(self.weight * (lasts + mean[:, None]) / 2), state

    def step(self, memory: Any, state: Any, patch: jax.Array) -> tuple[PatchDistribution, Any]:
        """One more patch."""
        state = self.commit(state, patch[None], jnp.int32(1))
        return jax.tree.map(lambda x: x[0], self.verify(memory, state, patch[None][:0])[0]), state

    def commit(self, state: Any, patches: jax.Array, count: jax.Array) -> Any:
        """Adds the first patches."""
        total, size, last = state
        kept = jnp.arange(len(patches)) < count
        total = total + jnp.where(kept[:, None, None], patches, 0).sum(axis=(0, 1))
        newest = patches[jnp.maximum(count - 1, 0)]
        return total, size + P * count, jnp.where(count > 0, newest, last)

    def drafting(self) -> Any:
        """Itself."""
        return self


OWN = Own(jnp.float32(1))


# --- the traits ----------------------------------------------------------------------------------


def test_our_processes_say_what_they_are() -> None:
    """`forecast` would take a cached process for one without a mask, or standardise for no one."""
    window = window_process(halfway, P, context_len=10)
    assert traits_of(window) == Traits(context_len=10)
    assert traits_of(REPEAT) == Traits(supports_padding=True, starts_empty=True)
    for norm in ("causal", "frozen"):
        process = cached_process(REPEAT.model, {}, P, norm=norm, context_len=8)
        assert traits_of(process) == Traits(True, 8, True, norm == "causal")
    assert traits_of(make_target(WINDOW, "window", 16, 1)) == Traits(False, 16, True)
    assert traits_of(make_target(CAUSAL, "cached", 16, 1)) == Traits(True, 16, True, True)


def test_a_process_that_says_nothing_has_the_defaults() -> None:
    """A process of one's own would have to know of every trait."""
    assert traits_of(object()) == Traits()
    assert traits_of(OWN) == Traits(supports_padding=True)


@pytest.mark.parametrize(
    ("trait", "value"),
    [
        ("supports_padding", "yes"),
        ("supports_padding", None),
        ("normalises", 1),
        ("starts_empty", "no"),
        ("context_len", 0),
        ("context_len", 2.5),
        ("context_len", "16"),
        ("context_len", True),
    ],
)
def test_traits_that_mean_nothing_are_refused(trait: str, value: Any) -> None:
    """Text would be true, and half a step cut a history at another place."""
    odd = registered(type("Odd", (Own,), {trait: value}))(jnp.float32(1))
    with pytest.raises(InputError, match=rf"{trait} of Odd must be .* got {value!r}"):
        forecast(odd, walk(12), 6)


# --- a process of one's own with a mask ----------------------------------------------------------

RAGGED = [walk(n, seed=n) + n for n in (9, 1, 40, 4, 16, 23)]


def test_a_mask_of_ones_own_is_used_like_ours() -> None:
    """Series would be decoded length by length, as if the process knew no padding."""
    found = path(OWN, RAGGED)
    for one, own in zip(RAGGED, found, strict=True):
        whole = one[len(one) % P :] if len(one) >= P else np.append(np.repeat(one[0], P - 1), one)
        total, grown = list(whole), list(whole)
        for _ in range(2):
            grown += list((np.array(grown[-P:]) + np.mean(grown)) / 2)
        np.testing.assert_allclose(own, grown[len(total) :][:6], rtol=1e-4)


@pytest.mark.parametrize("draft", [None, "process", "continuation"])
def test_one_program_serves_a_ragged_batch_of_ones_own(draft: str | None) -> None:
    """A process with a mask would be compiled for each length, and sigma be unknown or NaN."""
    TRACES.clear()

    @jax.tree_util.register_dataclass
    @dataclass(frozen=True)
    class Counted(Own):
        def prepare(self, context: jax.Array, length: Any = None) -> Any:
            TRACES.append(context.shape)
            assert length is not None
            return super().prepare(context, length)

    drafts = {
        None: None,
        "process": window_process(lambda window: window[-P:], P),
        "continuation": seasonal_draft(P, 3),
    }
    pair = Pair(Counted(jnp.float32(1)), drafts[draft])
    settings = {"num_draft": 2, "num_samples": 3, "quantiles": ()}
    with pytest.warns(InputWarning, match="series 1: one value"):
        found = forecast(pair, RAGGED, 6, **settings)
    # the decode, and sigma of long histories and of those too short to measure
    assert len(TRACES) == 3
    assert np.isfinite(found.paths).all()
    assert (found.sigma > 0).all()


def test_sigma_of_ones_own_counts_no_padding() -> None:
    """Errors against padding, or after a history of nothing, would be taken for the model's."""
    batch = [RAGGED[2], RAGGED[0]]
    together = forecast(OWN, batch, 6, num_samples=0).sigma
    for one, sigma in zip(batch, together, strict=True):
        np.testing.assert_allclose(forecast(OWN, one, 6, num_samples=0).sigma, sigma, rtol=1e-4)


@pytest.mark.parametrize("normalises", [False, True])
def test_a_process_that_normalises_sees_a_standardised_history(normalises: bool) -> None:
    """A large level would be rounded in float32, or degrees be taken for standard deviations."""
    seen: list[float] = []

    def watch(window: jax.Array) -> jax.Array:
        jax.debug.callback(lambda x: seen.append(float(np.abs(x).max())), window)
        return window[-P:]

    target = window_process(watch, P, context_len=8, normalises=normalises)
    found = path(target, 1e6 + walk(8), horizon=4)
    jax.effects_barrier()
    assert (max(seen) < 10) == normalises
    np.testing.assert_allclose(found, (1e6 + walk(8))[-P:], atol=1e-3 if normalises else 1)


# --- what the decoder takes ----------------------------------------------------------------------


@pytest.mark.parametrize(("length", "size"), [(10, 10), (11, 10), (13, 10), (5, 5), (40, 9)])
def test_a_window_of_no_whole_patches(length: int, size: int) -> None:
    """A history of enough steps would be cut to whole patches first, and be too short then."""
    target = window_process(halfway, P, context_len=size)
    for history in (walk(length), [walk(length), walk(31)]):
        found = np.atleast_2d(path(target, history))[0]
        np.testing.assert_allclose(found, by_hand(walk(length)[-size:]), atol=1e-5)
    assert forecast(target, walk(length), 6, num_samples=0).sigma > 0


def test_a_window_longer_than_the_history_is_refused() -> None:
    """A model would be shown less than it was made for, or be refused for the wrong reason."""
    with pytest.raises(InputError, match=r"has 8 steps.* needs 10"):
        path(window_process(halfway, P, context_len=10), walk(9))


@pytest.mark.parametrize(
    ("target", "size", "history"),
    [
        (REPEAT, 12, RAGGED),
        (REPEAT, None, RAGGED[2]),
        pytest.param(CAUSAL, 5, RAGGED, marks=pytest.mark.slow),
        (OWN, 12, RAGGED),
        (OWN, None, RAGGED[0]),
    ],
)
def test_a_window_draft_of_ones_own(target: Any, size: int | None, history: Any) -> None:
    """A draft without a mask could not be used with a target that has one."""
    draft = window_process(lambda window: 0.9 * window[-P:], P, context_len=size)
    settings = {"num_draft": 2, "rule": Mean(tolerance=0.0)}
    found = path(target, history, draft=draft, **settings)
    np.testing.assert_allclose(found, path(target, history), atol=1e-4)


@pytest.mark.parametrize("length", [1, 7])
def test_a_history_under_two_patches_with_a_cached_draft(length: int) -> None:
    """A young series could be forecast without a draft only."""
    for target in (REPEAT, OWN) if length == 1 else (REPEAT,):
        found = path(target, walk(length), draft=REPEAT, num_draft=2, rule=Mean(tolerance=0.0))
        np.testing.assert_allclose(found, path(target, walk(length)), atol=1e-5)


@pytest.mark.parametrize("norm", ["causal", pytest.param("frozen", marks=pytest.mark.slow), None])
def test_a_cached_draft_after_one_patch_says_what_its_target_says(norm: Any) -> None:
    """The padding before a context of one patch would reach the draft's forecasts."""
    process = cached_process(
        make_target(CAUSAL, "cached", 16, 1).model, CAUSAL.params, P, norm=norm
    )
    context = jnp.asarray(walk(P, 1), jnp.float32)

    @jax.jit
    def distribution(one: Any) -> jax.Array:
        memory = one.prepare(context)
        return one.verify(memory, one.start(memory, 3), jnp.zeros((0, P, 1)))[0].mean

    distributions = [distribution(one) for one in (process, process.drafting())]
    np.testing.assert_allclose(distributions[0], distributions[1], atol=1e-5)


def asked_of(
    monkeypatch: pytest.MonkeyPatch, target: Any, history: Any, **settings: Any
) -> list[tuple[Any, ...]]:
    """Shapes of the contexts that are decoded, and the two contexts that the models see."""
    calls: list[tuple[Any, ...]] = []

    def decode(key: Any, context: Any, *, target: Any, draft: Any, config: Any, **rest: Any) -> Any:
        drafted = None if draft is None else draft.context_len
        calls.append((context.shape, target.context_len, drafted))
        lanes, patches = (len(context), 1), -(-config.horizon // P)
        per_patch = jnp.zeros((*lanes, patches)), jnp.zeros((*lanes, patches, P, 1))
        return jnp.zeros((*lanes, config.horizon, 1)), DecodeInfo(
            *[jnp.zeros(lanes)] * 6, *per_patch
        )

    monkeypatch.setattr(sys.modules["stride_jax.forecasting.runs"], "decode", decode)
    path(target, history, **settings)
    return calls


@pytest.mark.parametrize("draft", [None, "last-value", "model"])
def test_a_model_of_unknown_context_takes_a_ragged_list(
    monkeypatch: pytest.MonkeyPatch, draft: str | None
) -> None:
    """The longest history would be the context of all, and the others be too short for it."""
    unknown = WINDOW._replace(context_len=None)
    settings = {"draft": unknown if draft == "model" else draft}
    calls = asked_of(monkeypatch, unknown, RAGGED, **settings)
    assert calls == [
        ((n, steps, 1), None, None) for n, steps in ((2, 4), (1, 8), (1, 16), (1, 20), (1, 40))
    ]
    known = asked_of(monkeypatch, WINDOW, [walk(40), walk(16)], draft="last-value")
    assert known == [((2, 16, 1), 16, None)]


def test_a_model_of_unknown_context_sees_each_history_alone() -> None:
    """A history would be forecast as if it were the longest one."""
    unknown = WINDOW._replace(context_len=None)
    found = path(unknown, [RAGGED[4], RAGGED[0]])
    np.testing.assert_allclose(found[0], path(WINDOW, RAGGED[4]), atol=1e-5)
    np.testing.assert_allclose(found[1], path(unknown, RAGGED[0]), atol=1e-5)


@pytest.mark.parametrize("draft", [None, "last-value", "model"])
def test_a_cached_model_of_unknown_context_takes_a_ragged_list(
    monkeypatch: pytest.MonkeyPatch, draft: str | None
) -> None:
    """A model whose file does not tell its context would be refused, or need the longest history.

    Its positions do not depend on the context where each variable is a series of its own.
    """
    unknown = CAUSAL._replace(context_len=None)
    draft = unknown if draft == "model" else draft
    assert asked_of(monkeypatch, unknown, RAGGED, draft=draft) == [((6, 40, 1), None, None)]


def test_a_cached_model_of_unknown_context_says_what_its_longest_history_says() -> None:
    """All that a history holds would not be seen, or be padded otherwise."""
    expected = path(CAUSAL._replace(context_len=40), RAGGED)
    np.testing.assert_array_equal(path(CAUSAL._replace(context_len=None), RAGGED), expected)


def test_several_variables_of_unknown_context_need_one() -> None:
    """A model would be decoded with positions that it never learned."""
    model = dataclasses.replace(CAUSAL.model, variable_stride=None)
    unknown = CAUSAL._replace(context_len=None, model=model)
    with pytest.raises(InputError, match=r"unknown.*give context_len"):
        pair_of(unknown, num_vars=2)
    assert pair_of(unknown, num_vars=2, context_len=16).target.context_len == 16


def test_a_draft_that_sees_more_than_its_target() -> None:
    """A draft of a longer context would be refused, though the history has it."""
    draft = multi_patch_draft(
        jax.tree_util.Partial(lambda w: PatchDistribution(w[-2 * P :])), P, context_len=16
    )
    for target in (window_process(halfway, P, context_len=8), REPEAT):
        found = path(target, walk(24), draft=draft, num_draft=2, rule=Mean(tolerance=0.0))
        np.testing.assert_allclose(found, path(target, walk(24)), atol=1e-5)


# --- few programs for many lengths ---------------------------------------------------------------


@given(st.integers(1, 10**6))
def test_few_patches(count: int) -> None:
    """More than a fifth would be cut off, sizes grow in number, or eight patches be cut."""
    found = few_patches(count)
    assert found <= count < 1.25 * found
    assert found == count or count > 8
    assert few_patches(found) == found


def test_sizes_are_few() -> None:
    """A long list of histories would compile for minutes."""
    sizes = sorted({few_patches(n) for n in range(1, 65)})
    assert sizes == [*range(1, 9), 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64]


def test_a_black_box_is_compiled_for_few_lengths() -> None:
    """Thirty lengths would be thirty programs, and as many to measure sigma."""
    TRACES.clear()
    batch = [walk(P * n, seed=n) for n in range(10, 40)]
    found = path(window_process(halfway, P), batch, horizon=P)
    lengths = {shape[0] // P for shape in TRACES}
    assert lengths == {10, 12, 14, 16, 20, 24, 28, 32}
    assert len(TRACES) == len(lengths)
    for n, one, own in zip(range(10, 40), batch, found, strict=True):
        np.testing.assert_allclose(own, by_hand(one[-P * few_patches(n) :], P), atol=1e-5)


def test_the_context_of_a_process_is_seen_whole() -> None:
    """A history would be cut though the model is to see so many steps of it."""
    history = walk(P * 30)
    for size in (P * 9, P * 23 + 1, P * 30):
        found = path(window_process(halfway, P, context_len=size), [history, walk(P * 31)])[0]
        np.testing.assert_allclose(found, by_hand(history[-size:]), atol=1e-5)


def test_a_cut_history_does_not_depend_on_its_company() -> None:
    """A series would be forecast from other steps where a longer one stands beside it."""
    target, batch = window_process(halfway, P), [walk(P * n, seed=n) for n in (9, 11, 3)]
    found = forecast(target, batch, 6, num_samples=0)
    for i, one in enumerate(batch):
        alone = forecast(target, one, 6, num_samples=0)
        np.testing.assert_allclose(found.mean[i], alone.mean, atol=1e-5)
        np.testing.assert_allclose(found.sigma[i], alone.sigma, rtol=1e-5)
