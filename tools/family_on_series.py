"""A foundation model on the embedded weather: speed, acceptance with each draft, and accuracy.

    python tools/family_on_series.py WHEEL --windows 40 --horizon 720 --num-draft 3 \
        --original "other/bin/python tools/fracast_times.py" \
        --out docs/results/families/fracast.json

It decodes windows of the last fifth of `beijing_weather`, one at a time, each variable by itself
and standardised by its context: the target alone, and with each draft, by the rule `mean` (median
path) and by `block` (one sample path). With `--original` the original's code forecasts the same
windows in turns with the decoders. The linear draft is fitted to the target on windows of the first
four fifths, which also give sigma: the root mean squared error of a patch. Run it on a quiet
machine.

Quantiles are scored where the model reports any. A model that takes any context needs
`--context-len`.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.checkpoints.build import load_pair
from stride_jax.checkpoints.pair import Pair
from stride_jax.data.embedded import embedded_series
from stride_jax.decoding.base import Process, Rule
from stride_jax.decoding.linear_draft import LinearDraft, linear_draft
from stride_jax.decoding.naive_drafts import last_value_draft, nearest_draft, seasonal_draft
from stride_jax.decoding.rules import Block, Mean
from stride_jax.decoding.traits import traits_of
from stride_jax.decoding.types import DecodeConfig
from stride_jax.evaluation.results import write_rows
from stride_jax.forecasting.decoder import build_decoder
from stride_jax.training.ridge import Rows, solve, sums_of

SEASON = 24
LINEAR_CONTEXT = 10 * SEASON
"""Steps that the linear draft sees."""
PENALTY = 0.1
"""Of the ridge regression of the linear draft."""


class Windows(NamedTuple):
    """Contexts `[N, L]` and what came after them `[N, H]`, standardised by the context."""

    contexts: np.ndarray
    truth: np.ndarray


def windows(context_len: int, horizon: int, count: int, *, last: bool) -> Windows:
    """Windows spread evenly over the variables and the last fifth, or the first four fifths."""
    values = embedded_series().values
    cut, size = len(values) * 4 // 5, context_len + horizon
    first, end = (cut, len(values)) if last else (0, cut)
    starts = np.linspace(first, end - size, count).astype(int)
    cut_out = np.stack(
        [values[s : s + size, i % values.shape[1]] for i, s in enumerate(starts)]
    )  # [N, L + H]
    contexts = cut_out[:, :context_len]
    level, scale = contexts.mean(axis=1, keepdims=True), contexts.std(axis=1, keepdims=True)
    standard = ((cut_out - level) / scale).astype(np.float32)
    return Windows(standard[:, :context_len], standard[:, context_len:])


def next_patches(target: Process, contexts: np.ndarray) -> np.ndarray:
    """What the target predicts after each context, `[N, P]`."""

    @jax.jit
    def one(target: Process, context: jax.Array) -> jax.Array:
        memory = target.prepare(context[:, None])
        nothing = jnp.zeros((0, target.patch_len, 1))
        return target.verify(memory, target.start(memory, 1), nothing)[0].mean[0, :, 0]

    return np.stack([np.asarray(one(target, jnp.asarray(context))) for context in contexts])


def fitted_draft(contexts: np.ndarray, labels: np.ndarray) -> LinearDraft:
    """The linear draft of a target, counted from the last value."""
    inputs, level = contexts[:, -LINEAR_CONTEXT:], contexts[:, -1:]
    scale = inputs.std(axis=1, keepdims=True) + 1e-3
    rows = Rows(
        inputs=jnp.asarray((inputs - level) / scale)[:, None],
        labels=jnp.asarray((labels - level) / scale)[:, None],
        scale=jnp.asarray(scale),
        weights=jnp.ones((len(inputs), 1, 1)),
    )
    return linear_draft(solve(sums_of([rows]), PENALTY)[0])


class Compared(NamedTuple):
    """A decoder and what it has given so far: forecasts, infos and seconds of each window."""

    name: str
    decode: Callable[[np.ndarray], Any]
    given: dict[str, list[Any]]


def compiled(
    name: str, pair: Pair, rule: Rule, config: DecodeConfig, sigma: float, length: int
) -> Compared:
    """A compiled decoder of one window."""
    program = build_decoder(pair, config, rule, context_shape=(length, 1))
    key = jax.random.key(0)

    def decode(context: np.ndarray) -> Any:
        return jax.block_until_ready(program(key, context[:, None], sigma))

    return Compared(name, decode, {"paths": [], "info": [], "seconds": []})


def run(one: Compared, contexts: np.ndarray) -> None:
    """Decodes every window once more and keeps the seconds; forecasts are always the same."""
    for part in one.given.values():
        part.append([])
    for context in contexts:
        start = time.perf_counter()
        path, info = one.decode(context)
        seconds = time.perf_counter() - start
        for part, value in zip(one.given.values(), (path, info, seconds), strict=True):
            part[-1].append(value)


def run_original(command: str, contexts: np.ndarray, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """Quantiles `[N, H, Q]` and seconds `[N]` of the original."""
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "histories.npz", Path(folder) / "forecasts.npz"
        np.savez(source, histories=contexts, horizon=horizon)
        subprocess.run([*shlex.split(command), str(source), str(out)], check=True)
        with np.load(out) as file:
            return file["quantiles"], file["seconds"]


def pinball(quantiles: np.ndarray, levels: tuple[float, ...], truth: np.ndarray) -> float:
    """Twice the mean quantile loss, which approximates CRPS; `[N, H, Q]` and `[N, H]`."""
    error = truth[..., None] - quantiles
    share = np.asarray(levels)
    return float(2 * np.mean(np.maximum(share * error, (share - 1) * error)))


def scores(one: Compared, tested: Windows, reports: tuple[float | str, ...]) -> dict[str, Any]:
    """The row of a decoder; `reports` are the names of what the target reports."""
    infos = one.given["info"][0]
    paths = np.stack([np.asarray(path)[:, 0] for path in one.given["paths"][0]])
    proposed = sum(int(np.sum(info.proposed)) for info in infos)
    accepted = sum(int(np.sum(info.accepted)) for info in infos)
    row = {
        "decoder": one.name,
        "ms": 1e3 * float(np.median(np.min(one.given["seconds"], axis=0))),
        "target_passes": float(np.mean([info.target_passes for info in infos])),
        "accepted": accepted / proposed if proposed else None,
        "mse": float(np.mean(np.square(paths - tested.truth))),
    }
    if not any(isinstance(name, float) for name in reports):
        return row
    reported = np.stack([np.asarray(info.reported)[..., 0, :] for info in infos])
    quantiles, levels = quantiles_of(reported, reports, paths.shape[1])
    return {**row, "crps_of_reported": pinball(quantiles, levels, tested.truth)}


def quantiles_of(
    reported: np.ndarray, reports: tuple[float | str, ...], horizon: int
) -> tuple[np.ndarray, tuple[float, ...]]:
    """The quantiles among the reported outputs, `[N, H, Q]`, and their levels.

    Args:
        reported: `[N, patches, P, R]`.
        reports: R names, of which the numbers are levels.
        horizon: H.
    """
    columns = [i for i, name in enumerate(reports) if isinstance(name, float)]
    # [N, patches, P, R] -> [N, patches * P, R]
    flat = reported.reshape(len(reported), -1, len(reports))
    return flat[:, :horizon][..., columns], tuple(float(reports[i]) for i in columns)


def compared(args: argparse.Namespace, target: Process, length: int) -> list[Compared]:
    """The target alone, and each draft with both rules."""
    fitted = windows(length, target.patch_len, args.linear_windows, last=False)
    labels = next_patches(target, fitted.contexts)
    sigma = float(np.sqrt(np.mean(np.square(labels - fitted.truth))))
    print(f"sigma {sigma:.3f} (over the std of the context)", flush=True)
    size = target.patch_len
    drafts = {
        "last-value": last_value_draft(size),
        f"seasonal:{SEASON}": seasonal_draft(size, SEASON),
        "nearest": nearest_draft(size),
        "linear": fitted_draft(fitted.contexts, labels),
    }
    alone = DecodeConfig(args.horizon, 0)
    both = DecodeConfig(args.horizon, args.num_draft)
    mean = Mean(tolerance=args.tolerance)
    decoders = [compiled("target only", Pair(target), mean, alone, sigma, length)]
    for name, draft in drafts.items():
        for rule, kind in ((mean, f"mean (tolerance {args.tolerance:g})"), (Block(), "block")):
            pair = Pair(target, draft)
            decoders.append(compiled(f"{name}, {kind}", pair, rule, both, sigma, length))
    return decoders


def main() -> None:
    """Prints the rows and writes them with the hardware and versions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument("--horizon", type=int, default=720)
    parser.add_argument("--num-draft", type=int, default=3)
    parser.add_argument("--context-len", type=int, help="of a model that takes any context")
    parser.add_argument("--tolerance", type=float, default=0.2)
    parser.add_argument("--linear-windows", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--original", help="command of a script such as tools/fracast_times.py")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    target = load_pair(args.model, None, context_len=args.context_len).target
    reports = traits_of(target).reports
    levels = tuple(x for x in reports if isinstance(x, float))
    length = traits_of(target).context_len
    if length is None:
        parser.error(f"{args.model} takes any context; give --context-len.")
    if args.original and not levels:
        parser.error(f"{args.model} reports no quantiles, which --original compares.")
    tested = windows(length, args.horizon, args.windows, last=True)
    decoders = compared(args, target, length)
    seconds = []
    for one in decoders:
        one.decode(tested.contexts[0])  # warm
    for _ in range(args.repeats):
        for one in decoders:
            run(one, tested.contexts)
        if args.original:
            quantiles, taken = run_original(args.original, tested.contexts, args.horizon)
            seconds.append(taken)
    rows = [scores(one, tested, reports) for one in decoders]
    if args.original:
        median = quantiles[..., int(np.argmin(np.abs(np.asarray(levels) - 0.5)))]
        row = {"decoder": "original code (PyTorch)"}
        row |= {"ms": 1e3 * float(np.median(np.min(seconds, axis=0)))}
        row |= {"target_passes": -(-args.horizon // target.patch_len), "accepted": None}
        row |= {"mse": float(np.mean(np.square(median - tested.truth)))}
        rows.append({**row, "crps_of_reported": pinball(quantiles, levels, tested.truth)})
    for row in rows:
        print(row)
    if args.out:
        names = ("windows", "horizon", "num_draft", "context_len", "tolerance", "linear_windows")
        settings = {name: getattr(args, name) for name in (*names, "repeats")}
        write_rows(args.out, rows, settings={"model": Path(args.model).name, **settings})


if __name__ == "__main__":
    main()
