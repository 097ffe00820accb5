"""Distributions of speculative paths against the target's: exact rules pass, wrong ones do not.

The synthetic forecasters are what their names say, compared with plain Python.
"""

import dataclasses
import itertools
import json
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy import stats

from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.config import from_dict
from stride_jax.data.config import DataConfig
from stride_jax.data.splits import ForecastData, prepare
from stride_jax.decoding.processes import window_process
from stride_jax.decoding.rules import (
    RULES,
    AsReleased,
    Block,
    Maximal,
    Resample,
    Residual,
    Rule,
    SharedNoise,
)
from stride_jax.errors import InputError
from stride_jax.evaluation import tables
from stride_jax.evaluation.config import FidelityConfig, Setup
from stride_jax.evaluation.subject import Loaded
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.timer_xl import init_params
from stride_jax.testing import fidelity
from stride_jax.testing.distances import TwoSamples
from stride_jax.testing.fidelity import Case, combined, tv_bound
from stride_jax.testing.synthetic import CONTEXT_LEN, FORECASTERS, PATCH_LEN, synthetic
from stride_jax.types import Series

MODEL = TimerXLConfig(patch_len=4, d_model=16, num_heads=2, d_ff=16, dropout=0.0)
TARGET = Checkpoint(MODEL, init_params(jax.random.key(0), MODEL), 16)
SETUP = Setup(
    data=DataConfig(source="x.csv", context_len=16),
    drafts=("last-value",),
    horizons=(7,),
    sigma=0.5,
)
PATCHES = 6
MILD = FidelityConfig(
    setup=SETUP,
    rules=("maximal", "block", "residual", "resample", "shared_noise:tolerance=0"),
    num_paths=300,
    path_chunk=60,  # so few are compiled as one loop
    synthetic_patches=PATCHES,
    permutations=999,
)
SMALLEST = 1 / 1000
"""The smallest p-value of 999 permutations."""
FEW = {"two modes": ("maximal", "shared_noise"), "heavy tails": ("shared_noise", "residual")}
ALL = dict.fromkeys(FORECASTERS, ("maximal", "block", "residual", "resample", "shared_noise"))
WILD = {"shared_noise": "shared_noise:tolerance=1e6", "resample": "resample:bias=1e30"}
"""Rules that accept everything."""
"""Rules that are asked for, by case."""
Row = dict[str, object]


@pytest.fixture(scope="module")
def data() -> ForecastData:
    """Two noisy sines of 300 steps."""
    t = np.arange(300)
    waves = np.stack([np.sin(t / 4), np.cos(t / 7)], axis=1)
    waves += 0.1 * np.random.default_rng(0).normal(size=waves.shape)
    return prepare(DataConfig(source="x.csv", context_len=16), Series(waves, ("a", "b")))


