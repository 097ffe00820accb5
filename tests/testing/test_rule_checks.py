"""`check_exact` passes an exact rule and explains a wrong one."""

import pytest

from stride_jax.decoding import lanes
from stride_jax.decoding.rules import AsReleased, Maximal
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
