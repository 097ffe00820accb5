"""What a target reports beside what it feeds back comes back with every patch."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.families import Jitted
from helpers.toys import (
    CONFIG,
    CONTEXT,
    DRAFT,
    NUM_VARS,
    PATCH_LEN,
    TARGET,
    TARGET_LEN,
    Fading,
    forecast_tanh,
    parameters,
    roll,
    speculate,
)
from jax.tree_util import Partial

from stride_jax.decoding.processes import cached_process, window_process
from stride_jax.decoding.rules import Mean
from stride_jax.decoding.traits import check_predictions, traits_of
from stride_jax.errors import InputError
from stride_jax.types import PatchDistribution

LEVELS = (0.1, "mean", 0.9)
KEY = jax.random.key(3)


def with_reports(prediction):
    """The prediction with three outputs that differ by place, so that a shift in any axis shows."""
    mean = prediction.mean
    return prediction._replace(reported=jnp.stack([mean - 1, mean, 2 * mean + 3], axis=-1))


def predict(weight, mix, window):
    return with_reports(PatchDistribution(forecast_tanh(weight, mix, window)))


@dataclasses.dataclass(frozen=True)
class ReportingFading(Fading):
    reports = LEVELS

    def extend(self, params, prefill, cache, patches, start):
        prediction, cache = super().extend(params, prefill, cache, patches, start)
        return with_reports(prediction), cache


def window(reports=LEVELS):
    weights = map(jnp.asarray, parameters(TARGET_LEN))
    return window_process(
        Partial(predict, *weights), PATCH_LEN, context_len=TARGET_LEN, reports=reports
    )


def cached():
    weight, mix = map(jnp.asarray, parameters(PATCH_LEN))
    return cached_process(
        ReportingFading(), {"weight": weight, "mix": mix}, PATCH_LEN, norm="causal"
    )


def replayed(target, patches):
    """What the target reports of every patch, asked one by one with the patches before it."""
    target = Jitted(target)
    memory = target.prepare(jnp.asarray(CONTEXT))
    state, reported = target.start(memory, len(patches)), []
    for patch in patches:
        predictions, state = target.verify(memory, state, jnp.zeros((0, PATCH_LEN, NUM_VARS)))
        reported.append(predictions.reported[0])
        state = target.commit(state, jnp.asarray(patch)[None], jnp.int32(1))
    return np.stack(reported)


@pytest.mark.parametrize("make", [window, cached])
def test_reports_of_a_speculative_decode_are_those_of_a_python_loop(make):
    """A patch would carry what was reported for another place, or for a rejected prefix."""
    target = make()
    config = dataclasses.replace(CONFIG, horizon=21)
    forecast, info = speculate(KEY, target=target, config=config)
    assert {0, 1} <= set(np.asarray(info.origin).tolist())  # both kept and replaced proposals
    expected = replayed(target, np.asarray(forecast).reshape(-1, PATCH_LEN, NUM_VARS))
    assert info.reported.shape == (7, PATCH_LEN, NUM_VARS, 3)
    np.testing.assert_allclose(info.reported, expected, atol=1e-5)


def test_speculation_reports_what_the_target_alone_reports():
    """The quantiles of a forecast would depend on whether it was made with a draft."""
    target = window()
    config = dataclasses.replace(CONFIG, num_paths=2)
    rule = Mean(tolerance=0.0)
    _, fast = speculate(KEY, target=target, rule=rule, config=config)
    _, alone = roll(KEY, target=target, rule=rule, config=config)
    assert alone.reported.shape == (2, 7, PATCH_LEN, NUM_VARS, 3)
    np.testing.assert_allclose(fast.reported, alone.reported, atol=1e-5)


def test_reports_are_in_the_units_of_the_series():
    """A cached model states its outputs of normalised patches; nobody could read them."""
    _, alone = roll(KEY, target=cached(), sigma=0.0)
    forecast, _ = roll(KEY, target=cached(), sigma=0.0)
    patches = np.asarray(alone.reported)[..., 1].reshape(-1, NUM_VARS)[: CONFIG.horizon]
    np.testing.assert_allclose(patches, forecast, atol=1e-5)


def test_nothing_is_kept_of_a_target_that_names_no_outputs():
    """Every decode would carry a buffer that only some models fill."""
    for target in (TARGET, window(reports=())):
        assert traits_of(target).reports == ()
        both = functools.partial(speculate, KEY, target=target, draft=DRAFT)
        alone = functools.partial(roll, KEY, target=target)
        for decode in (both, alone):
            assert jax.eval_shape(decode)[1].reported is None


def test_wrong_reports_are_refused():
    """Columns would be named after the wrong outputs, or broadcast into each other."""
    with pytest.raises(InputError, match="names 2 reported outputs"):
        roll(KEY, target=window(reports=(0.1, 0.9)))
    with pytest.raises(InputError, match=r"tuple of levels inside \(0, 1\) and words, got \(1.5"):
        roll(KEY, target=window(reports=(1.5, "mean", 0.9)))
    misshapen = PatchDistribution(jnp.zeros((3, 2)), reported=jnp.zeros((3, 1, 4)))
    with pytest.raises(InputError, match=r"reported outputs of shape \(3, 1, 4\)"):
        check_predictions(misshapen, (3, 2), "[P, C]", "predict")
