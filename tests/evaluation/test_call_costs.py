"""The tool that times calls with their results kept and let go, and where it was measured."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.tools import load_tool
from helpers.watched import Watched

from stride_jax.evaluation.results import machine

tool = load_tool("call_costs")


@pytest.mark.parametrize("keep", [False, True])
def test_results_are_kept_or_let_go(keep: bool) -> None:
    """Both times would be of the same treatment."""
    watched = Watched()

    def decode(*_: Any) -> tuple[Any, Any]:
        result = watched.make()
        return result, SimpleNamespace(target_passes=np.float32(len(watched.alive)))

    program = SimpleNamespace(decode=decode)
    _, passes = tool.times(program, None, [0, 1, 2, 3], keep)
    assert watched.alive == ([0, 1, 2, 3] if keep else [0] * 4)
    assert passes == 3.0  # of the calls 2, 3 and 4: the first one warms up


def test_a_speedup_is_over_the_target_with_the_same_treatment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A decode that lets its results go would be compared with a target that keeps them."""

    def decoder(num_draft: int) -> Any:
        draft = "draft" if num_draft else None
        config = SimpleNamespace(num_draft=num_draft)
        method = "speculative" if draft else "target"
        return SimpleNamespace(draft=draft, method=method, config=config)

    plain, short, long = decoder(0), decoder(2), decoder(4)
    given = [("trained", "mean", [plain, short], [0]), ("trained", "block", [plain, long], [0])]
    monkeypatch.setattr(tool, "cells", lambda config: iter(given))
    monkeypatch.setattr(tool, "compile_all", lambda decoders, batch: list(decoders))
    seconds = {0: (12.0, 24.0), 2: (6.0, 8.0), 4: (4.0, 6.0)}
    monkeypatch.setattr(
        tool,
        "times",
        lambda program, decoder, batches, keep: (seconds[decoder.config.num_draft][keep], 1.0),
    )
    rows = list(tool.rows("a", None))
    found = [(row["K"], row["rule"], row["results"], row["speedup"]) for row in rows]
    assert found == [
        (0, "", "let go", 1.0),
        (0, "", "kept", 1.0),
        (2, "mean", "let go", 2.0),
        (2, "mean", "kept", 3.0),
        (4, "block", "let go", 3.0),
        (4, "block", "kept", 4.0),
    ]


def test_an_accelerator_is_named_and_not_the_processor_beside_it() -> None:
    """A time of a GPU would be taken for one of a CPU."""
    versions = {"jax": "1.0"}
    hardware = {"cpu": "A", "device": "B", "cores": 2, "platform": "gpu"}
    assert machine({"hardware": hardware, "versions": versions}).startswith("B (2 cores beside it")
    alone = hardware | {"platform": "cpu", "device": "cpu"}
    assert machine({"hardware": alone, "versions": versions}).startswith("A (2 cores, cpu)")
