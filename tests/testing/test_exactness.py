"""The exact rule keeps the distribution of the target; wrong rules are caught by the same test."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.toys import one_loop

from stride_jax.decoding.rules import RULES
from stride_jax.testing import exactness
from stride_jax.testing.analytic import closed_form_covariance, make_problem, processes


@pytest.mark.parametrize(
    ("rule", "kind", "shape"),
    [
        ("maximal", "window", "two, joint"),
        ("block", "cached", "one"),
        pytest.param("residual", "cached", "one", marks=pytest.mark.slow),
    ],
)
def test_exact_rules_follow_the_distribution_of_the_target(
    rule: str, kind: str, shape: str
) -> None:
    """Any flaw in accepting, recovering, the bonus or the bookkeeping shows in 50,000 paths."""
    scale = 1.3 if RULES[rule].scales == "free" else 1.0
    problem = make_problem(delta=1.0, draft_scale=scale, **exactness.SHAPES[shape])
    # one cell as it is decoded by default: many paths go on in smaller batches
    options = {} if rule == "maximal" else {"decoder": one_loop}
    result = exactness.check(problem, RULES[rule](), kind=kind, num_series=50_000, **options)
    assert result["p"] > exactness.PASS_ABOVE
    assert 0.2 < result["acceptance"] < 0.8
    assert result["delta_5"] > 0.5
    assert result["delta_95"] < 2


QUICK = ("resample", "planted: maximal without mirroring")
"""The other wrong rules are slow."""


@pytest.mark.parametrize(
    "name",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in exactness.WRONG
    ],
)
def test_wrong_rules_fail_the_same_test(name: str) -> None:
    """A test that lets these through proves nothing about the right rules."""
    rule, scale = exactness.WRONG[name]
    problem = make_problem(delta=1.3, draft_scale=scale)
    assert (
        exactness.check(problem, rule, num_series=30_000, decoder=one_loop)["p"]
        < exactness.FAIL_BELOW
    )


def test_no_exact_rule_is_left_out() -> None:
    """A new exact rule without a cell above would ship unproven."""
    assert {name for name, rule in RULES.items() if rule.exact} == {"maximal", "block", "residual"}


def test_both_processes_of_the_analytic_model_agree() -> None:
    """The cached cells would test another target than the closed form."""
    problem = make_problem(num_vars=2)
    context = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
    proposals = np.random.default_rng(1).normal(size=(3, 2, 2)).astype(np.float32)
    distributions = []
    for kind in ("window", "cached"):
        target, _ = processes(problem, kind)
        memory = target.prepare(context)
        distributions.append(target.verify(memory, target.start(memory, 9), proposals)[0].mean)
    np.testing.assert_allclose(distributions[0], distributions[1], atol=1e-6)


@pytest.mark.slow
def test_the_whole_report_is_as_expected() -> None:
    """The command that the README names must agree with the claims."""
    assert exactness.main(["--num-series", "200000"]) == 0


def test_the_committed_report_is_as_expected() -> None:
    """The figures in the docs come from this file."""
    path = Path(__file__).parents[2] / "docs" / "results" / "exactness.json"
    rows = json.loads(path.read_text())["rows"]
    assert {row["rule"] for row in rows if row["exact"]} == {"maximal", "block", "residual"}
    assert sum(row["exact"] for row in rows) == 36
    assert all(row["as_expected"] for row in rows)


def test_closed_form_covariance_is_that_of_a_simulation() -> None:
    """The covariance test is only as good as its closed form."""
    problem = make_problem(seed=3)
    rng = np.random.default_rng(0)
    size, width = 200_000, problem.patch_len * problem.num_vars
    window = np.zeros((size, 2 * width))
    patches = []
    for _ in range(problem.num_patches):
        patch = window @ problem.weight.T + problem.sigma * rng.normal(size=(size, width))
        window = np.concatenate([window[:, width:], patch], axis=1)
        patches.append(patch)
    found = np.cov(np.concatenate(patches, axis=1).T)
    np.testing.assert_allclose(found, closed_form_covariance(problem), atol=0.01)


def test_the_problem_keeps_the_target_stable_and_the_draft_poor() -> None:
    """A draft that equals the target would make every rule look exact."""
    problem = make_problem()
    assert np.linalg.norm(problem.weight, 2) < 1
    assert np.linalg.norm(problem.draft_bias) > 0.5 * problem.sigma
