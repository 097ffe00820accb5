"""`learned_scale`: distributions with a std of their own, in both decoders."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.toys import CONTEXT, LINE, line, line_distributions, roll, speculate
from scipy import stats

from stride_jax.decoding.naive_drafts import seasonal_draft
from stride_jax.decoding.rules import RULES, Residual
from stride_jax.decoding.types import DecodeConfig
from stride_jax.errors import InputError

STD = np.float32([[0.4], [0.9]])  # of the target, for each step of a patch
OTHER = np.float32([[0.7], [0.6]])  # of the draft
SIGMA = 1.5  # of neither
PATHS = 20_000


def assert_distributions(forecast, std) -> None:
    """Both patches follow the target with this std."""
    patches = np.asarray(forecast)[..., 0].reshape(-1, 2, 2)
    for patch, (mean, spread) in enumerate(line_distributions(std, 2)):
        for i in range(2):
            found = (patches[:, patch, i] - mean[i]) / spread[i]
            assert stats.kstest(found, "norm").pvalue > 1e-4


def config(learned: bool) -> DecodeConfig:
    """Two patches of many paths."""
    return DecodeConfig(4, 2, num_paths=PATHS, learned_scale=learned)


@pytest.mark.parametrize("draft", ["learned", pytest.param("mean", marks=pytest.mark.slow)])
def test_residual_takes_each_models_own_std(key, draft):
    """Samples would have the std of sigma, or of the draft, instead of the target's own."""
    draft = line(0.3, OTHER) if draft == "learned" else line(0.3)  # the latter draws with sigma
    forecast, info = speculate(
        key, LINE, line(0.0, STD), draft, SIGMA, config(True), rule=Residual()
    )
    assert_distributions(forecast, STD[:, 0])
    assert int(info.overflow.sum()) == 0
    rate = int(info.accepted[:, 0].sum()) / int(info.proposed[:, 0].sum())
    assert 0.2 < rate < 0.8
    first = np.asarray(info.proposal)[:, 0, :, 0]
    spread = OTHER[:, 0] if draft.predict.func.__name__ == "forecast_line_std" else SIGMA
    np.testing.assert_allclose(first.std(0), np.broadcast_to(spread, 2), rtol=0.03)


@pytest.mark.slow
def test_a_target_without_a_std_keeps_sigma(key):
    """A mean target with a learned draft would have no scale, or the draft's."""
    forecast, _ = speculate(key, LINE, line(), line(0.3, OTHER), 0.8, config(True), rule=Residual())
    assert_distributions(forecast, 0.8)


@pytest.mark.slow
def test_a_learned_std_is_not_used_unless_asked_for(key):
    """Every decode with a gaussian head would silently change its distribution."""
    forecast, info = speculate(
        key, LINE, line(0.0, STD), line(0.3, OTHER), SIGMA, config(False), rule=Residual()
    )
    assert_distributions(forecast, SIGMA)
    first = np.asarray(info.proposal)[:, 0, :, 0]
    np.testing.assert_allclose(first.std(0), [SIGMA] * 2, rtol=0.03)


def test_autoregression_takes_the_models_std(key):
    """The baseline would sample another distribution than the decode it is compared with."""
    forecast, _ = roll(key, LINE, line(0.0, STD), SIGMA, config(True))
    assert_distributions(forecast, STD[:, 0])
    forecast, _ = roll(key, LINE, line(0.0, STD), SIGMA, config(False))
    assert_distributions(forecast, SIGMA)


@pytest.mark.parametrize("name", ["maximal", "block", "resample", "mean", "shared_noise"])
def test_tied_rules_refuse_it(key, name):
    """A rule that assumes one sigma would be run with two and follow neither."""
    config = DecodeConfig(8, 2, learned_scale=True)
    with pytest.raises(InputError, match=rf"'{name}'.*Residual\(\)"):
        speculate(key, config=config, rule=RULES[name]())


def test_a_constant_history_has_a_finite_distribution(key):
    """A seasonal draft of a constant series has no spread; the forecast would be NaN."""
    context = jnp.ones_like(CONTEXT)
    settings = {"config": DecodeConfig(9, 2, learned_scale=True), "rule": Residual()}
    forecast, _ = speculate(key, context, draft=seasonal_draft(3, 2), **settings)
    assert np.isfinite(forecast).all()