def measured(
    config: FidelityConfig,
    data: ForecastData,
    cases: list[Case],
    progress: Callable[[str], object] = lambda _: None,
) -> dict[str, object]:
    """The result of these cases."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fidelity, "trained_cases", lambda *_: [])
        patch.setattr(fidelity, "synthetic_cases", lambda _: cases)
        return fidelity.fidelity(config, progress, Loaded(data, TARGET)).content


class Measured(NamedTuple):
    """Rows by case and rule: at bias 1 and tolerance 0, and where everything is accepted."""

    asked: dict[str, tuple[str, ...]]
    mild: dict[tuple[str, str | None], Row]
    wild: dict[tuple[str, str | None], Row]


@pytest.fixture(scope="module", params=["few", pytest.param("all", marks=pytest.mark.slow)])
def measures(data: ForecastData, request: pytest.FixtureRequest) -> Measured:
    """Synthetic cases; all rules in all of them take minutes."""
    found = Measured(FEW if request.param == "few" else ALL, {}, {})
    cases = {case.name: case for case in fidelity.synthetic_cases(MILD)}
    for name, rules in found.asked.items():
        texts = tuple(text for text in MILD.rules if text.partition(":")[0] in rules)
        mild = dataclasses.replace(MILD, rules=texts)
        wild = dataclasses.replace(MILD, rules=tuple(WILD.get(rule, rule) for rule in rules))
        for config, rows in ((mild, found.mild), (wild, found.wild)):
            made = measured(config, data, [cases[name]])["rows"]
            rows.update({(row["case"], row["rule"]): row for row in made})
    return found


# ---------------------------------------------------------------- rules


def test_every_case_has_its_rules_and_a_control(measures: Measured) -> None:
    """A rule that is left out stays unproven; without the control nobody knows what chance does.

    A rule of one sigma would be called wrong for distributions whose stds are learned.
    """
    for case, rules in measures.asked.items():
        expected = [
            r
            for r in RULES
            if (r in rules and not FORECASTERS[case][-1])
            or (r in rules and RULES[r].scales == "free")
        ]
        assert [rule for name, rule in measures.mild if name == case] == [None, *expected]


def test_exact_rules_and_the_control_are_not_rejected(measures: Measured) -> None:
    """An exact rule would be called wrong, or the test would not know equal distributions."""
    for (case, rule), row in measures.mild.items():
        assert row["exact"] == (rule in (None, "maximal", "block", "residual"))
        if row["exact"] or rule == "shared_noise":  # tolerance 0: the target draw by draw
            for name in ("p_energy", "p_mmd", "p_ks"):
                assert row[name] > SMALLEST, (case, rule, name)


def test_rules_that_accept_everything_are_rejected(measures: Measured) -> None:
    """A comparison that lets the draft's distribution pass proves nothing about the exact rules."""
    wrong = {place: row for place, row in measures.wild.items() if not row["exact"]}
    asked = {rule for rules in measures.asked.values() for rule in rules}
    assert {rule for _, rule in wrong} == {rule for rule in asked if not RULES[rule].exact}
    for row in wrong.values():
        assert row["acceptance"] == 1
        assert row["p_energy"] == pytest.approx(SMALLEST)
        assert row["p_mmd"] == pytest.approx(SMALLEST)
        assert row["p_ks"] < 1e-6
        assert row["tv_bound"] is None


def test_exact_rules_do_not_look_at_bias_and_tolerance(measures: Measured) -> None:
    """A setting of another rule would change what an exact rule draws."""
    for place, row in measures.mild.items():
        if row["exact"]:
            assert measures.wild[place] == row


def test_rows_say_what_was_compared(measures: Measured) -> None:
    """A perfect draft accepts everything and makes every rule look exact."""
    for (case, rule), row in measures.mild.items():
        assert (row["case"], row["rule"], row["patches"]) == (case, rule, PATCHES)
        assert (row["acceptance"] is None) == (rule is None)
        assert row["energy"] > 0  # the control too: other noise, not the same paths again
        assert 0 < row["ks"] < 1
        if rule == "shared_noise":
            assert row["acceptance"] == 0
        elif rule is not None:
            assert 0.05 < row["acceptance"] < 0.95


# ---------------------------------------------------------------- the bound of resample


def walk_on(window: jax.Array) -> jax.Array:
    """The last value, `[1, 1]`."""
    return window[-1:]


def walk_off(gap: jax.Array, window: jax.Array) -> jax.Array:
    """The last value, off by `gap` where it is negative."""
    return window[-1:] + jnp.where(window[-1:] < 0, gap, 0.0)


def one_step(beta: float, levels: list[float]) -> Case:
    """One patch of one step, sigma 1; acceptance `beta` after a negative level, else 1."""
    gap = jnp.float32(-2 * stats.norm.ppf(beta / 2))
    target = window_process(walk_on, 1, context_len=1)
    draft = window_process(Partial(walk_off, gap), 1, context_len=1)
    contexts = jnp.asarray(levels, jnp.float32).reshape(-1, 1, 1)
    return Case("one step", contexts, target, draft, 1.0, False, 1)


def resampled(beta: float, x: np.ndarray) -> np.ndarray:
    """The distribution function of one patch of `resample`, the target's being N(0, 1).

    Its density is `min(p, q) + (1 - beta) p`; q = N(gap, 1) is below p left of gap / 2.
    """
    gap = -2 * stats.norm.ppf(beta / 2)
    common = stats.norm.cdf(np.minimum(x, gap / 2) - gap)
    common += np.maximum(stats.norm.cdf(x) - stats.norm.cdf(gap / 2), 0)
    return common + (1 - beta) * stats.norm.cdf(x)


STEP = dataclasses.replace(MILD, num_paths=500, permutations=9, rules=("resample",))
"""Of `one_step`: with four levels always one program a rule."""
LEVELS = [-10.0, -20.0, -30.0, -40.0]


