"""The one exception that means "your input, not our code", and how to word it."""

from __future__ import annotations

import difflib
import errno


class InputError(ValueError):
    """Bad input from the user: shapes, values, files, configuration, checkpoints.

    The message names the offending value and says what to do. The command-line programs print it
    as one line and exit with status 2; any other exception is a bug and keeps its traceback.
    """


class InputWarning(UserWarning):
    """A result is less certain than it looks: short or gappy histories, few sample paths.

    The command-line programs print it as one line.
    """


def nearest(name: str, known: list[str]) -> str:
    """A sentence that suggests the known name closest to `name`, or lists them all."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(sorted(known))}."


def counted(count: int, noun: str) -> str:
    """A count with its noun, such as 1 step, 2 steps or 2 series."""
    return f"{count} {noun}" if count == 1 or noun.endswith("s") else f"{count} {noun}s"


def full_disk(error: OSError) -> str:
    """One line where a file could not be written for want of room; empty for any other error."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return f"error: {error}; make room, and try again" if full else ""
