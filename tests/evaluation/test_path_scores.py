"""Scores of sample paths as paths, against closed forms and numbers worked out by hand."""

import numpy as np
import pytest

from stride_jax.evaluation.path_scores import energy_score, variogram_score


def test_the_energy_score_of_two_paths_by_hand() -> None:
    """A score without its second half rewards paths that are all the same.

    The paths (0, 0) and (6, 8) lie 10 apart, and 5 and 5 from the truth (3, 4): the score is
    5 - 10 / 2 = 0. From the truth (0, 0) they lie 0 and 10: 5 - 5 = 0. From (0, 10), 10 and
    sqrt(40).
    """
    paths = np.asarray([[[0.0, 0.0], [6.0, 8.0]]])
    for truth, expected in (([3.0, 4.0], 0.0), ([0.0, 0.0], 0.0), ([0.0, 10.0], None)):
        if expected is None:
            expected = ((10 + np.sqrt(40)) / 2 - 5) / np.sqrt(2)
        np.testing.assert_allclose(energy_score(paths, np.asarray([truth])), expected, atol=1e-12)


def test_the_energy_score_of_one_step_is_the_crps_of_a_gaussian() -> None:
    """With one step it is the CRPS: `2 phi(0) - 1 / sqrt(pi)` at the mean of N(0, 1)."""
    paths = np.random.default_rng(0).normal(size=(40, 500, 1))
    expected = np.sqrt(2 / np.pi) - np.pi**-0.5
    np.testing.assert_allclose(energy_score(paths, np.zeros((40, 1))), expected, rtol=0.03)


def test_the_variogram_score_by_hand() -> None:
    """A wrong pair, power or order of mean and root.

    The truth (0, 4) differs by 4, whose root is 2. Paths that differ by 1 and 9 have the roots 1
    and 3, with the mean 2: no error. Paths that differ by 1 and 1 are off by 1 at the two pairs of
    different steps of four, 1 / 2 on average.
    """
    truth = np.asarray([[0.0, 4.0]])
    assert variogram_score(np.asarray([[[0.0, 1.0], [0.0, 9.0]]]), truth) == 0
    assert variogram_score(np.asarray([[[0.0, 1.0], [5.0, 6.0]]]), truth) == pytest.approx(0.5)


def test_independent_steps_lose_by_both_scores_on_a_random_walk() -> None:
    """Right step by step and wrong as a path: neither score would see what it is for."""
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(60, 20)).cumsum(axis=1)
    joint = rng.normal(size=(60, 50, 20)).cumsum(axis=2)
    apart = rng.normal(size=(60, 50, 20)) * np.sqrt(np.arange(1, 21))
    assert energy_score(joint, truth) < energy_score(apart, truth)
    assert variogram_score(joint, truth) < 0.7 * variogram_score(apart, truth)