def pooled(config: FidelityConfig, case: Case, rule: Rule | None, seed: int) -> tuple:
    """Innovations of all four levels, `[4 * S]`, and the decode's info."""
    made, info = fidelity.paths(config, case, rule, seed)
    assert made.shape == (4, 500, 1)
    return (made - np.asarray(case.contexts)).reshape(-1), info


@pytest.mark.parametrize("beta", [0.5, 0.8])
def test_resample_is_within_its_bound(beta: float) -> None:
    """The bound printed beside a distance would be of something else than that distance."""
    case = one_step(beta, LEVELS)
    values, info = pooled(STEP, case, Resample(), 1)
    assert stats.kstest(values, lambda x: resampled(beta, x)).pvalue > 1e-3
    acceptance = float(np.sum(info.accepted) / np.sum(info.proposed))
    bound = tv_bound(Resample(), acceptance, 1)
    grid = np.linspace(-5, 5, 2001)
    exact = np.max(np.abs(resampled(beta, grid) - stats.norm.cdf(grid)))
    assert 0.5 * bound < exact < bound  # the bound is of use, and close
    own, _ = pooled(STEP, case, None, 0)
    noise = stats.kstwobign.isf(1e-4) / np.sqrt(len(own) / 2)
    ks = stats.ks_2samp(values, own).statistic
    assert abs(ks - exact) < noise
    assert ks < bound
    biased, _ = pooled(STEP, case, Resample(bias=1e9), 1)
    assert stats.ks_2samp(biased, own).statistic > bound


def test_the_bound_holds_for_every_context(data: ForecastData) -> None:
    """The largest distance of a context would be held against the bound of an average one.

    Three contexts accept everything, the fourth half: its patch alone is .16 away.
    """
    row = measured(STEP, data, [one_step(0.5, [10.0, 20.0, 30.0, -10.0])])["rows"][1]
    error = 5 * np.sqrt(0.25 / 500) / 4
    assert abs(row["acceptance"] - 0.875) < error
    grid = np.linspace(-5, 5, 2001)
    exact = np.max(np.abs(resampled(0.5, grid) - stats.norm.cdf(grid)))
    assert exact <= row["tv_bound"] <= 0.25


def test_bounds_of_the_rules() -> None:
    """A rule would be promised a bound that it does not keep, or denied one that it does."""
    for rule in (None, Maximal(), Block(), Residual()):
        assert tv_bound(rule, 0.3, 5) == 0
    assert tv_bound(Resample(), 0.9, 2) == pytest.approx(0.18)
    assert tv_bound(Resample(), 0.5, 12) == 1
    assert tv_bound(Resample(), 1.0, 12) == 0
    assert tv_bound(Resample(), None, 2) is None
    for rule in (Resample(bias=1.01), Resample(mse_tolerance=0.1), SharedNoise(), AsReleased()):
        assert tv_bound(rule, 0.9, 2) is None


def test_contexts_are_combined() -> None:
    """Four contexts give four chances of a small p-value, which must be paid for."""
    first = TwoSamples(0.1, 0.5, 0.01, 0.02, 0.3, 0.004, 2.0)
    second = TwoSamples(0.3, 0.1, 0.03, 0.6, 0.2, 0.9, 4.0)
    found = combined([first, second], 0.5)
    expected = {
        "energy": 0.2,
        "mmd": 0.02,
        "ks": 0.3,
        "wasserstein": 6.0,  # in sigmas
        "p_energy": 0.2,
        "p_mmd": 0.04,
        "p_ks": 0.008,
    }
    assert found == pytest.approx(expected)
    assert combined([second] * 20, 1.0)["p_energy"] == 1


# ---------------------------------------------------------------- the trained pair


