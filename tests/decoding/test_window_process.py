"""The window process against plain numpy slicing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.tree_util import Partial

from stride_jax.decoding.processes import window_process
from stride_jax.errors import InputError
from stride_jax.types import PatchDistribution

PROPERTY = settings(deadline=None, max_examples=8, derandomize=True)
SIZES = st.sampled_from(
    [(1, 1, 1), (2, 3, 5), (3, 2, 1), (3, 1, 6)]
)  # P, C, L; few shapes to compile


def linear(weight, mix, window):
    """A forecaster that depends on the place and the variable of every value."""
    return weight @ window @ mix


def weights(patch_len: int, num_vars: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Parameters of `linear`."""
    rng = np.random.default_rng(length)
    weight = rng.normal(size=(patch_len, length))
    mix = rng.normal(size=(num_vars, num_vars))
    return weight.astype(np.float32), mix.astype(np.float32)


def steps(*shape: int, seed: int = 0) -> np.ndarray:
    """Random values."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def opened(process, context):
    """Memory of a context and the state of a path before its first patch."""
    memory = process.prepare(jnp.asarray(context))
    return memory, process.start(memory, 8)


@PROPERTY
@given(sizes=SIZES, longer=st.integers(0, 4))
def test_prepare_keeps_the_last_steps(sizes, longer):
    """The forecaster would see old steps instead of the latest."""
    patch_len, num_vars, length = sizes
    context = steps(length + longer, num_vars)
    process = window_process(lambda w: w[:patch_len], patch_len, context_len=length)
    memory, state = opened(process, context)
    np.testing.assert_array_equal(memory, context[longer:])
    np.testing.assert_array_equal(state.window, context[longer:])
    whole = window_process(lambda w: w[:patch_len], patch_len)
    np.testing.assert_array_equal(whole.prepare(jnp.asarray(context)), context)


@PROPERTY
@given(sizes=SIZES, count=st.integers(1, 4))
def test_step_goes_on_from_what_was_fed(sizes, count):
    """A draft's second proposal would not know its first, or the window would grow."""
    patch_len, num_vars, length = sizes
    weight, mix = weights(*sizes)
    window, patches = steps(length, num_vars), steps(count, patch_len, num_vars, seed=1)
    process = window_process(Partial(linear, weight, mix), patch_len)
    memory, state = opened(process, window)
    distributions, ahead = process.verify(memory, state, jnp.zeros((0, patch_len, num_vars)))
    np.testing.assert_allclose(distributions.mean[0], linear(weight, mix, window), atol=1e-4)
    grown = window
    for patch in patches:
        distribution, ahead = process.step(memory, ahead, jnp.asarray(patch))
        grown = np.concatenate([grown, patch])
        last = grown[len(grown) - length :]
        np.testing.assert_allclose(distribution.mean, linear(weight, mix, last), atol=1e-4)
        np.testing.assert_array_equal(ahead.window, window)  # seen, not kept


@PROPERTY
@given(sizes=SIZES, num_draft=st.integers(0, 3))
def test_verify_is_one_distribution_call_for_every_prefix(sizes, num_draft):
    """Proposals would be judged given the wrong history."""
    patch_len, num_vars, length = sizes
    weight, mix = weights(*sizes)
    window, proposals = steps(length, num_vars), steps(num_draft, patch_len, num_vars, seed=1)
    process = window_process(Partial(linear, weight, mix), patch_len)
    distributions, state = jax.jit(process.verify)(*opened(process, window), jnp.asarray(proposals))
    assert distributions.mean.shape == (num_draft + 1, patch_len, num_vars)
    grown = np.concatenate([window, *proposals])
    for i in range(num_draft + 1):
        last = grown[i * patch_len : i * patch_len + length]
        np.testing.assert_allclose(distributions.mean[i], linear(weight, mix, last), atol=1e-4)
        np.testing.assert_allclose(
            distributions.mean[i], process.predict_patch(jnp.asarray(last)).mean, atol=1e-4
        )
    np.testing.assert_array_equal(state.window, window)
    np.testing.assert_array_equal(state.ahead, grown[len(grown) - length :])


def test_a_step_after_verify_sees_all_proposals():
    """A draft would go on from before its proposals."""
    weight, mix = weights(2, 3, 5)
    process = window_process(Partial(linear, weight, mix), 2)
    patches = jnp.asarray(steps(3, 2, 3, seed=1))
    memory, state = opened(process, steps(5, 3))
    all_distributions, _ = process.verify(memory, state, patches)
    _, ahead = process.verify(memory, state, patches[:2])
    distribution, _ = process.step(memory, ahead, patches[2])
    np.testing.assert_allclose(distribution.mean, all_distributions.mean[3], atol=1e-5)


