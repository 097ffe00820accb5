"""Results whose lives can be watched."""

import gc
import weakref


class Result:
    """A leaf of a pytree."""


class Watched:
    """Makes results, and counts those of before that are alive whenever it makes one."""

    def __init__(self) -> None:
        """Nothing is made yet."""
        self.alive: list[int] = []
        self._made: list[weakref.ref[Result]] = []

    def make(self) -> Result:
        """A new result."""
        gc.collect()
        self.alive.append(sum(result() is not None for result in self._made))
        result = Result()
        self._made.append(weakref.ref(result))
        return result
