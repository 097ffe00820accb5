"""A sweep and a tuning: which settings are measured, and what their rows say."""

import dataclasses
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.trained import HORIZON, MODEL, loaded, save_draft, setup

from stride_jax.decoding.base import Round
from stride_jax.decoding.rules import RULES, Mean, Resample, SharedNoise, rule_name
from stride_jax.decoding.types import DecodeConfig
from stride_jax.errors import InputError
from stride_jax.evaluation import bench, grids
from stride_jax.evaluation.config import SweepConfig, TuneConfig
from stride_jax.evaluation.experiments import score_all
from stride_jax.evaluation.grids import AcceptNone, settings, sweep, tune
from stride_jax.evaluation.subject import (
    build,
    draft_only,
    scoring_batches,
    speculative,
    target_only,
)

PATCHES, K = 3, 2
CONFIG = SweepConfig(
    setup=setup(seed=3),
    rules=("resample", "mean"),
    num_drafts=(K,),
    sigmas=(0.5, 1.0),
    biases=(1.0, 3.0),
    mse_tolerances=(0.0, 1.0),
    tolerances=(0.0, 0.8, 1e6),
)
DEPENDS = {
    "maximal": (),
    "block": (),
    "residual": (),
    "resample": ("bias", "mse_tolerance"),
    "as_released": ("bias", "mse_tolerance"),
    "mean": ("tolerance",),
    "shared_noise": ("tolerance",),
}
"""Settings of a rule that a sweep varies, beside K and sigma."""
PREPARE, PASS, BEFORE, STEP, VERIFY = 1.0, 2.0, 0.5, 0.25, 3.0
"""Seconds of a made-up clock: the target's preparation and pass, the draft's, a verification."""


def seconds(one):
    """Seconds of a decode on the made-up clock, from the counts of its tally."""
    decoder, patches = one.decoder, -(-one.decoder.config.horizon // 4)
    if decoder.method == "target":
        return PREPARE + PASS * patches
    if decoder.method == "draft":
        return BEFORE + STEP * patches
    scores = one.tally.scores()
    return PREPARE + BEFORE + VERIFY * scores["target_passes"] + STEP * scores["drafted"]


@pytest.fixture(scope="module")
def swept():
    """A sweep on the made-up clock, and what was measured together."""
    groups = []

    def clocked(decoders, batches, progress):
        found = bench.measure(decoders, batches, progress)
        groups.append((found, batches))
        return [one._replace(times=[seconds(one)] * len(one.times)) for one in found]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "clear_caches", lambda: None)
        patch.setattr(grids, "measure", clocked)
        content = sweep(CONFIG, loaded=loaded()).content
    return json.loads(json.dumps(content)), groups


# --- the settings --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DEPENDS)
def test_settings_are_the_product_of_what_a_rule_has(name):
    """Guards against a setting left out, or measured again for values that a rule ignores."""
    assert set(DEPENDS) == set(RULES)
    config = dataclasses.replace(CONFIG, biases=(1.0, 2.0, 5.0))
    rules = settings(name, config)
    values = [getattr(config, grids.GRID[field]) for field in DEPENDS[name]]
    found = [tuple(getattr(rule, field) for field in DEPENDS[name]) for rule in rules]
    assert found == list(itertools.product(*values))
    assert {rule_name(rule) for rule in rules} == {name}


@pytest.mark.parametrize("rule", [Resample(bias=9.0), Mean(1e6), SharedNoise(1e6)], ids=rule_name)
def test_nothing_accepted_and_the_rest_alone(rule):
    """Guards against the cost of a round read off fewer rounds, or off an easier rule."""
    values = np.random.default_rng(0).normal(size=(8, K + 1, 4, 2)).astype(np.float32)
    names = [
        field for field in Round._fields if field not in ("draft_logvar", "length", "correlation")
    ]
    rows = dict(zip(names, values, strict=False))
    cut = {name: rows[name][:K] for name in ("proposals", "noise", "draft_mean")}
    sigma = np.full((K + 1, 4, 2), 5.0, np.float32)
    current = Round(
        **{**rows, **cut, "draft_sigma": sigma[:K], "target_sigma": sigma},
        draft_logvar=None,
        length=jnp.int32(K),
    )
    key = jax.random.key(1)
    found, expected = (r.decide(key, current) for r in (AcceptNone(rule), rule))
    assert expected.num_accepted > 0
    assert (found.num_accepted, found.num_accepted.dtype) == (0, expected.num_accepted.dtype)
    for a, b in zip(found[1:], expected[1:], strict=True):
        assert (a is None) == (b is None)
        np.testing.assert_array_equal(0 if a is None else a, 0 if b is None else b)
    assert AcceptNone(rule).proposes == rule.proposes