def test_the_trained_pair_is_decoded_after_test_contexts(data: ForecastData) -> None:
    """The rows named after the series would be of other contexts, horizons or another sigma."""
    config = dataclasses.replace(MILD, contexts=3)
    cases = list(fidelity.trained_cases(config, Loaded(data, TARGET)))
    assert [case.name for case in cases] == ["x.csv, 7 steps", "x.csv, 70 steps"]
    assert [case.horizon for case in cases] == [7, 70]
    start, stop = data.splits.test
    starts = [start, start + (stop - start - 23) // 2, stop - 23]
    expected = np.stack([data.values[row : row + 16] for row in starts])
    for case in cases:
        np.testing.assert_array_equal(case.contexts, expected)
        assert case.sigma == 0.5
        assert not case.learned


def check_result(results: dict[str, object], config: FidelityConfig) -> list[Row]:
    """A result as it is written to a file and read again, and its table; the rows."""
    results = json.loads(json.dumps(results, allow_nan=False))
    assert {"hardware", "versions", "table"} <= set(results)
    assert from_dict(FidelityConfig, results["config"]) == config
    text = tables.make_table(results)
    assert all(row["case"] in text for row in results["rows"])
    return results["rows"]


def test_the_result_is_written_down(data: ForecastData) -> None:
    """The command would fail after its work, or leave a file that no table can be made of."""
    said: list[str] = []
    cases = [one_step(0.5, LEVELS), one_step(0.8, LEVELS)]
    rows = check_result(measured(STEP, data, cases, said.append), STEP)
    assert [row["rule"] for row in rows] == 2 * [None, "resample"]
    assert len(said) == 4
    control, resampled = rows[:2]
    assert control["tv_bound"] == 0
    assert control["exact"]
    assert resampled["tv_bound"] > 0
    assert not resampled["exact"]
    assert resampled["p_ks"] < 1e-6 < control["p_ks"]


@pytest.mark.slow
def test_the_whole_command(data: ForecastData) -> None:
    """The rows of the trained pair would end in an error, or reject an exact rule."""
    setup = dataclasses.replace(SETUP, sigma=None)
    config = dataclasses.replace(
        MILD, setup=setup, rules=("maximal",), contexts=2, num_paths=40, path_chunk=30
    )
    rows = check_result(fidelity.fidelity(config, loaded=Loaded(data, TARGET)).content, config)
    found = [(row["case"], row["patches"], row["rule"]) for row in rows[-4:]]
    lengths = (("x.csv, 7 steps", 2), ("x.csv, 70 steps", 18))  # 1.75 and 17.5 patches
    assert found == [(*case, rule) for case in lengths for rule in (None, "maximal")]
    assert len(rows) == 5 + 4
    for row in rows:
        assert row["tv_bound"] == 0
        assert row["p_energy"] > 2 * SMALLEST  # two contexts: doubled


def test_chunks_do_not_change_the_paths() -> None:
    """The result would depend on how many paths fit into memory."""
    case, chunked = one_step(0.5, LEVELS), dataclasses.replace(STEP, path_chunk=200)
    found = [fidelity.paths(config, case, None, 5)[0] for config in (STEP, chunked)]
    assert found[0].dtype == np.float64
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"contexts": 0},
        {"num_paths": 1},
        {"num_draft": 0},
        {"synthetic_patches": 0},
        {"permutations": 0},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    """They would end in a traceback after the synthetic cases."""
    with pytest.raises(InputError, match=next(iter(wrong))):
        dataclasses.replace(MILD, **wrong)


@pytest.mark.parametrize("rule", ["mean", "maxmial"])
def test_a_rule_that_is_unknown_or_does_not_sample_shows_before_the_work(
    data: ForecastData, rule: str
) -> None:
    """A misspelt last rule throws the others' work away; mean paths cannot be compared."""
    with pytest.raises(InputError, match=f"{rule}|maximal"):
        measured(dataclasses.replace(STEP, rules=("maximal", rule)), data, [])


# ---------------------------------------------------------------- the synthetic distributions


def slow_distribution(
    name: str, params: tuple[float, ...], window: np.ndarray
) -> tuple[list, float | None]:
    """Mean `[P]` and variance of the next patch, in plain Python."""
    last = [float(x) for x in window[-PATCH_LEN:, 0]]
    if name == "two modes":
        pull, shift = params
        x, mean = last[-1], []
        for _ in range(PATCH_LEN):
            x += pull * (x - x**3) + shift
            mean.append(x)
        return mean, None
    if name == "heavy tails":
        base, share, bias = params
        return [bias] * PATCH_LEN, base + share * sum(x * x for x in last) / PATCH_LEN
    slope, bias = params
    level, half = sum(last) / PATCH_LEN, PATCH_LEN // 2
    way = 1 if sum(last[half:]) > sum(last[:half]) else -1
    way = -1 if level > 1 else 1 if level < -1 else way
    return [level + slope * way * (i + 1) + bias for i in range(PATCH_LEN)], None


