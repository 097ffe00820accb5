"""Names of the columns of forecasts in a long frame."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from stride_jax.errors import InputError

MODEL, NAIVE = "stride", "seasonal-naive"
"""Names of the columns of forecasts, and of naive ones; quantiles are `stride-q-10` and so on."""
CUTOFF = "cutoff"
"""Name of the column of the last time that was known."""


def check_columns(columns: Sequence[str], result: Sequence[str]) -> None:
    """Raises InputError for a column of a frame or file that one of the result would overwrite."""
    for name in columns:
        if str(name).split("-q-")[0] in result:
            raise InputError(
                f"{name!r} is the name of a column of the result; rename that of the frame or file."
            )


def quantile_columns(levels: Sequence[float], model: str = MODEL) -> list[str]:
    """Names such as `stride-q-2.5` for .025: six digits, or all where these do not tell apart."""
    names = [f"{100 * q:g}" for q in levels]
    if len({*names, "0", "100"}) < len(levels) + 2:
        names = [f"{(100 * Decimal(repr(float(q)))).normalize():f}" for q in levels]
    return [f"{model}-q-{name}" for name in names]


def column_levels(columns: Sequence[str], model: str = MODEL) -> dict[float, str]:
    """The columns of quantiles of a model among those of a frame, by the levels of their names."""
    front = f"{model}-q-"
    named = [name for name in columns if name.startswith(front)]
    return {float(Decimal(name.removeprefix(front)) / 100): name for name in named}