@PROPERTY
@given(sizes=SIZES, num_draft=st.integers(0, 3), data=st.data())
def test_commit_appends_the_kept_patches(sizes, num_draft, data):
    """Rejected patches would stay in the history, or kept ones be lost."""
    patch_len, num_vars, length = sizes
    count = data.draw(st.integers(0, num_draft + 1))
    window, patches = steps(length, num_vars), steps(num_draft + 1, patch_len, num_vars, seed=1)
    process = window_process(lambda w: w[:1].repeat(patch_len, 0), patch_len)
    memory, state = opened(process, window)
    _, seen = process.verify(memory, state, jnp.asarray(patches[:num_draft]))
    kept = np.concatenate([window, *patches[:count]])
    for before in (state, seen):  # what was proposed leaves no trace
        found = process.commit(before, jnp.asarray(patches), jnp.int32(count))
        np.testing.assert_array_equal(found.window, kept[len(kept) - length :])
        np.testing.assert_array_equal(found.ahead, found.window)


@pytest.mark.parametrize("num_draft", [1, 3])
def test_distributions_over_several_rounds_are_those_of_the_last_steps(num_draft):
    """After some number of acceptances a round would start from another history."""
    weight, mix = weights(2, 3, 9)
    process = window_process(Partial(linear, weight, mix), 2)
    target, draft = process, process.drafting()
    verify, commit = jax.jit(target.verify), jax.jit(target.commit)
    grown = steps(9, 3)
    memory, state = opened(target, grown)
    drafting = draft.start(draft.prepare(jnp.asarray(grown)), 8)
    for seed, count in enumerate([*range(num_draft + 2), *range(num_draft + 1, -1, -1)]):
        patches = 10 * steps(num_draft + 1, 2, 3, seed=seed + 5)
        distributions, seen = verify(memory, state, jnp.asarray(patches[:num_draft]))
        proposed, ahead = draft.verify(memory, drafting, jnp.zeros((0, 2, 3)))
        proposed = [proposed.mean[0]]
        for patch in patches[: num_draft - 1]:
            distribution, ahead = draft.step(memory, ahead, jnp.asarray(patch))
            proposed.append(distribution.mean)
        history = np.concatenate([grown, *patches])
        for i in range(num_draft + 1):
            stop = len(grown) + 2 * i
            expected = linear(weight, mix, history[stop - 9 : stop])
            np.testing.assert_allclose(distributions.mean[i], expected, atol=1e-3)
            if i < num_draft:
                np.testing.assert_allclose(proposed[i], expected, atol=1e-3)
        grown = np.concatenate([grown, *patches[:count]])
        state = commit(seen, jnp.asarray(patches), jnp.int32(count))
        drafting = draft.commit(ahead, jnp.asarray(patches), jnp.int32(count))


def test_paths_share_the_memory_of_their_context():
    """Sample paths could not be verified together, or would mix."""
    weight, mix = weights(2, 3, 7)
    process = window_process(Partial(linear, weight, mix), 2)
    memory, state = opened(process, steps(7, 3))
    patches = jnp.asarray(steps(4, 3, 2, 3, seed=1))
    paths = jax.vmap(process.commit, in_axes=(None, 0, 0))(state, patches, jnp.arange(4))
    distributions, _ = jax.vmap(process.verify, in_axes=(None, 0, 0))(memory, paths, patches)
    for i in range(4):
        one = jax.tree.map(lambda x, i=i: x[i], paths)
        alone, _ = process.verify(memory, one, patches[i])
        np.testing.assert_allclose(distributions.mean[i], alone.mean, atol=1e-5)


def test_verify_calls_the_forecaster_once():
    """Verification would be K + 1 passes one after the other, and nothing would be gained."""
    calls = []

    def predict(window):
        calls.append(window)
        return window[:2]

    process = window_process(predict, 2)
    process.verify(*opened(process, steps(6, 1)), jnp.asarray(steps(3, 2, 1)))
    assert len(calls) == 1