# --- the rows of a sweep -------------------------------------------------------------------------


def test_a_rule_and_k_compile_once(swept):
    """Guards against a sweep of a hundred settings that compiles a hundred programs."""
    _, groups = swept
    assert len(groups) == 2
    for found, _ in groups:
        programs = [one.program for one in found if one.decoder.method == "speculative"]
        assert len({id(program) for program in programs}) == 2  # with the one that accepts none


def test_all_windows_are_decoded_together_and_once(swept):
    """Guards against settings that are measured on other windows than their baseline."""
    subject = build(CONFIG.setup, loaded())
    count = subject.windows(HORIZON).count
    assert count % CONFIG.setup.batch_size  # the last batch is filled up
    for found, batches in swept[1]:
        assert batches[0] is batches[1]  # the first call warms up
        assert sum(float(batch.weight.sum()) for batch in batches[1:]) == count
        assert {len(one.tally.forecasts()) for one in found} == {count}
    assert {row["windows"] for row in swept[0]["rows"]} == {count}


def test_rows_are_those_of_a_direct_evaluation(swept):
    """Guards against a setting that gives another forecast when it is evaluated by itself."""
    subject = build(CONFIG.setup, loaded())
    batches = scoring_batches(subject, subject.windows(HORIZON), HORIZON)
    rows = [row for row in swept[0]["rows"] if row["rule"]]
    wanted = [("resample", s, r) for s in CONFIG.sigmas for r in settings("resample", CONFIG)]
    wanted += [("mean", s, r) for s in CONFIG.sigmas for r in settings("mean", CONFIG)]
    assert len(wanted) == len(rows)
    accepted = set()
    for (name, sigma, rule), row in zip(wanted, rows, strict=True):
        assert (row["rule"], row["num_draft"]) == (name, K)
        assert row["sigma"] == pytest.approx(sigma)
        for field in ("bias", "mse_tolerance", "tolerance"):
            assert row[field] == getattr(rule, field, None)
        accepted.add(round(row["acceptance"], 4))
    assert {0.0, 1.0} < accepted  # the settings matter
    for number in (6, 9):  # one of each rule
        name, sigma, rule = wanted[number]
        sizes = DecodeConfig(HORIZON, K, num_paths=2 if name == "resample" else 1)
        alone = sigma if name == "resample" else 0.0
        three = [
            target_only(subject, sizes, alone),
            draft_only(subject, sizes, alone, "last-value"),
            speculative(subject, sizes, sigma, "last-value", rule),
        ]
        target, draft, scores = score_all(three, batches)
        error = "crps" if name == "resample" else "mse"
        scores["relative_error"] = scores[error] / target[error] - 1
        scores["distance_over_drafts"] = scores["distance"] / draft["distance"]
        for field in (
            "mse",
            "acceptance",
            "target_passes",
            "relative_error",
            "distance_over_drafts",
        ):
            expected = pytest.approx(scores[field], rel=1e-4, abs=1e-6)
            assert rows[number][field] == expected, field


def test_one_model_only_has_one_row_for_each_output_and_sigma(swept):
    """Guards against a baseline that is missing, or repeated for every rule."""
    rows = [row for row in swept[0]["rows"] if not row["rule"]]
    found = [(row["method"], row["output"], round(row["sigma"], 3)) for row in rows]
    wanted = [("mean", 0.0), ("sample", 0.5), ("sample", 1.0)]
    assert sorted(found) == sorted((m, *rest) for m in ("target", "draft") for rest in wanted)
    for row in rows:
        is_target = row["method"] == "target"
        assert row["distance_over_drafts"] == pytest.approx(0.0 if is_target else 1.0, abs=1e-9)
        assert (row["relative_error"] == 0) == is_target
        assert row["target_passes"] == (PATCHES if is_target else 0)


def test_times_and_predictions_follow_the_clock(swept):
    """Guards against predictions from the cost of another decode than the one they name."""
    full = PREPARE + PASS * PATCHES
    for row in swept[0]["rows"]:
        assert row["speedup"] == pytest.approx(full / row["seconds"])
        if row["rule"] is None:
            continue
        assert row["verify_seconds"] == pytest.approx(VERIFY)
        assert row["pass_seconds"] == pytest.approx(PASS)
        a = row["acceptance"]
        paper = sum(a**i for i in range(K + 1)) / (STEP / PASS * K + 1)
        assert row["predicted_paper"] == pytest.approx(paper)
        # Three patches are one round of two proposals and a bonus, or three (of 2, 2, 1) of none.
        least = full / (PREPARE + BEFORE + VERIFY * PATCHES + STEP * 5)
        most = full / (PREPARE + BEFORE + VERIFY + STEP * K)
        for name in ("predicted_independent", "predicted_markov", "speedup"):
            assert least - 1e-9 <= row[name] <= most + 1e-9
            if a in (0, 1):
                assert row[name] == pytest.approx(most if a == 1 else least)


