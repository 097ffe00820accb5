"""Parity: errors of the port against recorded outputs of the original, at full precision."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from stride_jax.checkpoints.pytorch import load_pytorch
from stride_jax.decoding.processes import window_process
from stride_jax.decoding.speculative import decode
from stride_jax.decoding.types import DecodeConfig
from stride_jax.models import TimerXL, make_predict
from stride_jax.models.config import TimerXLConfig


def cases(golden: Path) -> list[Path]:
    """The files of a directory that hold models with their recorded outputs."""
    return sorted(golden.glob("target_*.npz")) + sorted(golden.glob("draft_*.npz"))


def compare(path: Path, weights: Path | None = None) -> dict[str, Any]:
    """A row: errors of the outputs at all positions and of the rolled forecast.

    The last one is that of bfloat16 compute, as an RMS over the std of the outputs. The parameters
    are those of the case, or read from the state dict `weights`.
    """
    with np.load(path) as case:
        recorded = {name: case[name] for name in case.files}
    settings = json.loads(str(recorded["config"]))
    arrays = {n.removeprefix("param/"): v for n, v in recorded.items() if n.startswith("param/")}
    config, params = load_pytorch(
        arrays if weights is None else weights,
        activation=settings["activation"],
        instance_norm="window" if settings["use_norm"] else None,
        covariate=settings["covariate"],
    )
    config = dataclasses.replace(config, precision="highest")
    names = ("mean", "logvar") if config.head == "gaussian" else ("y",)

    def outputs(config: TimerXLConfig) -> tuple[jax.Array, ...]:
        out = TimerXL(config).apply({"params": params}, recorded["x"])
        return out if isinstance(out, tuple) else (out,)

    errors = [np.abs(a - recorded[n]).max() for n, a in zip(names, outputs(config), strict=True)]
    half = outputs(dataclasses.replace(config, dtype="bfloat16"))[0]
    spread = np.std(recorded[names[0]])
    rolled, _ = decode(
        jax.random.key(0),
        recorded["x"],
        target=window_process(make_predict(config, params), config.patch_len),
        sigma=0.0,
        config=DecodeConfig(int(recorded["rolled_horizon"])),
    )
    return {
        "case": (weights or path).name,
        "outputs": float(max(errors)),
        "rolled": float(np.abs(rolled - recorded["rolled"]).max()),
        "bfloat16 rms / std": float(np.sqrt(np.mean((half - recorded[names[0]]) ** 2)) / spread),
    }
