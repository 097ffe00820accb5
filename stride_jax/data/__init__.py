"""Sources of series: files, public benchmarks, and one series inside the package."""

from __future__ import annotations

import difflib
import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stride_jax.data.embedded import EMBEDDED, embedded_series
from stride_jax.data.loaders import load_file
from stride_jax.errors import InputError
from stride_jax.types import Series

if TYPE_CHECKING:
    from stride_jax.data.download import CATALOG, fetch

__all__ = ["CATALOG", "EMBEDDED", "embedded_series", "fetch", "load_file", "load_series"]


def __getattr__(name: str) -> Any:
    # Imported when first used: only downloads need pooch and requests.
    if name in ("CATALOG", "fetch"):
        return getattr(importlib.import_module("stride_jax.data.download"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load_series(
    source: str,
    *,
    columns: Sequence[str] | None = None,
    missing: str = "error",
    root: Path | None = None,
) -> Series:
    """Loads a series by name or by path.

    Args:
        source: `"beijing_weather"` (inside the package), a name in `CATALOG` (downloaded if it is
            not there yet), or the path of a file, which has a separator or a suffix in it.
        columns: The variables to keep, in this order; None keeps all.
        missing: `"error"`, `"interpolate"` or `"keep"`, as in `load_file`.
        root: Where catalogue files lie; None takes `STRIDE_JAX_DATA` or the user's cache.

    Returns:
        The series: values `[T, C]` float64, finite, in the source's own units.

    Raises:
        InputError: The source is neither, or it cannot be fetched or read.
    """
    if source == EMBEDDED:
        return embedded_series(columns)
    from stride_jax.data.download import CATALOG, fetch

    if source in CATALOG:
        return load_file(fetch(source, root=root), columns=columns, missing=missing)
    path = Path(source).expanduser()
    if (os.sep in source or "/" in source or path.suffix) and path.exists():
        return load_file(path, columns=columns, missing=missing)
    names = [EMBEDDED, *CATALOG]
    near = difflib.get_close_matches(path.stem, names, n=1, cutoff=0.0)[0]
    raise InputError(
        f"there is no series and no file {source!r}; the nearest name is {near!r}, the names are "
        f"{names}, and a path needs a suffix, such as ./mine.csv"
    )
