"""Largest errors of a foundation model against recorded forecasts of its original, case by case.

`python tools/family_parity.py fracast tests/golden/fracast.npz --weights WHEEL --out
docs/results/families/fracast_parity.json` reads what `tools/golden_fracast.py` recorded; without
weights it compares the small random model alone. `timesfm tests/golden/timesfm.npz`, `timer
tests/golden/timer.npz`, `patchfm tests/golden/patchfm.npz` and `toto tests/golden/toto.npz` have no
other; their error is the largest absolute one over the largest value of what was recorded, of
PatchFM less the mean of the history.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.checkpoints.families import read_family
from stride_jax.decoding.base import Process
from stride_jax.decoding.compiled import compiled
from stride_jax.errors import InputError
from stride_jax.evaluation.results import Row, write_rows
from stride_jax.models.families import FAMILIES
from stride_jax.models.patchfm.nine_paths import nine_paths_process, nine_times
from stride_jax.models.timesfm.whole_pass import outputs_at_tokens
from stride_jax.testing.parity import fracast_sizes, parity_errors, relative, rolled

Recorded = dict[str, np.ndarray]
Rows = Callable[[Recorded, Path | None], list[Row]]
Cases = Callable[[Recorded], Iterator[tuple[str, float]]]
PATCHES, PROPOSALS = 8, 6
"""Patches of an autoregressive decode, and those of them that one pass verifies."""

PATCHFM_HISTORIES = (
    "whole patches",
    "3 steps filled up",
    "missing values",
    "far from zero",
    "longer than the limit",
    "shorter than a patch",
)


def part(recorded: Recorded, prefix: str) -> Recorded:
    """The entries under a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in recorded.items() if k.startswith(prefix)}


def fracast_rows(recorded: Recorded, weights: Path | None) -> list[dict[str, Any]]:
    """A row per case of the small model, and of the released one."""
    tiny = part(recorded, "tiny/")
    config, params = FAMILIES["fracast"].read(part(tiny, "param/"))
    config = dataclasses.replace(config, **fracast_sizes(tiny))
    models = [("small, random", config, params, tiny)]
    if weights is not None:
        model = read_family(weights)
        models.append(("released", model.config, model.params, part(recorded, "real/")))
    rows = []
    for name, config, params, content in models:
        process = FAMILIES["fracast"].make_process(config, params)
        for case in [key.removeprefix("x_") for key in content if key.startswith("x_")]:
            history = content[f"x_{case}"][:, None]
            # [3 P, Q] -> [3, P, 1, Q]
            blocks = content[f"y_{case}"].reshape(-1, config.patch_len, 1, len(config.levels))
            errors = parity_errors(process, history, blocks, config.median)
            rows.append({"weights": name, "case": case, "steps": len(history), **errors._asdict()})
    return rows


@compiled
def verified(process: Process, memory: Any, path: jax.Array) -> Any:
    """Predictions of one pass that verifies the patches of a path but the last, `[N, ...]`."""
    return process.verify(memory, process.start(memory, len(path)), path[:-1])[0].mean


def one_pass(process: Process, memory: Any, alone: Any) -> tuple[str, float]:
    """The case of one pass over several patches against single steps."""
    path = alone.mean[: PROPOSALS + 1]
    error = relative(verified(process, memory, path), path)
    return f"one pass of {len(path)} patches", error


def timesfm_cases(recorded: Recorded) -> Iterator[tuple[str, float]]:
    """The cases of TimesFM 2.5."""
    config, params = FAMILIES["timesfm"].read(part(recorded, "google/"))
    process = FAMILIES["timesfm"].make_process(config, params)
    for i, name in enumerate(("a wave", "a trend, 10 steps of padding", "a constant")):
        pad = int(recorded["pad"][i])
        series, length = (
            recorded["series"][i][:, None],
            jnp.int32(recorded["series"].shape[1] - pad),
        )
        first = pad // config.token_len
        patch, long = jax.jit(lambda x, n: outputs_at_tokens(config, params, x, n))(series, length)
        yield f"{name}: every token", relative(patch[first:, :, 0], recorded["outputs"][i, first:])
        yield (
            f"{name}: long head at every token",
            relative(long[first:, :, 0], recorded["spread_all"][i, first:]),
        )
        if i < len(recorded["transformers_forecast"]):
            error = relative(patch[-1, :, 0], recorded["transformers_forecast"][i])
            yield f"{name}: one patch of transformers", error
        alone, memory = rolled(process, series, length, patches=PATCHES)
        error = relative(alone.reported[1:, ..., 0, :], recorded["rolled"][i])
        yield f"{name}: autoregressive, {PATCHES - 1} patches from the cache", error
        case, error = one_pass(process, memory, alone)
        yield f"{name}: {case}", error


