"""How far speculative sample paths are from autoregressive ones, in law, by rule.

`python evaluate.py --config fidelity` compares samples of whole paths: of a trained pair after
contexts of its test split, at the horizon and at ten times as much, and of synthetic forecasters
whose path laws have several modes, heavy tails or regimes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.config import to_dict
from stride_jax.data.splits import ForecastData
from stride_jax.decoding.base import DecodeConfig, Process, num_patches
from stride_jax.decoding.rules import find_rule
from stride_jax.decoding.speculative import decode
from stride_jax.errors import InputError
from stride_jax.evaluation import benchmark
from stride_jax.evaluation.config import FidelityConfig
from stride_jax.evaluation.methods import make_pairs, make_rule
from stride_jax.evaluation.scoring import gather
from stride_jax.testing.distances import TwoSamples, compare
from stride_jax.testing.synthetic import CONTEXT_LEN, LAWS, PATCH_LEN, synthetic


class Case(NamedTuple):
    """What is decoded.

    Attributes:
        name: in the table.
        contexts: `[B, L, C]`.
        target: the process.
        draft: what proposes; None for the target itself with another key, the control.
        sigma: std of the target's law.
        learned: laws with stds of their own.
        horizon: steps.
    """

    name: str
    contexts: jax.Array
    target: Process
    draft: Any
    sigma: float
    learned: bool
    horizon: int


def synthetic_cases(config: FidelityConfig) -> Iterator[Case]:
    """The synthetic forecasters, from a context at rest."""
    for name in LAWS:
        made = synthetic(name)
        contexts = jnp.zeros((1, CONTEXT_LEN, 1)).at[0, -1].set(0.01)
        horizon = config.synthetic_patches * PATCH_LEN
        yield Case(name, contexts, made.target, made.draft, made.sigma, made.learned, horizon)


def trained_cases(config: FidelityConfig, data: ForecastData, target: Checkpoint) -> Iterator[Case]:
    """The trained pair at the longest horizon and at ten times that, after test contexts."""
    base = config.base
    pair = make_pairs(base, target, len(data.names))[base.draft]
    horizon, values = max(base.horizons), data.on_device
    windows = benchmark.test_windows(base, data, horizon)
    spaced = np.linspace(0, windows.count - 1, config.contexts).astype(int)
    contexts = gather(values, jnp.asarray(spaced), windows)[:, :-horizon]
    sigma = benchmark.sigma_of(dataclasses.replace(base, diagonal_sigma=False), data, pair.target)
    for steps in (horizon, 10 * horizon):
        name = f"{base.data.source}, {steps} steps"
        yield Case(name, contexts, pair.target, pair.draft, float(sigma), False, steps)


def paths(config: FidelityConfig, case: Case, rule: str | None, seed: int) -> tuple[Any, Any]:
    """Sample paths `[B, S, H * C]` in float64 and the decode's info; rule None is the target."""
    key = jax.random.key(seed)
    learned = case.learned and (rule is None or find_rule(rule).scales == "free")
    sizes = DecodeConfig(
        case.horizon,
        config.num_draft,
        num_paths=config.num_paths,
        learned_scale=learned,
        path_chunk=config.path_chunk,
    )
    made, info = decode(
        key,
        case.contexts,
        target=case.target,
        draft=None if rule is None else case.draft,
        sigma=case.sigma,
        config=sizes,
        rule=None if rule is None else make_rule(rule, config),
    )
    flat = np.asarray(made, np.float64)
    # [B, S, H, C] -> [B, S, H * C]
    return flat.reshape(*flat.shape[:2], -1), info


def measure(
    config: FidelityConfig,
    data: ForecastData,
    target: Checkpoint,
    progress: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """All rows, with the hardware, versions and config.

    The first row of a case compares the target with itself under another key: what chance does.

    Args:
        config: what to run.
        data: of the trained pair, see `data.splits.prepare`.
        target: the trained target.
        progress: called with a line on what is being done.

    Returns:
        A dictionary with rows (a list), hardware, versions and config.

    Raises:
        InputError: an unknown rule, or one of mean paths.
    """
    for name in config.rules:
        if find_rule(name).proposes == "mean":
            raise InputError(f"rule {name!r} makes a mean path, which has no law to compare.")
    machine, rows = benchmark.environment(), []
    for case in [*synthetic_cases(config), *trained_cases(config, data, target)]:
        own, _ = paths(config, case, None, config.base.seed)
        for rule in (None, *config.rules):
            if rule is not None and case.learned and find_rule(rule).scales == "tied":
                continue  # the target's stds are not one sigma
            progress(f"{case.name}: {rule or 'target again'}")
            made, info = paths(config, case, rule, config.base.seed + 1)
            rows.append(_row(config, case, rule, own, made, info))
    return {"table": "fidelity", "rows": rows, **machine, "config": to_dict(config)}


def _row(
    config: FidelityConfig, case: Case, rule: str | None, own: Any, made: Any, info: Any
) -> dict[str, Any]:
    tests = [
        compare(a, b, permutations=config.permutations, seed=n)
        for n, (a, b) in enumerate(zip(own, made, strict=True))
    ]
    patches = num_patches(case.horizon, int(case.target.patch_len))
    acceptance, bound = None, tv_bound(rule, None, patches, config.bias)
    if rule is not None:
        accepted, tested = (np.sum(x, axis=(1, 2)) for x in (info.accepted, info.proposed))  # [B]
        acceptance = float(accepted.sum() / tested.sum())
        bounds = [
            tv_bound(rule, float(a / t), patches, config.bias)
            for a, t in zip(accepted, tested, strict=True)
        ]
        bound = None if bounds[0] is None else max(b or 0.0 for b in bounds)
    return {
        "case": case.name,
        "patches": patches,
        "rule": rule,
        "exact": rule is None or find_rule(rule).exact,
        "acceptance": acceptance,
        **combined(tests, case.sigma),
        "tv_bound": bound,
    }


def combined(tests: list[TwoSamples], sigma: float) -> dict[str, float]:
    """Means of the distances over contexts, the smallest p-values corrected for their number.

    The KS distance is the largest, so that it may be held against the largest bound in total
    variation; Wasserstein is in sigmas.
    """
    count = len(tests)
    mean = {name: float(np.mean([getattr(t, name) for t in tests])) for name in ("energy", "mmd")}
    worst = {
        name: min(1.0, count * min(getattr(t, name) for t in tests))
        for name in ("p_energy", "p_mmd", "p_ks")
    }
    ks = max(t.ks for t in tests)
    wasserstein = float(np.mean([t.wasserstein for t in tests])) / sigma
    return {**mean, "ks": ks, "wasserstein": wasserstein, **worst}


def tv_bound(rule: str | None, acceptance: float | None, patches: int, bias: float) -> float | None:
    """The bound on the total variation of a path, at most 1; None where there is none.

    Exact rules: 0. resample at bias 1: `N beta (1 - beta)` over N patches (the paper's bound a
    patch, summed; beta its mean, and `beta (1 - beta)` is concave).
    """
    if rule is None or find_rule(rule).exact:
        return 0.0
    if rule != "resample" or acceptance is None or bias > 1:
        return None
    return min(1.0, patches * acceptance * (1 - acceptance))
