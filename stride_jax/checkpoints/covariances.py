"""The covariance of a model's errors on disk: the factor as a `.npy` file, `[P, P]` float32."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

import numpy as np

from stride_jax.checkpoints.store import PACKAGED
from stride_jax.decoding.scale import PatchCovariance, check_factor
from stride_jax.errors import InputError


def load_covariance(name_or_path: str | Path) -> PatchCovariance:
    """Loads the covariance of the errors of a patch, for `Pair`.

    Args:
        name_or_path: the name of a model in the package, or a `.npy` file that holds a
            factor, `[P, P]` or `[C, P, P]`: `np.save(path, covariance.factor)` writes one.

    Raises:
        InputError: no such file, or one that holds no factor.
    """
    if name_or_path in PACKAGED:
        with as_file(files("stride_jax") / "assets" / f"{name_or_path}_covariance.npy") as path:
            return _read(path)
    return _read(Path(name_or_path))


def _read(path: Path) -> PatchCovariance:
    try:
        factor = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{path} is no covariance: {error}; give a .npy file of a factor, or one of "
            f"{', '.join(PACKAGED)}."
        ) from error
    if not isinstance(factor, np.ndarray):
        factor.close()
        raise InputError(f"{path} is no covariance: it holds several arrays; give a .npy file.")
    if factor.ndim not in (2, 3):
        raise InputError(f"{path} holds an array of shape {factor.shape}; expected [P, P].")
    shape = factor.shape[-1], (len(factor) if factor.ndim == 3 else 1)
    check_factor(factor, shape)
    return PatchCovariance(factor)
