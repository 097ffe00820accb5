"""Reads the golden model cases; see README.md for where they come from."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

GOLDEN = Path(__file__).parent
CASES = (
    "draft_deterministic",
    "draft_stochastic",
    "target_covariate",
    "target_gelu_nonorm",
    "target_multivariate",
    "target_univariate_deep",
    "target_wide_output",
)


class Case(NamedTuple):
    """One recorded model.

    Attributes:
        arrays: the state dict by the original's names.
        record: everything else in the file: x, y or mean and logvar, rolled, rolled_horizon, dims.
        settings: keywords of `load_pytorch` that the arrays cannot tell.
    """

    arrays: dict[str, np.ndarray]
    record: dict[str, np.ndarray]
    settings: dict[str, Any]


def load_case(name: str) -> Case:
    """The golden model case of that name."""
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        entries = {key: file[key] for key in file.files}
    config = json.loads(str(entries.pop("config")))
    return Case(
        {k.removeprefix("param/"): v for k, v in entries.items() if k.startswith("param/")},
        {k: v for k, v in entries.items() if not k.startswith("param/")},
        {
            "activation": config["activation"],
            "instance_norm": "window" if config["use_norm"] else None,
            "covariate": config["covariate"],
        },
    )
