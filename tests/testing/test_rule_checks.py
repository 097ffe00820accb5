"""`check_exact` passes an exact rule and explains a wrong one."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from stride_jax.decoding import lanes
from stride_jax.decoding.base import Outcome, Round
from stride_jax.decoding.rules import AsReleased, Maximal
from stride_jax.decoding.rules.common import target_draw
from stride_jax.errors import InputError
from stride_jax.testing import check_exact


@pytest.fixture(autouse=True)
def one_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop is compiled once; the paths do not depend on that, see `test_lanes`."""
    monkeypatch.setattr(lanes, "COMPACTIONS", 0)


def test_an_exact_rule_passes() -> None:
    """People would look for a fault in a rule that has none."""
    check_exact(Maximal(), num_paths=5_000)


def test_a_wrong_rule_fails_and_the_message_gives_the_claim() -> None:
    """A rule that changes the forecast would be published as exact."""
    with pytest.raises(
        AssertionError, match=r"AsReleased is not exact on the window process: .*p_"
    ):
        check_exact(AsReleased(), delta=1.3, num_paths=10_000)


@pytest.mark.parametrize("correlation", [1.0, -1.0, float("nan")])
def test_a_correlation_of_one_is_refused(correlation: float) -> None:
    """An error of the linear algebra would not say what to give."""
    with pytest.raises(InputError, match=r"correlation must be inside \(-1, 1\)"):
        check_exact(Maximal(), correlation=correlation)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BonusOfAFullRound(Maximal):
    """Draws the bonus after K proposals, of which a shorter round has none."""

    def decide(self, key: jax.Array, current: Round) -> Outcome:
        right = super().decide(key, current)
        last = target_draw(current, jnp.int32(len(current.proposals)))
        return right._replace(
            patch=jnp.where(right.num_accepted == current.length, last, right.patch)
        )


def test_a_rule_that_is_wrong_in_short_rounds_fails() -> None:
    """An adaptive draft length would change the forecast under a rule that passed."""
    said = "not exact on the cached process with rounds of 1 to K proposals"
    with pytest.raises(AssertionError, match=said):
        check_exact(BonusOfAFullRound(), num_paths=5_000)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class NotANumber(Maximal):
    """Puts out NaN."""

    def decide(self, key: jax.Array, current: Round) -> Outcome:
        right = super().decide(key, current)
        return right._replace(patch=right.patch * jnp.nan)


def test_a_rule_of_nan_fails() -> None:
    """No test says anything of NaN, and so none would fail."""
    with pytest.raises(AssertionError, match="NotANumber put out values that are NaN"):
        check_exact(NotANumber(), num_paths=1_000)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"num_draft": 0}, "num_draft must be a whole number from 1 on, got 0"),
        ({"num_paths": 1}, "num_paths must be a whole number from 1000 on, got 1"),
        ({"delta": 0.0}, "delta must be finite and above 0, got 0.0"),
        ({"delta": float("nan")}, "delta must be finite and above 0, got nan"),
        ({"delta": "1"}, "delta must be finite and above 0, got 1"),
        ({"rule": "block"}, "rule must be an acceptance rule such as Maximal.*, got 'block'"),
    ],
)
def test_settings_with_which_every_rule_passes_are_refused(
    given: dict[str, Any], said: str
) -> None:
    """A wrong rule would pass: nothing is proposed, nothing differs, or nothing can be seen."""
    with pytest.raises(InputError, match=said):
        check_exact(**{"rule": AsReleased(), **given})
