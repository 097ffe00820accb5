"""Largest relative error of foundation models against their original code's recorded outputs.

`python tools/family_parity.py --out docs/results/families/parity.json` reads
`tests/golden/timesfm.npz` and `timer.npz` (half a minute on 2 CPU cores). An error is the largest
absolute one over the largest value of what was recorded. The models are small, with every parameter
random: no released weights were read.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.evaluation.results import Row, write_rows
from stride_jax.models import timer, timesfm
from stride_jax.models.timesfm.process import outputs_at_tokens

GOLDEN = Path(__file__).parent.parent / "tests" / "golden"
PATCHES, PROPOSALS = 8, 6
Recorded = dict[str, np.ndarray]


def state_dict(recorded: Recorded, prefix: str) -> Recorded:
    """The arrays of a model by the original's names."""
    start = f"{prefix}/"
    return {k.removeprefix(start): v for k, v in recorded.items() if k.startswith(start)}


def relative(found: Any, expected: Any) -> float:
    """The largest error over the largest value."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def roll(process: Any, context: jax.Array, length: Any, patches: int) -> tuple[Any, Any]:
    """Predictions of the autoregressive decode `[N, ...]`, and those of one pass over its patches.

    The pass verifies the first patches of that path as proposals, `[PROPOSALS + 1, ...]`.
    """
    memory = process.prepare(context, length)
    nothing = jnp.zeros((0, process.patch_len, context.shape[1]))

    def step(state: Any, _: None) -> tuple[Any, Any]:
        predictions, state = process.verify(memory, state, nothing)
        state = process.commit(state, predictions.mean, jnp.int32(1))
        return state, jax.tree.map(lambda x: x[0], predictions)

    _, predictions = jax.lax.scan(step, process.start(memory, patches), length=patches)
    count = min(PROPOSALS, patches - 1)
    start = process.start(memory, patches)
    together, _ = process.verify(memory, start, predictions.mean[:count])
    return predictions, together


def one_pass(alone: Any, together: Any) -> tuple[str, float]:
    """The case of one pass over several patches against single steps."""
    count = len(together.mean)
    return f"one pass of {count} patches", relative(together.mean, alone.mean[:count])


def timesfm_cases(recorded: Recorded) -> Iterator[tuple[str, float]]:
    """The cases of TimesFM 2.5."""
    config, params = timesfm.FAMILY.read(state_dict(recorded, "google"))
    process = timesfm.FAMILY.make_process(config, params)
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
        alone, together = jax.jit(lambda x, n: roll(process, x, n, PATCHES))(series, length)
        error = relative(alone.reported[1:, ..., 0, :], recorded["rolled"][i])
        yield f"{name}: autoregressive, {PATCHES - 1} patches from the cache", error
        case, error = one_pass(alone, together)
        yield f"{name}: {case}", error


def timer_cases(recorded: Recorded) -> Iterator[tuple[str, float]]:
    """The cases of Timer; its two series are two variables."""
    process = timer.FAMILY.make_process(*timer.FAMILY.read(state_dict(recorded, "timer")))
    context = jnp.asarray(recorded["series"].T)
    center, scale = (recorded[name][..., None] for name in ("mean", "std"))  # [2, 1, 1]
    patches = recorded["generated"].shape[1]
    alone, together = jax.jit(lambda x: roll(process, x, None, patches))(context)
    found = alone.mean.transpose(2, 0, 1)  # [N, P, C] -> [C, N, P]
    expected = recorded["generated"] * scale + center
    yield f"generate with revin=False, {patches} patches", relative(found, expected)
    yield "generate as released, first patch", relative(found[:, 0], recorded["released"])
    yield one_pass(alone, together)


CASES: dict[str, Callable[[Recorded], Iterator[tuple[str, float]]]] = {
    "timesfm": timesfm_cases,
    "timer": timer_cases,
}


def main() -> None:
    """Writes a row for every case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows: list[Row] = []
    for family, cases in CASES.items():
        with np.load(GOLDEN / f"{family}.npz") as file:
            recorded = dict(file)
        for case, error in cases(recorded):
            original = str(recorded["versions"])
            rows.append({"family": family, "case": case, "error": error, "original": original})
            print(f"{family:8} {case:60} {error:.1e}", flush=True)
    if args.out:
        write_rows(args.out, rows)


if __name__ == "__main__":
    main()
