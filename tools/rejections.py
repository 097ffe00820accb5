"""Rejections of every rule beside what theory says they cost at least.

`python tools/rejections.py --out docs/results/rejections.json` (about 15 minutes on 2 CPU cores)
decodes sample paths with K = N, so that the draft proposes at every place, and counts the rounds
that end with a rejection. Theory (`stride_jax.evaluation.rejections`) is computed along other
paths, which the target draws by itself. The sum of the total variations has a closed form for the
linear-Gaussian problem of `stride_jax.testing.analytic`, and is estimated for the pairs in the
package. A figure of the same name is drawn beside the file. Fails where a rule that claims to be
exact lies below its bound or away from its expectation.
"""

import argparse
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.data.config import DataConfig
from stride_jax.decoding.base import Process, Rule
from stride_jax.decoding.rules import (
    Block,
    Maximal,
    Resample,
    Residual,
    Several,
    SharedNoise,
)
from stride_jax.decoding.speculative import decode
from stride_jax.decoding.types import DecodeConfig
from stride_jax.evaluation import bench
from stride_jax.evaluation.config import Setup
from stride_jax.evaluation.figures.canvas import new_figure
from stride_jax.evaluation.rejections import (
    Along,
    contradictions,
    expected_total_variation,
    rejection_row,
)
from stride_jax.evaluation.results import write_rows
from stride_jax.evaluation.subject import build, load, speculative, target_only, timing_batches
from stride_jax.testing.analytic import gap_moments, innovations, make_problem, processes

RULES: dict[str, Rule] = {
    "maximal": Maximal(),
    "residual": Residual(),
    "block": Block(),
    "several, 2 chains, maximal": Several(Maximal(), chains=2),
    "several, 4 chains, maximal": Several(Maximal(), chains=4),
    "several, 2 chains, block": Several(Block(), chains=2),
    "several, 4 chains, block": Several(Block(), chains=4),
    "resample": Resample(),
    "resample, bias 2": Resample(bias=2.0),
    "shared_noise, tolerance 0.2": SharedNoise(0.2),
}
TOY_PATHS, WINDOWS, PATHS, BATCH = 40_000, 128, 8, 32
SEEDS = {"paths of the target": 1, "rules": 0}
PAIRS = {
    "beijing": (Setup(horizons=(168,)), 168),
    "zero_shot": (
        Setup(
            data=DataConfig(context_len=1008, variables="separate"),
            target="zero_shot_target.safetensors",
            drafts=("zero_shot_draft.safetensors",),
            horizons=(176,),
        ),
        176,
    ),
}
"""Setup and horizon, a whole number of patches."""


