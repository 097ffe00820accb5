"""Fidelity: the distribution of speculative sample paths against the target's, by rule.

`python evaluate.py fidelity` compares samples of whole paths: of a trained pair after contexts of
its test split, at the horizon and at ten times as much, and of synthetic forecasters whose paths
have several modes, heavy tails or regimes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.decoding.base import Process, Rule
from stride_jax.decoding.rules import Resample, rule_name
from stride_jax.decoding.speculative import decode
from stride_jax.decoding.types import DecodeConfig, num_patches
from stride_jax.errors import InputError
from stride_jax.evaluation.bench import Progress, silent
from stride_jax.evaluation.config import FidelityConfig
from stride_jax.evaluation.experiments import Report, run
from stride_jax.evaluation.results import Row, content
from stride_jax.evaluation.subject import Loaded, build, load, parse_rules, rms
from stride_jax.testing.distances import TwoSamples, compare
from stride_jax.testing.synthetic import CONTEXT_LEN, FORECASTERS, PATCH_LEN, synthetic


class Case(NamedTuple):
    """A pair after some contexts.

    Attributes:
        name: in the table.
        contexts: `[B, L, C]`.
        target: the process.
        draft: what proposes.
        sigma: std of the target's distribution.
        learned: predictions with stds of their own.
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
    contexts = jnp.zeros((1, CONTEXT_LEN, 1)).at[0, -1].set(0.01)
    horizon = config.synthetic_patches * PATCH_LEN
    for name in FORECASTERS:
        pair = synthetic(name)
        yield Case(name, contexts, pair.target, pair.draft, pair.sigma, pair.learned, horizon)


def trained_cases(config: FidelityConfig, loaded: Loaded) -> Iterator[Case]:
    """The trained pairs at each horizon and at ten times that, after test contexts."""
    setup = config.setup
    subject = build(setup, loaded)
    for horizon in setup.horizons:
        windows = subject.windows(horizon)
        spaced = np.linspace(0, windows.count - 1, config.contexts).astype(int)
        contexts = windows.gather(subject.values, jnp.asarray(spaced))[:, :-horizon]
        for draft, steps in ((d, n) for d in subject.pairs for n in (horizon, 10 * horizon)):
            name = f"{setup.data.source}, {steps} steps"
            name += f", {draft}" if len(subject.pairs) > 1 else ""
            pair = subject.pairs[draft]
            yield Case(name, contexts, pair.target, pair.draft, rms(subject.sigma), False, steps)


def paths(config: FidelityConfig, case: Case, rule: Rule | None, seed: int) -> tuple[Any, Any]:
    """Sample paths `[B, S, H * C]` in float64 and the decode's info; rule None is the target."""
    sizes = DecodeConfig(
        case.horizon,
        config.num_draft,
        num_paths=config.num_paths,
        learned_scale=case.learned and (rule is None or rule.scales == "free"),
        path_chunk=config.path_chunk,
    )
    forecast, info = decode(
        jax.random.key(seed),
        case.contexts,
        target=case.target,
        draft=None if rule is None else case.draft,
        sigma=case.sigma,
        config=sizes,
        rule=rule,
    )
    flat = np.asarray(forecast, np.float64)
    # [B, S, H, C] -> [B, S, H * C]
    return flat.reshape(*flat.shape[:2], -1), info


@run.register
def fidelity(
    config: FidelityConfig, progress: Progress = silent, loaded: Loaded | None = None
) -> Report:
    """The rules of a config on every case.

    The first row of a case compares the target with itself under another key: what chance does.

    Raises:
        InputError: an unknown rule, or one of mean paths.
    """
    rules = parse_rules(config.rules, config.num_paths)
    means = [rule_name(rule) for rule in rules if rule.proposes == "mean"]
    if means:
        raise InputError(f"rules {means} give one mean path, which has no distribution.")
    seed, rows = config.setup.seed, []
    loaded = loaded or load(config.setup)
    for case in [*synthetic_cases(config), *trained_cases(config, loaded)]:
        target, _ = paths(config, case, None, seed)
        choices: list[Rule | None] = [None, *rules]
        for rule in choices:
            if rule is not None and case.learned and rule.scales == "tied":
                continue  # the target's stds are not one sigma
            progress(f"{case.name}: {rule_name(rule) if rule else 'target again'}")
            forecasts, info = paths(config, case, rule, seed + 1)
            rows.append(_row(config, case, rule, target, forecasts, info))
    return Report(content("fidelity", rows, config))


def _row(
    config: FidelityConfig,
    case: Case,
    rule: Rule | None,
    target: Sequence[Any],
    forecasts: Sequence[Any],
    info: Any,
) -> Row:
    """The row of a rule; the acceptance and the largest bound over the contexts."""
    tests = [
        compare(a, b, permutations=config.permutations, seed=n)
        for n, (a, b) in enumerate(zip(target, forecasts, strict=True))
    ]
    patches = num_patches(case.horizon, int(case.target.patch_len))
    accepted, tested = (np.sum(x, axis=(1, 2)) for x in (info.accepted, info.proposed))  # [B]
    rates = [float(a / t) for a, t in zip(accepted, tested, strict=True)] if rule else []
    bounds = [tv_bound(rule, rate, patches) for rate in rates or (None,)]
    return {
        "case": case.name,
        "patches": patches,
        "rule": None if rule is None else rule_name(rule),
        "exact": rule is None or rule.exact,
        "acceptance": float(accepted.sum() / tested.sum()) if rates else None,
        **combined(tests, case.sigma),
        "tv_bound": None if None in bounds else max(b for b in bounds if b is not None),
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


def tv_bound(rule: Rule | None, acceptance: float | None, patches: int) -> float | None:
    """The bound on the total variation of a path, at most 1; None where there is none.

    Exact rules: 0. resample at bias 1: `N beta (1 - beta)` over N patches (the paper's bound per
    patch, summed; beta its mean, and `beta (1 - beta)` is concave).
    """
    if rule is None or rule.exact:
        return 0.0
    bounded = isinstance(rule, Resample) and rule.bias <= 1 and rule.mse_tolerance == 0
    if not bounded or acceptance is None:
        return None
    return min(1.0, patches * acceptance * (1 - acceptance))
