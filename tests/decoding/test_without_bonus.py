"""`WithoutBonus` against the target alone, the rule inside it, and its distribution."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.rounds import decide, random_rounds
from helpers.toys import BATCH, CONFIG, TARGET, assert_same, one_loop, roll, speculate

from stride_jax.decoding.rules import (
    AsReleased,
    Block,
    Maximal,
    Mean,
    Residual,
    Rule,
    Several,
    SharedNoise,
    WithoutBonus,
)
from stride_jax.decoding.types import ACCEPTED, RECOVERED
from stride_jax.errors import InputError
from stride_jax.testing.analytic import make_problem
from stride_jax.testing.exactness import FAIL_BELOW, PASS_ABOVE, PlantedMaximal, check

N, K = 7, CONFIG.num_draft


@pytest.mark.parametrize(
    ("draft", "origin", "rounds"), [(TARGET, ACCEPTED, -(-N // K)), (None, RECOVERED, N)]
)
def test_shared_noise_is_the_target_alone(key, draft, origin, rounds):
    """A patch would be lost, or drawn twice, where a round ends with its last proposal."""
    alone, _ = roll(key, BATCH)
    chosen = {} if draft is None else {"draft": draft}
    paths, info = speculate(key, BATCH, rule=WithoutBonus(SharedNoise(0.0)), **chosen)
    np.testing.assert_allclose(paths, alone, atol=1e-5)
    np.testing.assert_array_equal(info.origin, np.full((len(BATCH), N), origin))
    np.testing.assert_array_equal(info.rounds, np.full(len(BATCH), rounds))


def test_means_of_the_target_are_emitted(key):
    """The last proposal of a round would be put out in place of the target's mean."""
    loose = Mean(tolerance=1e9)
    paths, info = speculate(key, BATCH, rule=WithoutBonus(loose))
    proposals, _ = speculate(key, BATCH, rule=WithoutBonus(Mean(1e9, emit_proposal=True)))
    with_bonus, _ = speculate(key, BATCH, rule=loose)
    assert (np.asarray(info.origin) == ACCEPTED).all()
    steps = K * TARGET.patch_len  # of the first round
    assert_same(paths[:, :steps], with_bonus[:, :steps])
    drafted = info.proposal.reshape(len(BATCH), -1, proposals.shape[-1])  # -> [B, N * P, C]
    assert_same(proposals, drafted[:, : CONFIG.horizon])
    assert not np.allclose(paths, proposals, atol=1e-3)


@pytest.mark.parametrize("length", [0, 1, 2])
def test_every_round_adds_a_patch(length):
    """A decode would never end where a draft that stops early proposes nothing in a round."""
    rounds = random_rounds(50, 2, 0.0)._replace(length=jnp.full(50, length, jnp.int32))
    out = decide(WithoutBonus(Mean(1e9)), rounds)
    np.testing.assert_array_equal(out.num_accepted, np.full(50, length))
    np.testing.assert_array_equal(out.added, np.full(50, length == 0))


@pytest.mark.parametrize(("rule", "right"), [(Maximal(), True), (PlantedMaximal(), False)])
def test_paths_follow_the_distribution_of_the_target(rule: Rule, right: bool):
    """Leaving out the bonus would change what is drawn at the places where it stood."""
    options = {"num_series": 20_000, "decoder": one_loop}
    result = check(make_problem(num_vars=2, delta=1.0), WithoutBonus(rule), **options)
    assert result["p"] > PASS_ABOVE if right else result["p"] < FAIL_BELOW


@pytest.mark.parametrize("rest", [Several(), WithoutBonus(), "maximal", Mean(-1.0)])
def test_what_cannot_go_without_is_refused(key, rest):
    """Several chains would be decided as one, and a wrong setting would be used."""
    with pytest.raises(InputError, match=r"rest must be a rule|tolerance must be"):
        speculate(key, rule=WithoutBonus(rest))


def test_the_facts_are_those_of_the_rule_inside():
    """A rule that is not exact would pass as one that is."""
    assert WithoutBonus(Maximal()).exact
    assert WithoutBonus(Mean()).proposes == "mean"
    assert WithoutBonus(SharedNoise(jnp.float32(0.1))).guarantee == SharedNoise.guarantee
    assert not WithoutBonus(SharedNoise()).exact


@pytest.mark.parametrize(
    "rest", [Maximal(), Block(), Residual(), Mean(), SharedNoise(), AsReleased()]
)
def test_every_fact_is_that_of_the_rule_inside(rest):
    """A learned scale, a covariance or a density would be refused where the rule takes it."""
    for fact in ("exact", "guarantee", "proposes", "scales", "correlated", "densities"):
        assert getattr(WithoutBonus(rest), fact) == getattr(rest, fact)
