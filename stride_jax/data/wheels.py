"""Files inside the wheels of packages that nothing installs."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

from stride_jax.errors import InputError

Reader = Callable[[str, str], bytes]
"""`(package, path in its wheel) -> bytes`."""


def wheel_reader(root: Path) -> Reader:
    """Reads files out of the wheels of a directory, of which there is one for each package.

    Raises:
        InputError: when it reads: no wheel of that package, or several.
    """

    def read(package: str, path: str) -> bytes:
        wheels = sorted(root.glob(f"{package}-*.whl"))
        if len(wheels) != 1:
            raise InputError(f"{root} holds {len(wheels)} wheels of {package}; put one there.")
        with zipfile.ZipFile(wheels[0]) as archive:
            return archive.read(path)

    return read
