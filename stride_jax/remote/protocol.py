"""The meaning of messages: a request to decode, blocks of proposals, and the target's answers.

The client sends `open` and gets `ready`; then each `block` of proposals gets an `answer`. Anything
that is refused gets `refused` with the reason. A message carries the number of its decode and of
its block, so that a late one or a second one is known as such.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from stride_jax.decoding.base import Proposals
from stride_jax.decoding.checks import Inputs
from stride_jax.decoding.rules import RULES, Rule, WithoutBonus, find_rule, rule_name
from stride_jax.decoding.scale import PatchCovariance
from stride_jax.decoding.types import DecodeConfig
from stride_jax.errors import InputError
from stride_jax.remote.messages import Message


class Request(NamedTuple):
    """A decode as the server is asked for it.

    Attributes:
        number: of the decode, chosen by the client.
        inputs: key, series and sigma.
        config: sizes; horizon, K, paths and whether a learned scale is taken.
        rule: decides at the server.
        patch_len: P of the draft.
        ahead: blocks that the client sends before it has the answer to an earlier one.
    """

    number: int
    inputs: Inputs
    config: DecodeConfig
    rule: Rule
    patch_len: int
    ahead: int


class Block(NamedTuple):
    """The proposals of one round of all paths, B series with S paths each.

    Attributes:
        branch: `[B, S]` int32, how often the path's next round was another than the client had
            guessed; a block of an older branch is void for that path.
        length: `[B, S]` int32, proposals that count.
        patches: `[B, S, K, P, C]`, the proposals.
        mean: `[B, S, K, P, C]`, of the draft's distributions.
        sigma: `[B, S, K, P, C]`, their std where the draft has learned it; None for that of the
            request.
        logvar: `[B, S, K, P, C]`, the draft's learned log variance, or None.
    """

    branch: Any
    length: Any
    patches: Any
    mean: Any
    sigma: Any = None
    logvar: Any = None

    def proposals(self, sigma: jax.Array) -> Proposals:
        """The proposals as a round takes them, for one path; `sigma [P, C]` of the request."""
        spread = self.sigma
        if spread is None:
            spread = jax.numpy.broadcast_to(sigma, self.mean.shape)
        return Proposals(self.patches, self.mean, spread, self.logvar)


class Answer(NamedTuple):
    """The rule's decision on a block; without `taken` nothing else of a path counts.

    Attributes:
        taken: `[B, S]` bool, the block was of the path's branch.
        num_accepted: `[B, S]` int32, see `base.Outcome`, as are the next four.
        added: `[B, S]` int32.
        overflow: `[B, S]` int32.
        patch: `[B, S, P, C]`.
        emitted: `[B, S, K, P, C]`, or None.
        reported: `[B, S, K + 1, P, C, Q]`, what the target reports; None for nothing.
    """

    taken: Any
    num_accepted: Any
    added: Any
    overflow: Any
    patch: Any
    emitted: Any = None
    reported: Any = None


def present(parts: dict[str, Any]) -> dict[str, np.ndarray]:
    """The parts that are there, as arrays of numpy."""
    return {name: np.asarray(value) for name, value in parts.items() if value is not None}


def open_message(request: Request) -> Message:
    """The request as a message."""
    inputs, config = request.inputs, request.config
    sigma = inputs.sigma
    scale = {"sigma": sigma}
    if isinstance(sigma, PatchCovariance):
        scale = {"factor": sigma.factor, "sigma": sigma.sigma}
    fields = {
        "number": request.number,
        "patch_len": request.patch_len,
        "ahead": request.ahead,
        "key": str(jax.random.key_impl(inputs.key)),
        "rule": rule_fields(request.rule),
        "horizon": config.horizon,
        "num_draft": config.num_draft,
        "num_paths": config.num_paths,
        "learned_scale": config.learned_scale,
    }
    arrays = {
        "key": jax.random.key_data(inputs.key),
        "context": inputs.context,
        "series_index": inputs.series_index,
        "lengths": inputs.lengths,
        **scale,
    }
    return Message("open", fields, present(arrays))


def read_open(message: Message) -> Request:
    """The request in a message.

    Raises:
        InputError: a field or an array is missing, or a rule, a key or a config is none.
    """
    fields = message.fields
    arrays: dict[str, Any] = message.arrays
    try:
        sigma = arrays["sigma"]
        if "factor" in arrays:
            sigma = PatchCovariance(arrays["factor"], sigma)
        key = jax.random.wrap_key_data(arrays["key"], impl=fields["key"])
        inputs = Inputs(
            key, arrays["context"], sigma, arrays.get("series_index"), arrays.get("lengths")
        )
        sizes = ("horizon", "num_draft", "num_paths", "learned_scale")
        config = DecodeConfig(**{name: fields[name] for name in sizes})
        rule = read_rule(fields["rule"])
        numbers = [int(fields[name]) for name in ("number", "patch_len", "ahead")]
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"a request to decode cannot be read: {error!r}.") from error
    number, patch_len, ahead = numbers
    return Request(number, inputs, config, rule, patch_len, ahead)


def rule_fields(rule: Rule) -> dict[str, Any]:
    """A rule as its name and its settings.

    Raises:
        InputError: a rule that a server does not know by a name.
    """
    rest = rule.rest if isinstance(rule, WithoutBonus) else rule
    name = rule_name(rest)
    if RULES.get(name) is not type(rest):
        raise InputError(
            f"rule {rest!r} decides at the server, which does not know it; use one of "
            f"{', '.join(RULES)}, or WithoutBonus of one."
        )
    settings = {}
    for field in dataclasses.fields(rest):  # type: ignore[arg-type]
        value = getattr(rest, field.name)
        settings[field.name] = value if value is None or isinstance(value, bool) else float(value)
    return {"name": name, "settings": settings, "bonus": rest is rule}


def read_rule(fields: dict[str, Any]) -> Rule:
    """The rule of its name and settings.

    Raises:
        InputError: an unknown name or setting, or one that is out of range.
    """
    known = find_rule(str(fields["name"]))
    settings = fields["settings"]
    if not all(value is None or isinstance(value, bool | float) for value in settings.values()):
        raise InputError(f"settings of a rule are numbers, got {settings!r}.")
    rest = known(**settings)
    rule = rest if fields["bonus"] else WithoutBonus(rest)
    rule.check()
    return rule


def numbered(kind: str, decode: int, block: int, parts: NamedTuple) -> Message:
    """A `block` or an `answer` as a message, with the numbers of its decode and its block."""
    return Message(kind, {"number": decode, "block": block}, present(parts._asdict()))


def read_block(message: Message, shape: tuple[int, ...]) -> Block:
    """The block in a message; `shape` is `(B, S, K, P, C)`.

    Raises:
        InputError: see `_checked`.
    """
    patches = ("float32", shape)
    numbers = ("int32", shape[:2])
    required = {"branch": numbers, "length": numbers, "patches": patches, "mean": patches}
    return Block(**_checked(message, required, {"sigma": patches, "logvar": patches}))


def read_answer(message: Message, shape: tuple[int, ...], outputs: int) -> Answer:
    """The answer in a message; `shape` is `(B, S, K, P, C)`, `outputs` is Q.

    Raises:
        InputError: see `_checked`.
    """
    batch, paths, num_draft, *patch = shape
    lanes = (batch, paths)
    names = ("num_accepted", "added", "overflow")
    required: Expected = dict.fromkeys(names, ("int32", lanes))
    required |= {"taken": ("bool", lanes), "patch": ("float32", (*lanes, *patch))}
    if outputs:
        required["reported"] = ("float32", (*lanes, num_draft + 1, *patch, outputs))
    return Answer(**_checked(message, required, {"emitted": ("float32", shape)}))


Expected = dict[str, tuple[str, tuple[int, ...]]]
"""Type and shape of each array of a message."""


def _checked(message: Message, required: Expected, allowed: Expected) -> dict[str, np.ndarray]:
    """The arrays of a message.

    Raises:
        InputError: one is missing, one too many, or one of another type or shape.
    """
    given = {name: (array.dtype.name, array.shape) for name, array in message.arrays.items()}
    expected = required | {name: allowed[name] for name in allowed if name in given}
    if given != expected:
        raise InputError(
            f"message {message.kind!r} should hold {expected}, got {given}; both sides must decode "
            "the same series."
        )
    return message.arrays
