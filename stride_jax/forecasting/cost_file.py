"""The file of measured costs: JSON, by device, pair and shapes."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stride_jax.errors import InputWarning

if TYPE_CHECKING:
    from stride_jax.forecasting.choice import Costs


def default_path() -> Path:
    """Where measured costs are kept: `costs.json` beside the compiled programs.

    `STRIDE_JAX_CACHE` names their directory; else it is in the user's cache.
    """
    root = os.environ.get("STRIDE_JAX_CACHE")
    if root:
        return Path(root).expanduser() / "costs.json"
    above = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(above).expanduser() / "stride_jax" / "costs.json"


def read_costs(path: Path) -> dict[str, Costs]:
    """The costs of a file by the keys of their work; none where there is no file.

    Warns:
        InputWarning: the file cannot be read or is damaged; it is ignored.
    """
    try:
        entries = json.loads(path.read_text())
        return {key: _costs(entry) for key, entry in entries.items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        text = f"{path} holds no costs that can be read ({error}); it is ignored."
        warnings.warn(f"{text} Delete it to measure again.", InputWarning, stacklevel=3)
        return {}


def _costs(entry: Any) -> Costs:
    """One entry of the file."""
    from stride_jax.forecasting.choice import Costs

    speculative = {int(k): float(cost) for k, cost in entry["speculative"].items()}
    return Costs(float(entry["plain"]), speculative, measured=True)


def write_costs(path: Path, key: str, costs: Costs) -> None:
    """Adds the costs of one piece of work to the file, or replaces them.

    The new file takes the place of the old one in one step, so that a reader never sees a part.

    Raises:
        OSError: it cannot be written; nothing is left of the attempt.
    """
    known = read_costs(path) | {key: costs}
    entries = {
        name: {"plain": one.plain, "speculative": {str(k): c for k, c in one.speculative.items()}}
        for name, one in known.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}")
    try:
        part.write_text(json.dumps(entries, indent=1))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