def test_an_array_is_taken_as_the_mean():
    """A forecaster without a variance head would not plug in."""
    weight, mix = weights(2, 3, 5)
    window, proposals = jnp.asarray(steps(5, 3)), jnp.asarray(steps(2, 2, 3, seed=1))
    bare = window_process(Partial(linear, weight, mix), 2)
    lawful = window_process(lambda w: PatchDistribution(linear(weight, mix, w)), 2)
    assert isinstance(bare.predict_patch(window), PatchDistribution)
    assert bare.predict_patch(window).logvar is None
    np.testing.assert_array_equal(
        bare.predict_patch(window).mean, lawful.predict_patch(window).mean
    )
    found, _ = bare.verify(*opened(bare, window), proposals)
    other, _ = lawful.verify(*opened(lawful, window), proposals)
    np.testing.assert_array_equal(found.mean, other.mean)


def test_log_variance_is_handed_on():
    """A learned variance would be lost on the way."""
    window, proposals = jnp.asarray(steps(5, 3)), jnp.asarray(steps(2, 2, 3, seed=1))
    process = window_process(lambda w: PatchDistribution(w[:2], 2 * w[:2]), 2)
    np.testing.assert_array_equal(process.predict_patch(window).logvar, 2 * window[:2])
    distribution, _ = process.verify(*opened(process, window), proposals)
    np.testing.assert_array_equal(distribution.logvar, 2 * distribution.mean)


def test_parameters_in_a_partial_are_traced():
    """A new checkpoint of the same shape would compile everything anew."""
    traces = []

    def predict(weight, mix, window):
        traces.append(window)
        return linear(weight, mix, window)

    @jax.jit
    def run(process, window):
        return process.predict_patch(window).mean

    window = steps(5, 3)
    for scale in (1.0, 2.0, 3.0):
        weight, mix = weights(2, 3, 5)
        process = window_process(Partial(predict, scale * weight, mix), 2)
        found = run(process, jnp.asarray(window))
        np.testing.assert_allclose(found, scale * linear(weight, mix, window), atol=1e-4)
    assert len(traces) == 1


@pytest.mark.parametrize("shape", [(3, 2), (2, 3), (2,), (1, 2, 2)])
def test_wrong_shape_of_the_prediction(shape):
    """A forecaster of another patch length would be broadcast silently."""
    process = window_process(lambda w: jnp.zeros(shape), 2)
    pattern = rf"\(6, 2\).*\({', '.join(map(str, shape))},?\).*\(2, 2\)"
    with pytest.raises(InputError, match=pattern):
        process.predict_patch(jnp.asarray(steps(6, 2)))
    with pytest.raises(InputError, match=pattern):
        process.verify(*opened(process, steps(6, 2)), jnp.asarray(steps(3, 2, 2)))


def test_context_shorter_than_the_window():
    """The forecaster would be called with a window it was not made for."""
    process = window_process(lambda w: w[:2], 2, context_len=6)
    with pytest.raises(InputError, match=r"5 steps.*6"):
        process.prepare(jnp.asarray(steps(5, 2)))


@pytest.mark.parametrize("predict", [3, None, "model"])
def test_predict_that_is_not_callable(predict):
    """A model object passed by mistake would fail deep inside a trace."""
    with pytest.raises(InputError, match=type(predict).__name__):
        window_process(predict, 2)


@pytest.mark.parametrize(("patch_len", "context_len"), [(0, None), (-3, 4), (2, 0), (2, -5)])
def test_sizes_below_one(patch_len, context_len):
    """Nonsense sizes would be sliced silently into empty or wrong windows."""
    bad = patch_len if patch_len < 1 else context_len
    with pytest.raises(InputError, match=f"{bad}"):
        window_process(lambda w: w, patch_len, context_len=context_len)


def test_whole_context_is_the_default():
    """A process without a length would refuse contexts or cut them."""
    process = window_process(lambda w: w[-2:], 2)
    assert process.context_len is None
    np.testing.assert_array_equal(
        process.predict_patch(jnp.asarray(steps(9, 2))).mean, steps(9, 2)[-2:]
    )


def test_the_mean_is_float32():
    """Noise would be drawn in the precision of a bfloat16 forecaster and proposals be coarse."""
    process = window_process(lambda w: w[-2:].astype(jnp.bfloat16), 2)
    memory, state = opened(process, steps(6, 2))
    distributions, ahead = process.verify(memory, state, jnp.asarray(steps(2, 2, 2)))
    distribution, _ = process.step(memory, ahead, jnp.asarray(steps(2, 2)))
    assert distributions.mean.dtype == distribution.mean.dtype == jnp.float32


def test_drafting_is_the_same_window():
    """A draft would need another process than the target."""
    process = window_process(lambda w: w[-2:], 2, context_len=4)
    assert process.drafting() is process
