"""The exact rule follows the target's law; wrong rules are caught by the same test."""

import json
from pathlib import Path

import numpy as np
import pytest

from stride_jax import exactness


@pytest.mark.parametrize(("num_vars", "delta"), [(2, 1.0), (1, 1.3)])
def test_maximal_follows_the_target_s_law(num_vars: int, delta: float) -> None:
    """Any flaw in accepting, mirroring, the bonus or the bookkeeping shows in 100,000 series."""
    problem = exactness.make_problem(num_vars=num_vars, patch_len=3, delta=delta)
    result = exactness.check(problem, "maximal")
    assert result["p"] > exactness.PASS_ABOVE
    assert 0.2 < result["acceptance"] < 0.8
    assert result["delta_5"] > 0.5
    assert result["delta_95"] < 2


@pytest.mark.parametrize("rule", ["resample", exactness.planted_recover])
def test_wrong_rules_fail_the_same_test(rule: object) -> None:
    """A test that lets these through proves nothing about the right rule."""
    result = exactness.check(exactness.make_problem(), rule)
    assert result["p"] < exactness.FAIL_BELOW


@pytest.mark.slow
def test_the_whole_report_is_as_expected() -> None:
    """The command that the README names must agree with the claims."""
    assert exactness.main(["--num-series", "300000"]) == 0


def test_the_committed_report_is_as_expected() -> None:
    """The figures in the docs come from this file."""
    path = Path(__file__).parent.parent / "docs" / "results" / "exactness.json"
    rows = json.loads(path.read_text())["rows"]
    assert {row["rule"] for row in rows} >= {"maximal", "resample"}
    assert all(row["as_expected"] for row in rows)


def test_closed_form_covariance_is_that_of_a_simulation() -> None:
    """The covariance test is only as good as its closed form."""
    problem = exactness.make_problem(seed=3)
    rng = np.random.default_rng(0)
    size, width = 200_000, problem.patch_len * problem.num_vars
    window = np.zeros((size, 2 * width))
    patches = []
    for _ in range(problem.num_patches):
        patch = window @ problem.weight.T + problem.sigma * rng.normal(size=(size, width))
        window = np.concatenate([window[:, width:], patch], axis=1)
        patches.append(patch)
    found = np.cov(np.concatenate(patches, axis=1).T)
    np.testing.assert_allclose(found, exactness.closed_form_covariance(problem, 4), atol=0.01)


def test_the_problem_keeps_the_target_stable_and_the_draft_poor() -> None:
    """A draft that equals the target would make every rule look exact."""
    problem = exactness.make_problem()
    assert np.linalg.norm(problem.weight, 2) < 1
    assert np.linalg.norm(problem.draft_bias) > 0.5 * problem.sigma
