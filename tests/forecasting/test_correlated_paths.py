"""A pair with a covariance: what its sample paths take of it, and what is refused."""

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stride_jax.checkpoints.pair import Pair
from stride_jax.decoding.base import Outcome, Round, Rule
from stride_jax.decoding.naive_drafts import last_value_draft
from stride_jax.decoding.processes import window_process
from stride_jax.decoding.rules import AsReleased, Maximal, Mean
from stride_jax.decoding.rules.common import target_draw
from stride_jax.decoding.scale import PatchCovariance
from stride_jax.decoding.types import DecodeConfig
from stride_jax.errors import InputError
from stride_jax.forecasting import inputs
from stride_jax.forecasting import runs as module
from stride_jax.forecasting.decoder import build_decoder
from stride_jax.forecasting.forecast import forecast
from stride_jax.forecasting.saved_decoder import load_decoder
from stride_jax.types import PatchDistribution

P = 4
STDS = np.float32([0.1, 0.2, 0.3, 0.4])
HISTORY = np.random.default_rng(0).normal(size=48)
CORRELATED = np.linalg.cholesky(0.9 ** np.abs(np.subtract.outer(np.arange(P), np.arange(P))))


def last(window: jax.Array) -> jax.Array:
    """The last patch again."""
    return window[-P:]


def last_with_stds(window: jax.Array) -> PatchDistribution:
    """The last patch again, with a std of its own for each step."""
    logvar = 2 * jnp.log(jnp.asarray(STDS))[:, None]
    return PatchDistribution(window[-P:], jnp.broadcast_to(logvar, window[-P:].shape))


PLAIN = window_process(last, P, context_len=3 * P)
SURE = window_process(last_with_stds, P, context_len=3 * P)
PAIR = Pair(PLAIN, last_value_draft(P), PatchCovariance(CORRELATED))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AcceptAll(Rule):
    """A rule of one's own that says nothing of correlations."""

    def decide(self, key: jax.Array, current: Round) -> Outcome:
        """See `Rule`."""
        return Outcome(current.length, target_draw(current, current.length))


def test_predicted_stds_are_those_of_the_paths() -> None:
    """A std profile that the target predicts and the factor has too would be counted twice."""
    profile = np.arange(1, P + 1)[:, None] * CORRELATED
    found = forecast(
        Pair(SURE, covariance=PatchCovariance(profile)), HISTORY, P, num_samples=4000
    ).paths
    # the std of 4,000 draws is within 5 standard errors of 1 / sqrt(8000)
    np.testing.assert_allclose(found.std(axis=0), STDS, rtol=5 / np.sqrt(8000))
    # (1 - r^2) / sqrt(4000) is the standard error of a correlation
    first = np.corrcoef(found[:, 0], found[:, 1])[0, 1]
    assert first == pytest.approx(0.9, abs=5 * 0.19 / np.sqrt(4000))


def test_a_mean_path_has_no_covariance(monkeypatch) -> None:
    """A mean path would take other proposals, and longer, than that of a pair without one."""
    sigmas = []

    def spy(*args, **settings):
        sigmas.append(settings["sigma"])
        return decode(*args, **settings)

    decode = module.decode
    monkeypatch.setattr(module, "decode", spy)
    plain = dataclasses.replace(PAIR, covariance=None)
    both = [forecast(pair, HISTORY, 3 * P, num_samples=0) for pair in (PAIR, plain)]
    np.testing.assert_array_equal(both[0].mean, both[1].mean)
    np.testing.assert_array_equal(*sigmas)


@pytest.mark.parametrize("rule", [AsReleased(), AcceptAll()])
def test_a_rule_that_takes_no_covariance_is_refused_at_once(rule, monkeypatch) -> None:
    """The answer would come after half a minute of compilation, with advice for `decode`."""
    monkeypatch.setattr(inputs, "history_sigmas", None)  # the first that is compiled
    with pytest.raises(InputError, match=r"dataclasses\.replace\(pair, covariance=None\)"):
        forecast(PAIR, HISTORY, P, rule=rule, num_draft=2)


def test_a_rule_matters_only_where_a_draft_decodes() -> None:
    """A forecast of the target alone would be refused for a rule that it does not use."""
    alone = dataclasses.replace(PAIR, draft=None)
    expected = forecast(alone, HISTORY, P).paths
    for pair, settings in ((alone, {}), (PAIR, {"num_draft": 0})):
        found = forecast(pair, HISTORY, P, rule=AsReleased(), **settings)
        np.testing.assert_array_equal(found.paths, expected)


def test_what_is_no_covariance_makes_no_pair() -> None:
    """A number would be taken for a covariance until something else fails."""
    with pytest.raises(InputError, match=r"covariance must be a PatchCovariance.*got 0\.5"):
        Pair(PLAIN, covariance=0.5)
    with pytest.raises(InputError, match=r"\[P, P\].*patch length 4.*\(3, 3\)"):
        Pair(PLAIN, covariance=PatchCovariance(np.eye(3)))
    with pytest.raises(InputError, match="is not an array"):
        Pair(PLAIN, covariance=PatchCovariance([[1.0], [1.0, 2.0]]))


def test_placeholders_of_jax_make_a_pair() -> None:
    """A pair could not go through a transformation of jax."""
    shapes = jax.eval_shape(lambda pair: pair, PAIR)
    assert shapes.covariance.factor.shape == (P, P)
    assert jax.tree.map(lambda _: None, PAIR).covariance.factor is None
    inside = jax.jit(lambda factor: Pair(PLAIN, covariance=PatchCovariance(factor)))(CORRELATED)
    np.testing.assert_allclose(inside.covariance.factor, CORRELATED, rtol=1e-6)


# ---------------------------------------------------------------- compiled decoders

SIZES = {"config": DecodeConfig(P, 1), "context_shape": (3 * P, 1)}


@pytest.mark.parametrize("rule", [None, Maximal(), AsReleased()])
def test_a_decoder_does_not_drop_a_covariance(rule) -> None:
    """A server would draw other paths than `forecast` of the same pair, and nobody be told."""
    with pytest.raises(InputError, match=r"dataclasses\.replace\(pair, covariance=None\)"):
        build_decoder(PAIR, rule=rule, **SIZES)


def test_a_saved_decoder_takes_no_covariance(tmp_path) -> None:
    """An error of jax would be the answer; and the mean path of such a pair can be built."""
    path, context = tmp_path / "decoder.bin", np.ones((3 * P, 1))
    build_decoder(PAIR, rule=Mean(), **SIZES).save(path)
    loaded, key = load_decoder(path), jax.random.key(0)
    np.testing.assert_array_equal(loaded(key, context, 1.0)[0], np.ones((P, 1)))
    with pytest.raises(InputError, match="takes no PatchCovariance"):
        loaded(key, context, PatchCovariance(CORRELATED))
