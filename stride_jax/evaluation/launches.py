"""Launches of a compiled GPU program, counted in the text of its optimised HLO.

At the sizes of this package a decode on a GPU costs its launches, a few microseconds each, and not
its arithmetic (docs/results/launches.md). `count` reads `jax.stages.Compiled.as_text()`; it needs
neither a GPU nor jax.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from stride_jax.errors import InputError

NOTHING = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"}
NOTHING |= {"add-dependency", "domain", "opt-barrier", "partition-id", "replica-id"}
"""Operations that name a buffer and launch nothing."""

ANNOTATIONS = {"Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape"}
"""Targets of custom calls that launch nothing."""


class Instruction(NamedTuple):
    """One line of a computation.

    Attributes:
        opcode: such as `fusion`.
        called: the computations it names, in order.
        text: the whole line.
    """

    opcode: str
    called: tuple[str, ...]
    text: str


class Block(NamedTuple):
    """The launches of one run of a computation, with those of everything it calls.

    Attributes:
        kinds: launches by operation. A loop counts once here, for the read of its condition, and a
            conditional once and the branch that launches most.
        scatters: scatters, also those inside fusions.
        loops: the bodies of its loops, each counted for one iteration.
        trips: iterations where this is the body of a loop and the compiler knows them, else None.
    """

    kinds: Counter[str]
    scatters: int = 0
    loops: tuple[Block, ...] = ()
    trips: int | None = None

    @property
    def launches(self) -> int:
        """Launches of one run, without the iterations of its loops."""
        return self.kinds.total()

    @property
    def copies(self) -> int:
        """Copies from buffer to buffer among the launches."""
        return self.kinds["copy"]

    def bodies(self) -> Iterator[Block]:
        """Every loop inside, the outer ones first."""
        for loop in self.loops:
            yield loop
            yield from loop.bodies()

    def total(self, trips: int) -> int:
        """The launches with those of its loops, `trips` times where their length is not known."""
        loops = ((loop.trips or trips) * loop.total(trips) for loop in self.loops)
        return self.launches + sum(loops)


Computations = dict[str, list[Instruction]]


def count(text: str) -> Block:
    """The launches of a program.

    Args:
        text: of the optimised HLO module.

    Raises:
        InputError: the text has no entry computation.
    """
    computations, entry = parse(text)
    return _block(computations, entry)


def parse(text: str) -> tuple[Computations, str]:
    """The computations of an HLO module by name, and the name of its entry.

    Raises:
        InputError: the text has no entry computation.
    """
    computations: Computations = {}
    entry, current = None, None
    for line in re.sub(r"/\*.*?\*/", "", text).splitlines():
        header = re.match(r"(ENTRY )?%?([\w.\-]+) .*\{$", line)
        if header and "->" in line:
            current = computations.setdefault(header[2], [])
            entry = header[2] if header[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and " = " in line:
            current.append(_instruction(line.strip()))
    if entry is None:
        raise InputError("the text has no ENTRY computation; give the text of an HLO module.")
    return computations, entry


def _instruction(line: str) -> Instruction:
    """An instruction from its line: `%name = TYPE opcode(operands), attributes`."""
    rest = line.partition(" = ")[2]
    opcode = rest[_end_of_type(rest) :].strip().partition("(")[0]
    called: list[str] = []
    names = "calls|to_apply|body|true_computation|false_computation"
    lists = "branch_computations|called_computations"
    for one, several in re.findall(rf"\b(?:{names})=%?([\w.\-]+)|\b(?:{lists})=\{{(.*?)\}}", line):
        called += [one] if one else [name.strip().lstrip("%") for name in several.split(",")]
    return Instruction(opcode, tuple(called), line)


def _end_of_type(text: str) -> int:
    """Where the type at the start of a text ends; a tuple's type has spaces and parentheses."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter in "({") - (letter in ")}")
        if letter == " " and depth == 0:
            return place
    return len(text)


def _block(computations: Computations, name: str) -> Block:
    """The launches of one computation."""
    return _joined(_launched(computations, x) for x in computations.get(name, ()))


def _launched(computations: Computations, instruction: Instruction) -> Block:
    """The launches of one instruction."""
    opcode = instruction.opcode.removesuffix("-start")  # an asynchronous one starts once
    inner = [_block(computations, name) for name in instruction.called]
    if opcode in NOTHING or opcode.endswith(("-done", "-update")):
        return Block(Counter())
    if opcode in ("call", "async"):
        return _joined(inner)
    if opcode == "while":
        return Block(Counter({"while": 1}), loops=(inner[0]._replace(trips=_trips(instruction)),))
    if opcode == "conditional":
        return _joined([Block(Counter({"conditional": 1})), max(inner, key=lambda b: b.launches)])
    if opcode == "custom-call" and _target(instruction) in ANNOTATIONS:
        return Block(Counter())
    scatters = (opcode == "scatter") + sum(block.scatters for block in inner)
    return Block(Counter({opcode: 1}), scatters)


def _joined(blocks: Iterable[Block]) -> Block:
    """Blocks that run one after the other."""
    kinds: Counter[str] = Counter()
    scatters, loops = 0, list[Block]()
    for block in blocks:
        kinds += block.kinds
        scatters += block.scatters
        loops += block.loops
    return Block(kinds, scatters, tuple(loops))


def _trips(loop: Instruction) -> int | None:
    """The iterations of a loop that the compiler knows."""
    match = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.text)
    return None if match is None else int(match[1])


def _target(call: Instruction) -> str:
    """The target of a custom call."""
    match = re.search(r'custom_call_target="([^"]*)"', call.text)
    return "" if match is None else match[1]