def main() -> None:
    """Prints the rows, writes them and draws them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", choices=("toy", *PAIRS), nargs="+", default=("toy", *PAIRS))
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in args.only:
        rows += toy_rows() if name == "toy" else pair_rows(name)
        write_rows(args.out, rows)
    draw(args.out.with_suffix(".png"), rows)
    wrong = contradictions(rows)
    for row in wrong:
        print("against theory:", row)
    sys.exit(1 if wrong else 0)


def shown(pair: str, row: dict[str, Any]) -> dict[str, Any]:
    """The row with the name of its pair, printed."""
    row = {"pair": pair, **row}
    print(row, flush=True)
    return row


def rejections(info: Any) -> np.ndarray:
    """Rounds that ended with a rejection, of each path: a tested proposal that was not kept."""
    return np.sum(np.asarray(info.proposed - info.accepted), axis=-1)


def toy_rows() -> list[dict[str, Any]]:
    """The linear-Gaussian problem."""
    problem = make_problem()
    target, draft = processes(problem, "window")
    rng = np.random.default_rng(0)
    shape = (2 * problem.patch_len, problem.num_vars)
    context = rng.normal(size=shape).astype(np.float32)
    horizon = problem.num_patches * problem.patch_len
    config = DecodeConfig(horizon, problem.num_patches, num_paths=TOY_PATHS, compactions=0)

    def paths(key: str, **models: Any) -> Any:
        return decode(
            jax.random.key(SEEDS[key]),
            jnp.asarray(context),
            target=target,
            sigma=problem.sigma,
            config=config,
            **models,
        )

    drawn, _ = paths("paths of the target")
    along = Along.of(*innovations(problem, context, np.asarray(drawn)))
    closed = sum(expected_total_variation(*moments) for moments in gap_moments(problem, context))
    rows = []
    for name, rule in RULES.items():
        _, info = paths("rules", draft=draft, rule=rule)
        row = rejection_row(name, rule, rejections(info), along, closed)
        rows.append(shown("linear-Gaussian", row))
    return rows


def pair_rows(pair: str) -> list[dict[str, Any]]:
    """A pair of the package on test windows of the embedded series."""
    setup, horizon = PAIRS[pair]
    subject = build(setup, load(setup))
    (name,), target = setup.drafts, subject.target
    count = horizon // target.patch_len
    config = DecodeConfig(horizon, count, num_paths=PATHS, compactions=0)
    batches = timing_batches(subject, subject.windows(horizon), horizon, BATCH, WINDOWS // BATCH)

    def forecasts(decoder: bench.Decoder, seed: int) -> list[Any]:
        keys = jax.random.split(jax.random.key(seed), len(batches))
        (program,) = bench.compile_all([decoder], batches[0])
        return [
            program.decode(decoder, batch._replace(key=key))
            for batch, key in zip(batches[1:], keys[1:], strict=True)
        ]

    # Along paths of the target.
    drawn = forecasts(target_only(subject, config, subject.sigma), SEEDS["paths of the target"])
    along = along_paths(target, subject.pairs[name].draft, subject.sigma)
    parts = [along(b.context, paths) for b, (paths, _) in zip(batches[1:], drawn, strict=True)]
    joined = Along(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    # The rules.
    rows = []
    for text, rule in RULES.items():
        infos = forecasts(speculative(subject, config, subject.sigma, name, rule), SEEDS["rules"])
        measured = np.concatenate([rejections(info).mean(axis=1) for _, info in infos])  # [W]
        rows.append(shown(pair, rejection_row(text, rule, measured, joined)))
    return rows


def along_paths(target: Process, draft: Any, sigma: float) -> Callable[..., Along]:
    """A function of contexts `[B, L, C]` and paths `[B, S, H, C]`: `Along` of B x S paths."""

    def means(process: Any, context: jax.Array, paths: jax.Array) -> jax.Array:
        memory, room = process.prepare(context), paths.shape[1]

        def one(path: jax.Array) -> jax.Array:  # [N, P, C] -> [N, P, C]
            return process.verify(memory, process.start(memory, room), path[:-1])[0].mean

        return jax.vmap(one)(paths)

    @jax.jit
    def standardised(context: jax.Array, paths: jax.Array) -> tuple[jax.Array, jax.Array]:
        # [B, S, H, C] -> [B, S, N, P, C]
        patches = paths.reshape(*paths.shape[:2], -1, target.patch_len, paths.shape[-1])
        p, q = (
            jax.vmap(functools.partial(means, model))(context, patches) for model in (target, draft)
        )
        # [B, S, N, P, C] -> [B * S, N, P * C]
        shape = (-1, patches.shape[2], patches.shape[3] * patches.shape[4])
        eps, gap = (patches - p) / sigma, (p - q) / sigma
        return eps.reshape(shape), gap.reshape(shape)

    def call(context: jax.Array, paths: jax.Array) -> Along:
        return Along.of(*(np.asarray(x, np.float64) for x in standardised(context, paths)))

    return call


def draw(path: Path, rows: list[dict[str, Any]]) -> None:
    """One panel for each pair: measured rejections, expectation and bound of every rule."""
    pairs = list(dict.fromkeys(row["pair"] for row in rows))
    figure = new_figure(4.6 * len(pairs), 4.4)
    panels = figure.subplots(1, len(pairs), sharey=True, squeeze=False)[0]
    for axes, pair in zip(panels, pairs, strict=True):
        here = [row for row in rows if row["pair"] == pair]
        places = np.arange(len(here))
        axes.axvline(here[0]["bound"], color="0.6", linewidth=1, label="sum of total variations")
        bounds = [row["bound"] for row in here]
        axes.scatter(bounds, places, marker="|", s=220, color="k", label="bound of its class")
        known = [i for i in places if here[i]["expected"] is not None]
        expected = [here[i]["expected"] for i in known]
        axes.scatter(
            expected, known, marker="o", s=70, facecolors="none", edgecolors="tab:blue",
            label="expected",
        )  # fmt: skip
        for exact, colour, label in (
            (True, "tab:blue", "measured, exact"),
            (False, "tab:red", "measured, not exact"),
        ):
            some = [i for i in places if here[i]["exact"] == exact]
            measured = [here[i]["rejections"] for i in some]
            error = [here[i]["+-"] for i in some]
            axes.errorbar(measured, some, xerr=error, fmt=".", color=colour, capsize=2, label=label)
        axes.set_title(pair, fontsize=10)
        axes.set_xlabel("rejections of a path")
        axes.set_xlim(left=0)
    panels[0].set_yticks(places, [row["rule"] for row in here])
    panels[0].invert_yaxis()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