def timer_cases(recorded: Recorded) -> Iterator[tuple[str, float]]:
    """The cases of Timer; its two series are two variables."""
    process = FAMILIES["timer"].make_process(*FAMILIES["timer"].read(part(recorded, "timer/")))
    context = jnp.asarray(recorded["series"].T)
    center, scale = (recorded[name][..., None] for name in ("mean", "std"))  # [2, 1, 1]
    patches = recorded["generated"].shape[1]
    alone, memory = rolled(process, context, None, patches=patches)
    found = alone.mean.transpose(2, 0, 1)  # [N, P, C] -> [C, N, P]
    expected = recorded["generated"] * scale + center
    yield f"generate with revin=False, {patches} patches", relative(found, expected)
    yield "generate as released, first patch", relative(found[:, 0], recorded["released"])
    yield one_pass(process, memory, alone)


def patchfm_cases(recorded: Recorded) -> Iterator[tuple[str, float]]:
    """The cases of PatchFM: its median path, and the nine paths of the released decode."""
    config, params = FAMILIES["patchfm"].read(part(recorded, "patchfm/"))
    config = dataclasses.replace(config, context_limit=64)  # of the recorded model
    median = FAMILIES["patchfm"].make_process(config, params)
    nine = nine_paths_process(config, params)
    for i, name in enumerate(PATCHFM_HISTORIES):
        history, steps = recorded[f"history/{i}"][:, None], len(recorded[f"nine/{i}"])
        level = np.nanmean(history)
        expected = [recorded[f"{kind}/{i}"] - level for kind in ("outputs", "median", "nine")]
        alone, memory = rolled(median, history, None, patches=PATCHES)
        found = np.asarray(alone.reported)[:, :, 0] - level
        yield f"{name}: first patch", relative(found[0], expected[0][-1])
        error = relative(found[1:], expected[1])
        yield f"{name}: median path, {PATCHES - 1} patches from the cache", error
        case, error = one_pass(median, memory, alone)
        yield f"{name}: {case}", error
        paths, memory = rolled(nine, nine_times(history), None, patches=PATCHES - 1)
        flat = np.asarray(paths.mean).reshape(-1, len(median.reports))[:steps]
        yield f"{name}: nine paths, {steps} steps", relative(flat - level, expected[2])
        case, error = one_pass(nine, memory, paths)
        yield f"{name}: {case} of nine paths", error


TOTO = {
    "one": "a wave",
    "padded": "a wave, 5 steps of padding",
    "constant": "a constant",
    "several": "three variables",
    "missing": "three variables, values missing",
}
"""The recorded cases of Toto."""
FLOORED = "missing"
"""The case where the original's log density has a floor under the weight of a component."""


def toto_cases(recorded: Recorded) -> Iterator[tuple[str, float]]:
    """The cases of Toto 1.0; errors of several variables are the largest of theirs."""
    process = FAMILIES["toto"].make_process(*FAMILIES["toto"].read(part(recorded, "toto/")))
    mixtures = jax.jit(process.mixtures)

    def worst(found: Any, expected: np.ndarray) -> float:
        """The largest error of `[N, P, C]` against `[C, N, P]`, variable by variable."""
        ours = np.asarray(found).transpose(2, 0, 1)
        pairs = zip(ours, expected.reshape(ours.shape), strict=True)
        return max(relative(one, other) for one, other in pairs)

    for case, name in TOTO.items():
        content = part(recorded, f"{case}/")
        context = np.where(content["mask"], content["series"], np.nan).T
        mixture, _ = mixtures(context)
        yield f"{name}: mean after every patch", worst(mixture.mean(), content["mean"])
        if case != FLOORED:
            log_prob = mixture.log_prob(content["values"].transpose(1, 2, 0))
            yield f"{name}: log densities", worst(log_prob, content["log_prob"])
        alone, memory = rolled(process, context, None, patches=PATCHES)
        error = worst(alone.mean, content["generated"])
        yield f"{name}: generate_mean, {PATCHES} patches", error
        case_name, error = one_pass(process, memory, alone)
        yield f"{name}: {case_name}", error


def small_rows(cases: Cases) -> Rows:
    """The rows of cases of a small random model; there are no released weights to read."""

    def rows(recorded: Recorded, weights: Path | None) -> list[Row]:
        if weights is not None:
            raise InputError(f"no forecast of released weights is recorded; leave out {weights}.")
        named = [{"case": case, "error": error} for case, error in cases(recorded)]
        return [{"weights": "small, random", **row} for row in named]

    return rows


ROWS: dict[str, Rows] = {
    "fracast": fracast_rows,
    "timesfm": small_rows(timesfm_cases),
    "timer": small_rows(timer_cases),
    "patchfm": small_rows(patchfm_cases),
    "toto": small_rows(toto_cases),
}


def main() -> None:
    """Prints the rows and writes them with the version of the original."""
    parser = argparse.ArgumentParser(prog="python tools/family_parity.py")
    parser.add_argument("family", choices=ROWS)
    parser.add_argument("recorded", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with np.load(args.recorded) as file:
        recorded = {name: file[name] for name in file.files}
    rows = ROWS[args.family](recorded, args.weights)
    for row in rows:
        print(row)
    if args.out:
        version = f"{args.family} {recorded['version']}"
        write_rows(args.out, rows, original=f"{version} (PyPI)")


if __name__ == "__main__":
    main()
