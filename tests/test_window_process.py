"""The window process against plain numpy slicing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.tree_util import Partial

from stride_jax.errors import InputError
from stride_jax.processes import window_process
from stride_jax.types import PatchLaw

PROPERTY = settings(deadline=None, max_examples=8, derandomize=True)
SIZES = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 7))  # P, C, L


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


@PROPERTY
@given(sizes=SIZES, longer=st.integers(0, 4))
def test_init_keeps_the_last_steps(sizes, longer):
    """The forecaster would see old steps instead of the latest."""
    patch_len, num_vars, length = sizes
    context = steps(length + longer, num_vars)
    process = window_process(lambda w: w[:patch_len], patch_len, context_len=length)
    np.testing.assert_array_equal(process.init(jnp.asarray(context)), context[longer:])
    whole = window_process(lambda w: w[:patch_len], patch_len)
    np.testing.assert_array_equal(whole.init(jnp.asarray(context)), context)


@PROPERTY
@given(sizes=SIZES)
def test_append_drops_the_oldest_steps(sizes):
    """The window would grow, or lose the wrong steps."""
    patch_len, num_vars, length = sizes
    window, patch = steps(length, num_vars), steps(patch_len, num_vars, seed=1)
    process = window_process(lambda w: w[:patch_len], patch_len)
    found = process.append(jnp.asarray(window), jnp.asarray(patch))
    np.testing.assert_array_equal(found, np.concatenate([window, patch])[-length:])


@PROPERTY
@given(sizes=SIZES, num_draft=st.integers(1, 3))
def test_verify_is_one_law_call_for_every_prefix(sizes, num_draft):
    """Proposals would be judged given the wrong history."""
    patch_len, num_vars, length = sizes
    weight, mix = weights(*sizes)
    window, proposals = steps(length, num_vars), steps(num_draft, patch_len, num_vars, seed=1)
    process = window_process(Partial(linear, weight, mix), patch_len)
    found = jax.jit(process.verify)(jnp.asarray(window), jnp.asarray(proposals)).mean
    assert found.shape == (num_draft + 1, patch_len, num_vars)
    found, grown = np.asarray(found), window
    for i in range(num_draft + 1):
        last = grown[len(grown) - length :]
        np.testing.assert_allclose(found[i], linear(weight, mix, last), atol=1e-4)
        np.testing.assert_allclose(found[i], process.law(jnp.asarray(last)).mean, atol=1e-4)
        grown = np.concatenate([grown, proposals[min(i, num_draft - 1)]])


@PROPERTY
@given(sizes=SIZES, num_draft=st.integers(0, 3), data=st.data())
def test_commit_appends_the_kept_patches(sizes, num_draft, data):
    """Rejected patches would stay in the history, or kept ones be lost."""
    patch_len, num_vars, length = sizes
    count = data.draw(st.integers(0, num_draft + 1))
    window, patches = steps(length, num_vars), steps(num_draft + 1, patch_len, num_vars, seed=1)
    process = window_process(lambda w: w[:patch_len], patch_len)
    found = process.commit(jnp.asarray(window), jnp.asarray(patches), jnp.asarray(count))
    kept = np.concatenate([window, *patches[:count]])
    np.testing.assert_array_equal(found, kept[len(kept) - length :])


def test_commit_equals_appending():
    """Drafting and committing would keep different histories."""
    window, patches = jnp.asarray(steps(7, 2)), jnp.asarray(steps(4, 3, 2, seed=1))
    process = window_process(lambda w: w[:3], 3)
    expected = window
    for count in range(5):
        np.testing.assert_array_equal(process.commit(window, patches, jnp.int32(count)), expected)
        expected = process.append(expected, patches[min(count, 3)])


def test_verify_calls_the_forecaster_once():
    """Verification would be K + 1 passes one after the other, and nothing would be gained."""
    calls = []

    def predict(window):
        calls.append(window)
        return window[:2]

    window_process(predict, 2).verify(jnp.asarray(steps(6, 1)), jnp.asarray(steps(3, 2, 1)))
    assert len(calls) == 1


def test_an_array_is_taken_as_the_mean():
    """A forecaster without a variance head would not plug in."""
    weight, mix = weights(2, 3, 5)
    window, proposals = jnp.asarray(steps(5, 3)), jnp.asarray(steps(2, 2, 3, seed=1))
    bare = window_process(Partial(linear, weight, mix), 2)
    lawful = window_process(lambda w: PatchLaw(linear(weight, mix, w)), 2)
    assert isinstance(bare.law(window), PatchLaw)
    assert bare.law(window).logvar is None
    np.testing.assert_array_equal(bare.law(window).mean, lawful.law(window).mean)
    found = bare.verify(window, proposals).mean
    np.testing.assert_array_equal(found, lawful.verify(window, proposals).mean)


def test_log_variance_is_handed_on():
    """A learned variance would be lost on the way."""
    window, proposals = jnp.asarray(steps(5, 3)), jnp.asarray(steps(2, 2, 3, seed=1))
    process = window_process(lambda w: PatchLaw(w[:2], 2 * w[:2]), 2)
    np.testing.assert_array_equal(process.law(window).logvar, 2 * window[:2])
    law = process.verify(window, proposals)
    np.testing.assert_array_equal(law.logvar, 2 * law.mean)


def test_parameters_in_a_partial_are_traced():
    """A new checkpoint of the same shape would compile everything anew."""
    traces = []

    def predict(weight, mix, window):
        traces.append(window)
        return linear(weight, mix, window)

    @jax.jit
    def run(process, window):
        return process.law(window).mean

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
    pattern = rf"\({', '.join(map(str, shape))},?\).*\(6, 2\).*\(2, 2\)"
    with pytest.raises(InputError, match=pattern):
        process.law(jnp.asarray(steps(6, 2)))
    with pytest.raises(InputError, match=pattern):
        process.verify(jnp.asarray(steps(6, 2)), jnp.asarray(steps(3, 2, 2)))


def test_context_shorter_than_the_window():
    """The forecaster would be called with a window it was not made for."""
    process = window_process(lambda w: w[:2], 2, context_len=6)
    with pytest.raises(InputError, match=r"5 steps.*6"):
        process.init(jnp.asarray(steps(5, 2)))


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
    np.testing.assert_array_equal(process.law(jnp.asarray(steps(9, 2))).mean, steps(9, 2)[-2:])
