"""How messages are worded."""

import pytest

from stride_jax.errors import counted


@pytest.mark.parametrize(
    ("count", "noun", "expected"),
    [
        (0, "step", "0 steps"),
        (1, "step", "1 step"),
        (2, "missing value", "2 missing values"),
        (1, "series", "1 series"),
        (3, "series", "3 series"),
    ],
)
def test_a_count_agrees_with_its_noun(count: int, noun: str, expected: str) -> None:
    """A line for the user would read "1 steps without a row"."""
    assert counted(count, noun) == expected
