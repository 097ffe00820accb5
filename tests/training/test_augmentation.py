"""Made-up windows of a distillation: their share, their signs and where they end."""

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.training.augmentation import augment, stretch

WINDOWS = jax.random.normal(jax.random.key(0), (64, 24, 2))


def test_a_share_of_the_windows_is_made_up() -> None:
    """A draft would be fitted to made-up series alone, or to none."""
    found = augment(jax.random.key(1), WINDOWS, 0.25)
    same = np.asarray((found == WINDOWS).all(axis=(1, 2)))
    assert 0.5 < same.mean() < 0.95  # a binomial of 64 draws, by more than four deviations
    assert not (found == WINDOWS)[~same].all(axis=1).any()
    np.testing.assert_array_equal(augment(jax.random.key(1), WINDOWS, 0.0), WINDOWS)


def test_made_up_windows_are_upside_down_as_often_as_not() -> None:
    """A draft would only know series that vary as those of the file do."""
    made = augment(jax.random.key(1), jnp.full((64, 24, 2), 1e3), 1.0)
    down = np.asarray((made < 0).all(axis=1))
    assert 0.25 < down.mean() < 0.75
    assert (down[:, 0] != down[:, 1]).any()  # each variable by itself


def test_a_stretched_window_ends_where_it_ended() -> None:
    """The label would be that of another moment."""
    line = jnp.broadcast_to(jnp.arange(24.0)[None, :, None], (64, 24, 1))
    found = np.asarray(stretch(jax.random.key(1), line))
    np.testing.assert_allclose(found[:, -1], 23)
    assert (found[:, 0] >= -1e-4).all()
    assert (found[:, 0] <= 11.5 + 1e-4).all()  # half of the window at most is left out
    np.testing.assert_allclose(np.diff(found, n=2, axis=1), 0, atol=1e-4)