@pytest.mark.parametrize(
    ("changes", "fields", "message"),
    [
        ({"rules": ("mean", "maxmial")}, {}, "Did you mean 'maximal'"),
        ({"num_paths": 0}, {}, "'resample' draws sample paths"),
        ({}, {"horizons": (4,)}, "horizon of two patches or more, got 4 steps"),
        ({}, {"horizons": (5000,)}, "5016 rows"),
        ({}, {"drafts": ("nowhere.npz",)}, "nowhere"),
        ({}, {"drafts": ("seasonal:16",)}, "period 16"),
    ],
)
def test_mistakes_show_before_the_work(changes, fields, message):
    """Guards against a misspelt rule or a short horizon that shows half-way through."""
    lines = []
    config = dataclasses.replace(CONFIG, setup=setup(**fields), **changes)
    with pytest.raises(InputError, match=message):
        sweep(config, lines.append, loaded())
    assert lines == []


def test_a_k_that_a_draft_cannot_propose_shows_before_the_work(tmp_path):
    """Guards against a multi-patch draft that ends a sweep at the first longer K."""
    draft = save_draft(tmp_path, output_patches=2)
    config = dataclasses.replace(CONFIG, setup=setup(drafts=(draft,)), num_drafts=(2, 3))
    with pytest.raises(InputError, match="lower num_draft"):
        sweep(config, loaded=loaded())


# --- tuning --------------------------------------------------------------------------------------

LONG = setup(horizons=(36,))
"""Nine patches, so that K = 8 is of use."""


@pytest.fixture
def tuned(monkeypatch):
    """The rows and the best of a tuning with given `(seconds, error)`; nothing is decoded."""

    def run(costs, **fields):
        def measure(decoders, *_):
            program = bench.Program(None, 0.0, 0)
            return [bench.Measured(d, program, [costs(d)[0]], bench.Tally()) for d in decoders]

        def scores(decoders, *_):
            return [
                {
                    "mse": 1e-9 if d.samples else costs(d)[1],
                    "crps": costs(d)[1] if d.samples else 1e-9,
                    "distance": None if d.method == "target" else costs(d)[1] / 10,
                    "target_passes": 1.5,
                }
                for d in decoders
            ]

        monkeypatch.setattr(grids, "measure", measure)
        monkeypatch.setattr(grids, "score_all", scores)
        config = TuneConfig(**{"setup": LONG, "max_distance": None, **fields})
        content = tune(config, loaded=loaded(500)).content
        (best,) = content["best"]
        return content["rows"], best

    return run


def mean_costs(decoder):
    """A larger K or tolerance is faster and worse; window is slower and a tenth better."""
    seconds, error = (1.0, 0.10) if decoder.label.process == "cached" else (2.0, 0.09)
    if decoder.rule is not None:
        seconds /= 1 + decoder.config.num_draft * decoder.rule.tolerance
        error *= 1 + decoder.rule.tolerance
    return seconds, error


@pytest.mark.parametrize(
    ("max_error", "process", "num_draft", "tolerance"),
    [
        (0.0, "window", None, None),  # only the most accurate target is within
        (0.03, "window", 8, 0.02),  # 2 / 1.16 s; cached starts at 11 % above
        (0.12, "cached", None, None),  # cached takes 1 s, window at .1 takes 2 / 1.8 s
        (0.14, "cached", 8, 0.02),
        (1.0, "cached", 8, 0.4),
    ],
)
def test_the_best_is_the_fastest_within_the_error(tuned, max_error, process, num_draft, tolerance):
    """Guards against a slower setting, or one whose error is above what is allowed."""
    loose = setup(horizons=(36,), process="auto")
    rows, best = tuned(mean_costs, setup=loose, max_error=max_error)
    names = ("process", "num_draft", "tolerance")
    assert tuple(best[name] for name in names) == (process, num_draft, tolerance)
    within = [row for row in rows if row["relative_error"] <= max_error]
    assert best["seconds"] == min(row["seconds"] for row in within)
    flags = grids.verdict(best)
    assert ("does not pay" in flags) == (num_draft is None)
    assert num_draft is None or f"--rules mean:tolerance={tolerance:g} --num_draft 8" in flags


