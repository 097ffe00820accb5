"""What several chains of proposals bring, beside one chain of as many rows.

`python tools/several_proposals.py --out docs/results/several_proposals.json` (about a minute)
takes two Gaussians that are `gap` sigmas apart at every place. A round of n chains of K proposals
shows the target n (K + 1) patches, so it stands beside one chain of n (K + 1) - 1 proposals.
Acceptance of the first place and patches of a round come from the closed form, and are measured by
`Several.choose`; those of `block` are simulated from the walk of its `log p_i`.

`--pair` decodes test windows of the embedded series with the shipped pair instead, and counts
target passes (about 2 minutes; `--out docs/results/several_pair.json`).
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.decoding import gaussian
from stride_jax.decoding.base import Round
from stride_jax.decoding.rules import Block, Maximal, Rule, Several, several
from stride_jax.decoding.types import DecodeConfig
from stride_jax.evaluation import bench
from stride_jax.evaluation.config import Setup
from stride_jax.evaluation.results import write_rows
from stride_jax.evaluation.subject import build, load, speculative, timing_batches

GAPS, CHAINS, NUM_DRAFT = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0), (1, 2, 4, 8), 3
ROUNDS, WALKS = 50_000, 200_000
HORIZON, WINDOWS = 168, 256


def main() -> None:
    """Prints the rows and writes them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pair", action="store_true")
    args = parser.parse_args()
    rows = pair_rows() if args.pair else gap_rows()
    for row in rows:
        print(row, flush=True)
    write_rows(args.out, rows)


def gap_rows() -> list[dict[str, Any]]:
    """One row for each gap and number of chains."""
    blocks = {gap: block_patches(gap, max(CHAINS) * (NUM_DRAFT + 1)) for gap in GAPS}
    rows = []
    for chains in CHAINS:
        seen, longest = chains * (NUM_DRAFT + 1), chains * (NUM_DRAFT + 1) - 1
        counts = np.asarray(accepted(jnp.asarray(GAPS, jnp.float32), chains))
        for gap, count in zip(GAPS, counts, strict=True):
            block, single = blocks[gap], float(gaussian.acceptance(jnp.float32(gap)))
            kept = float(several.acceptance(jnp.float32(gap), chains))
            rows.append(
                {
                    "gap": gap,
                    "chains": chains,
                    "rows": seen,
                    "first kept": kept,
                    "measured": float(np.mean(count > 0)),
                    "patches": 1 + kept * block[NUM_DRAFT - 1],
                    "patches measured": float(1 + np.mean(count)),
                    "block, same K": block[NUM_DRAFT],
                    "block, same rows": block[longest],
                    "maximal, same rows": sum(single**i for i in range(longest + 1)),
                }
            )
    return sorted(rows, key=lambda row: row["gap"])


def block_patches(gap: float, most: int) -> list[float]:
    """Patches of a round of `block` for K = 0, 1, ..., most: `1 + sum_i E[p_i]` by simulation."""
    rng, log_p = np.random.default_rng(0), np.zeros(WALKS)
    patches = [1.0]
    for _ in range(most):
        log_p = np.minimum(log_p + rng.normal(-(gap**2) / 2, gap, WALKS), 0)
        patches.append(patches[-1] + float(np.mean(np.exp(log_p))))
    return patches


def accepted(gaps: jax.Array, chains: int) -> jax.Array:
    """Accepted proposals of `ROUNDS` rounds at each gap, `[gaps, ROUNDS]` int32."""
    rule = Several(Block(), chains=chains)
    ones = jnp.ones((NUM_DRAFT + 1, 1, 1))

    def one(key: jax.Array, gap: jax.Array) -> jax.Array:
        noise_key, rule_key = jax.random.split(key)
        noise = jax.random.normal(noise_key, (chains, NUM_DRAFT, 1, 1))
        length = jnp.asarray(NUM_DRAFT, jnp.int32)

        def chain(z: jax.Array) -> Round:
            q, p = 0 * z, gap * ones
            return Round(z, z, q, ones[1:], p, ones, None, 0 * ones, length)

        return rule.choose(rule_key, jax.vmap(chain)(noise))[1].num_accepted

    keys = jax.random.split(jax.random.key(chains), (len(gaps), ROUNDS))
    return jax.jit(jax.vmap(jax.vmap(one, (0, None))))(keys, gaps)


def pair_rows() -> list[dict[str, Any]]:
    """Target passes of the shipped pair by rule and number of chains."""
    setup = Setup()
    subject = build(setup, load(setup), [NUM_DRAFT])
    (name,), windows = setup.drafts, subject.windows(HORIZON)
    batches = timing_batches(subject, windows, HORIZON, WINDOWS, 0)
    rules: list[tuple[str, Rule, int]] = [
        ("maximal", Maximal(), NUM_DRAFT),
        ("block", Block(), NUM_DRAFT),
        ("block", Block(), 2 * NUM_DRAFT),  # all 7 patches
    ]
    rules += [(f"several, {n} chains", Several(Block(), chains=n), NUM_DRAFT) for n in CHAINS[1:]]
    rows = []
    for text, rule, num_draft in rules:
        config = DecodeConfig(HORIZON, num_draft, num_paths=1, compactions=0)
        decoder = speculative(subject, config, subject.sigma, name, rule)
        (program,) = bench.compile_all([decoder], batches[0])
        _, info = program.decode(decoder, batches[0])
        passes = np.asarray(info.target_passes)
        chains = rule.chains if isinstance(rule, Several) else 1
        rows.append(
            {
                "rule": text,
                "K": num_draft,
                "rows of a pass": chains * (num_draft + 1),
                "target passes": float(np.mean(passes)),
                "standard error": float(np.std(passes) / np.sqrt(passes.size)),
                "first kept": float(info.accepted[..., 0].sum() / info.proposed[..., 0].sum()),
            }
        )
    return rows


if __name__ == "__main__":
    main()
