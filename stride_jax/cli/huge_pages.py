"""Huge pages for a training on a CPU.

A step of a training takes up to gigabytes of temporary memory from malloc and gives them back, and
Linux then enters every page of 4 KiB anew. With glibc's tunable `hugetlb` the memory is in pages of
2 MiB. The tunable is read when a process starts, so a program starts itself again with it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

VARIABLE, TUNABLE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"
FIRST_GLIBC = (2, 35)
"""The version that brought the tunable."""
KERNEL = Path("/sys/kernel/mm/transparent_hugepage/enabled")
"""The kernel's mode in brackets: `always` needs no request, `never` grants none."""


def restart_with_huge_pages() -> None:
    """Starts this program again with huge pages; returns where that would change nothing.

    A `GLIBC_TUNABLES` of the user's, also an empty one, is left as it is.
    """
    if VARIABLE not in os.environ and _granted_on_request():
        os.execve(
            sys.executable,
            [sys.executable, *sys.orig_argv[1:]],
            {**os.environ, VARIABLE: TUNABLE},
        )


def _granted_on_request() -> bool:
    """Whether huge pages are given to programs that ask for them, and glibc can ask."""
    if sys.platform != "linux" or not KERNEL.is_file():
        return False
    name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    return name == "glibc" and numbers >= FIRST_GLIBC and "[madvise]" in KERNEL.read_text()