@pytest.mark.parametrize(
    ("distance", "num_draft", "tolerance"), [(1.06, 8, 0.05), (0.5, None, None)]
)
def test_the_best_stays_close_to_the_target(tuned, distance, num_draft, tolerance):
    """Guards against a draft in disguise: where it beats its target, its error is no hindrance."""
    rows, best = tuned(mean_costs, max_error=1.0, max_distance=distance)
    assert (best["num_draft"], best["tolerance"]) == (num_draft, tolerance)
    for row in rows:
        expected = None if row["rule"] is None else 1 + row["tolerance"]
        assert row["distance_over_drafts"] == pytest.approx(expected)


def test_every_setting_is_measured_once(tuned):
    """Guards against a K or a tolerance that is left out and can never be the best."""
    rows, _ = tuned(mean_costs, max_error=0.5)
    found = [(row["process"], row["num_draft"], row["tolerance"]) for row in rows]
    config = TuneConfig()
    grid = [(None, None), *itertools.product(config.num_drafts, config.tolerances)]
    expected = [(process, *rest) for process in ("cached", "window") for rest in grid]
    assert sorted(found, key=str) == sorted(expected, key=str)
    for row in rows:
        assert row["relative_error"] == pytest.approx(row["error"] / 0.09 - 1)


def test_exact_rules_have_the_error_of_their_process(tuned):
    """Guards against luck of the draw between settings that follow one distribution."""

    def costs(decoder):
        if decoder.rule is not None:
            return (0.5 if decoder.config.num_draft == 3 else 0.7), float("nan")
        return 1.0, 0.2 if decoder.label.process == "cached" else 0.1

    rows, best = tuned(costs, rules=("maximal", "block", "mean"), output="sample")
    for row in rows:
        assert row["error"] == (0.2 if row["process"] == "cached" else 0.1)
        assert row["rule"] in (None, "maximal", "block")
    assert (best["process"], best["rule"], best["num_draft"]) == ("window", "maximal", 3)


def test_a_rule_that_is_not_exact_is_measured(tuned):
    """Guards against the bias of an inexact rule that passes for the accuracy of the target."""

    def costs(decoder):
        return (1.0, 0.1) if decoder.rule is None else (0.5, 0.3)

    fixed = setup(horizons=(36,), process="window")
    rows, best = tuned(costs, setup=fixed, rules=("resample",), output="sample", max_error=0.5)
    assert {row["error"] for row in rows if row["rule"]} == {0.3}
    assert {row["process"] for row in rows} == {"window"}
    assert best["rule"] is None


@pytest.mark.parametrize(("patches", "expected"), [(1, {1}), (2, {1}), (3, {1, 2})])
def test_no_round_is_longer_than_the_forecast(patches, expected, tuned):
    """Guards against rows that only repeat each other, and a best K that is never tried."""
    fixed = setup(horizons=(4 * patches,), process="window")
    rows, _ = tuned(lambda decoder: (1.0, 0.1), setup=fixed, num_drafts=(1, 2, 8))
    assert {row["num_draft"] for row in rows if row["rule"]} == expected


def test_only_processes_that_a_model_can_run_are_tried():
    """Guards against an error for models with the original's covariate mask."""
    covariate = dataclasses.replace(MODEL, covariate=True)
    masked = dataclasses.replace(covariate, covariate_mask="causal")
    config = TuneConfig(setup())
    found = [grids.processes(config, loaded(model=model)) for model in (covariate, masked, MODEL)]
    assert found == [["window"], ["cached", "window"], ["cached", "window"]]
    assert grids.processes(TuneConfig(setup(process="cached")), loaded()) == ["cached"]


@pytest.mark.parametrize(("output", "rule"), [("mean", "maximal"), ("sample", "mean")])
def test_a_tuning_of_nothing_is_refused(output, rule):
    """Guards against "does not pay" where no setting was tried."""
    with pytest.raises(InputError, match="none of the rules"):
        tune(TuneConfig(setup(), (rule,), output), loaded=loaded())


@pytest.mark.slow
def test_a_real_tuning_with_a_draft_of_two_patches(tmp_path):
    """Guards against rows on the test split, and an error at a K that the draft cannot propose."""
    draft = save_draft(tmp_path, output_patches=2)
    fields = {"num_drafts": (2, 4), "tolerances": (1e6,), "max_error": 1e6, "max_distance": None}
    config = TuneConfig(setup(drafts=(draft,), process="window"), repeats=1, **fields)
    content = json.loads(json.dumps(tune(config, loaded=loaded()).content))
    rows = content["rows"]
    assert [row["num_draft"] for row in rows] == [None, 2]
    assert [row["target_passes"] for row in rows] == [3, 1]  # everything is accepted
    assert content["best"][0] in rows