@pytest.mark.parametrize("name", FORECASTERS)
def test_the_distributions_are_those_described(name: str) -> None:
    """A table on two modes, heavy tails or regimes would be of something else."""
    made = synthetic(name)
    assert (made.sigma, made.learned) == FORECASTERS[name][3:]
    rng = np.random.default_rng(0)
    around = rng.uniform(-1.5, 1.5, size=(20, 1, 1)) + rng.normal(0, 0.3, (20, CONTEXT_LEN, 1))
    windows = np.clip(around, -1.9, 1.9).astype(np.float32)
    distributions = [
        jax.jit(jax.vmap(process.predict_patch))(windows) for process in (made.target, made.draft)
    ]
    for distribution, params in zip(distributions, FORECASTERS[name][1:3], strict=True):
        assert (distribution.logvar is None) == (not made.learned)
        for i, window in enumerate(windows):
            mean, variance = slow_distribution(name, params, window)
            np.testing.assert_allclose(distribution.mean[i, :, 0], mean, atol=1e-5)
            if variance is not None:
                np.testing.assert_allclose(
                    np.exp(distribution.logvar[i, :, 0]), variance, rtol=1e-5
                )
    gaps = np.linalg.norm(distributions[0].mean - distributions[1].mean, axis=(1, 2)) / made.sigma
    assert 0.3 < np.mean(gaps) < 4  # a poor draft, yet one of which something is accepted


@pytest.fixture(scope="module")
def target_paths() -> dict[str, np.ndarray]:
    """2,100 paths of every synthetic target, `[S, N, P]`."""
    cases = {case.name: case for case in fidelity.synthetic_cases(MILD)}
    assert set(cases) == set(FORECASTERS)
    made = {
        name: np.concatenate([fidelity.paths(MILD, case, None, seed)[0][0] for seed in range(7)])
        for name, case in cases.items()
    }
    return {name: paths.reshape(-1, PATCHES, PATCH_LEN) for name, paths in made.items()}


def test_two_modes_are_two_modes(target_paths: dict[str, np.ndarray]) -> None:
    """The hardest case of the table would be a single bump, on which wrong rules look right."""
    end = target_paths["two modes"][:, -1, -1]
    near = {place: np.sum(np.abs(end - place) < 0.25) for place in (-1, 0, 1)}
    assert min(near[-1], near[1]) > 4 * near[0]
    # Sarle's coefficient: 5/9 for a uniform distribution, 1/3 for a normal one
    coefficient = (stats.skew(end) ** 2 + 1) / stats.kurtosis(end, fisher=False)
    assert coefficient > 5 / 9
    before = target_paths["two modes"][:, 2, -1]
    assert np.mean(np.sign(before) == np.sign(end)) > 0.8  # a path stays in its mode


def test_heavy_tails_are_heavy(target_paths: dict[str, np.ndarray]) -> None:
    """A Gaussian would pass for a heavy-tailed distribution."""
    paths = target_paths["heavy tails"]
    tested = stats.kurtosistest(paths[:, -1, -1])
    assert tested.pvalue < 1e-6
    assert stats.kurtosis(paths[:, -1, -1], fisher=False) > 3.5
    # a patch given the one before is Gaussian all the same
    base, share, bias = FORECASTERS["heavy tails"][1]
    variance = base + share * np.mean(paths[:, -2] ** 2, axis=1)
    noise = (paths[:, -1] - bias) / np.sqrt(variance)[:, None]
    assert stats.kstest(noise.reshape(-1), "norm").pvalue > 1e-3


def test_regimes_turn_at_one(target_paths: dict[str, np.ndarray]) -> None:
    """A path that never turns is a straight line, and has no regimes."""
    distribution, levels = jax.jit(synthetic("regimes").target.predict_patch), []
    window = jnp.zeros((CONTEXT_LEN, 1))
    window = window.at[-1].set(0.01)
    for _ in range(16):
        patch = distribution(window).mean
        levels.append(float(np.mean(patch)))
        window = jnp.concatenate([window, patch])[-CONTEXT_LEN:]
    turns = [
        b for a, b, c in zip(levels, levels[1:], levels[2:], strict=False) if (b - a) * (c - b) < 0
    ]
    assert len(turns) >= 4
    assert all(abs(level) > 1 for level in turns)
    assert all(a * b < 0 for a, b in itertools.pairwise(turns))
    # sample paths go up and down, too
    steps = np.diff(target_paths["regimes"].mean(axis=2), axis=1)
    both = np.any(steps > 0.5, axis=1) & np.any(steps < -0.5, axis=1)
    assert np.mean(both) > 0.5
