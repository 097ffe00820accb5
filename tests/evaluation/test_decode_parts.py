"""The tool that takes a decode apart: parts are differences of decodes of several lengths."""

import jax.numpy as jnp
import pytest
from helpers.tools import load_tool

from stride_jax.decoding.types import DecodeConfig
from stride_jax.evaluation.programs import untrained_process

tool = load_tool("decode_parts")

PREFILL, PASS, ROUND = 11.0, 2.0, 5.0


def test_parts_are_those_of_the_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prefill, pass or round would be another one than the decodes are made of."""

    def decode(*, config: DecodeConfig, draft: str | None = None, **_: object) -> float:
        weeks = config.horizon / (tool.PATCH * tool.WEEK)
        if draft is None:
            return PREFILL + PASS * config.horizon / tool.PATCH
        assert config.num_draft == tool.WEEK - 1  # one round a week
        return PREFILL + ROUND * weeks

    monkeypatch.setattr(tool, "decode", lambda key, **options: decode(**options))
    monkeypatch.setattr(
        tool, "time_in_turns", lambda calls, repeats: [[call(0) / 1000] * 3 for call in calls]
    )
    sizes = {"num_layers": 1, "patch_len": tool.PATCH, "d_model": 16, "num_heads": 1}
    target = untrained_process(**sizes)
    (row,) = tool.rows("a target", target, {"a_draft.safetensors": "draft"}, jnp.zeros((24, 1)))
    alone, one_round = PREFILL + 7 * PASS, PREFILL + ROUND
    assert row.pop("MB") == pytest.approx(tool.megabytes(target))
    assert row == {
        "target": "a target",
        "draft": "a_draft",
        "prefill, ms": pytest.approx(PREFILL),
        "pass, ms": pytest.approx(PASS),
        "round of six, ms": pytest.approx(ROUND),
        "passes a round": pytest.approx(ROUND / PASS),
        "week alone, ms": pytest.approx(alone),
        "in one round, ms": pytest.approx(one_round),
        "speedup": pytest.approx(alone / one_round),
        "of two weeks": pytest.approx((PREFILL + 14 * PASS) / (PREFILL + 2 * ROUND)),
    }


def test_the_size_of_a_target_is_that_of_its_parameters() -> None:
    """The column would not say what a pass has to read: four times as much at twice the width."""
    small, wide = (
        tool.megabytes(
            untrained_process(num_layers=8, patch_len=24, d_model=width, num_heads=width // 64)
        )
        for width in (128, 256)
    )
    assert wide / small == pytest.approx(4, rel=0.05)
