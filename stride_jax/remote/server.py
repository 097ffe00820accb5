"""The server of a decode: it holds the target, verifies blocks of proposals and decides on them.

`reply_to` is a pure function from a session and a message to the next session and the reply.
`serve` runs it over sockets.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.decoding.base import Process
from stride_jax.decoding.batching import (
    as_series,
    lane_keys,
    over_lanes,
    prepare_series,
    typed_key,
)
from stride_jax.decoding.checks import Inputs, check_inputs
from stride_jax.decoding.compiled import compiled
from stride_jax.decoding.draft_length import Fixed
from stride_jax.decoding.rounds import (
    LoopState,
    Memory,
    Model,
    commit_round,
    initial_state,
    round_noise,
    verify_patches,
)
from stride_jax.decoding.scale import PatchCovariance
from stride_jax.decoding.speculative import check_covariance, check_rule
from stride_jax.decoding.traits import check_process, for_paths, length_unit, traits_of
from stride_jax.decoding.types import DecodeConfig, num_patches
from stride_jax.errors import InputError
from stride_jax.remote.absent import Absent, choose
from stride_jax.remote.link import LinkClosedError, SocketLink, without_delay
from stride_jax.remote.messages import Message
from stride_jax.remote.protocol import Answer, Block, Request, numbered, read_block, read_open

log = logging.getLogger(__name__)
PASSING = (
    errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED, errno.EINTR,
)  # fmt: skip
"""Errors after which a listener takes the next client again."""
PAUSE = 0.1
"""Seconds until it tries."""


class ServedPath(NamedTuple):
    """A path at the server; with leading `[B, S]` all of a decode.

    Attributes:
        state: the carry of its rounds; the draft's part of it is empty.
        branch: int32, see `protocol.Block`.
    """

    state: LoopState
    branch: jax.Array


class Session(NamedTuple):
    """One decode of one client.

    Attributes:
        request: what the client asked for.
        model: target and rule; the draft is absent.
        memory: of the contexts.
        paths: with leading `[B, S]`.
        shape: `(B, S, K, P, C)` of a block.
        expected: number of the block that comes next.
        ready: the reply to the request.
        replies: to the last blocks by their number, as many as the client may ask for again.
    """

    request: Request
    model: Model
    memory: Memory
    paths: ServedPath
    shape: tuple[int, ...]
    expected: int
    ready: Message
    replies: dict[int, Message]


def reply_to(
    target: Process, session: Session | None, message: Message
) -> tuple[Session | None, Message | None]:
    """The session after a message, and the reply to it; None where it is not to be answered.

    A message that came before gets the reply that it had. A block whose predecessor is missing gets
    none: the client sends both again.
    """
    try:
        if message.kind == "open":
            return _open(target, session, message)
        if message.kind == "block" and session is not None:
            return _verify(session, message)
    except InputError as error:
        return session, _refusal(message.fields.get("number"), str(error))
    except Exception as error:  # of the target, which may be anyone's
        log.exception("a decode failed")
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        return session, _refusal(message.fields.get("number"), reason)
    return session, None


def _refusal(number: Any, reason: str) -> Message:
    """The reply that ends a decode; without a number it is of the whole link."""
    return Message("refused", {"number": number, "reason": reason}, {})


def _open(
    target: Process, session: Session | None, message: Message
) -> tuple[Session, Message | None]:
    request = read_open(message)
    if session is not None and session.request.number == request.number:
        return session, session.ready
    session = start_session(target, request)
    return session, session.ready


def _verify(session: Session, message: Message) -> tuple[Session, Message | None]:
    fields = message.fields
    number = fields.get("block")
    if fields.get("number") != session.request.number or not isinstance(number, int):
        return session, None
    if number != session.expected:
        return session, session.replies.get(number)

    # Paths whose block is void play no round; where all are void the target is not asked.
    block = read_block(message, session.shape)
    paths = session.paths
    if (block.branch == np.asarray(paths.branch)).any():
        paths, answer = verify_block(
            session.model,
            session.memory,
            paths,
            block,
            config=session.request.config,
            count=count_of(session.request),
        )
    else:
        answer = void_answer(session.shape, len(traits_of(session.model.target).reports))

    # The replies that the client may still ask for.
    reply = numbered("answer", session.request.number, number, answer)
    oldest = number - session.request.ahead
    replies = {n: r for n, r in session.replies.items() if n >= oldest} | {number: reply}
    return session._replace(paths=paths, expected=number + 1, replies=replies), reply


def void_answer(shape: tuple[int, ...], outputs: int) -> Answer:
    """The answer to a block that is void for every path."""
    batch, paths, num_draft, *patch = shape
    none = np.zeros((batch, paths), np.int32)
    reported = np.zeros((batch, paths, num_draft + 1, *patch, outputs), np.float32)
    return Answer(
        taken=none.astype(bool),
        num_accepted=none,
        added=none,
        overflow=none,
        patch=np.zeros((batch, paths, *patch), np.float32),
        reported=reported if outputs else None,
    )


def count_of(request: Request) -> int:
    """N, the patches of each path."""
    return num_patches(request.config.horizon, request.patch_len)


def start_session(target: Process, request: Request) -> Session:
    """Checks a request, and runs the target over the contexts.

    Raises:
        InputError: target, draft, rule and inputs do not fit each other; see `decode`.
    """
    inputs, config, rule = request.inputs, request.config, request.rule
    if target.patch_len != request.patch_len:
        raise InputError(
            f"target and draft must share a patch length, got {target.patch_len} at the server and "
            f"{request.patch_len}."
        )
    check_rule(target, rule, config)
    target = for_paths(target, config.paths_at_once)
    model = Model(target, Absent(), rule, Fixed())
    unit = length_unit(target)
    check_inputs(inputs, target.patch_len, config, speculative=True, unit=unit)
    if isinstance(inputs.sigma, PatchCovariance):
        check_covariance(model, config)

    memory, paths = start_paths(model, inputs.as_arrays(), config=config, count=count_of(request))
    lanes, patch = paths.branch.shape, memory.scale.sigma.shape[1:]
    fields = {"number": request.number, "reports": list(traits_of(target).reports)}
    return Session(
        request=request,
        model=model,
        memory=memory,
        paths=paths,
        shape=(*lanes, config.num_draft, *patch),
        expected=0,
        ready=Message("ready", fields, {}),
        replies={},
    )


@compiled
def start_paths(
    model: Model, inputs: Inputs, *, config: DecodeConfig, count: int
) -> tuple[Memory, ServedPath]:
    """The prefill of every series, and its paths before their first round, compiled."""
    series = as_series(inputs, model.target.patch_len)
    memory = Memory(prepare_series(model.target.prepare, series), (), series.scales)
    paths = jnp.arange(config.num_paths or 1)
    keys = lane_keys(typed_key(inputs.key), series.numbers, paths, config)

    def start(memory: Memory, key: jax.Array) -> ServedPath:
        state = initial_state(memory, key, model=model, config=config, count=count)
        return ServedPath(state, jnp.zeros((), jnp.int32))

    return memory, over_lanes(start, keys.shape)(memory, keys)


@compiled
def verify_block(
    model: Model,
    memory: Memory,
    paths: ServedPath,
    block: Block,
    *,
    config: DecodeConfig,
    count: int,
) -> tuple[ServedPath, Answer]:
    """Verifies a block of proposals in one pass and decides on it, compiled."""

    def play(memory: Memory, lane: tuple[ServedPath, Block]) -> tuple[ServedPath, Answer]:
        (state, branch), block = lane
        taken = block.branch == branch
        next_key, draft_key, rule_key = state.round_keys

        # Verify and decide, as `decode_round` does.
        noise = round_noise(memory, state, draft_key, model=model, config=config)
        proposals = block.proposals(memory.scale.sigma)
        options: Any = {"model": model, "config": config, "count": count}
        drafted = verify_patches(memory, state, noise, proposals, block.length, **options)
        outcome = model.rule.decide(rule_key, drafted.current)
        after = commit_round(memory, state, drafted, outcome, next_key, model=model, count=count)

        # Keep the round where the block was of this branch.
        added = jnp.asarray(outcome.added, jnp.int32)
        answer = Answer(
            taken=taken,
            num_accepted=outcome.num_accepted,
            added=added,
            overflow=jnp.asarray(outcome.overflow, jnp.int32),
            patch=outcome.patch,
            emitted=outcome.emitted,
            reported=drafted.reported,
        )
        branch = branch + (taken & (added > 0))
        return ServedPath(choose(taken, after, state), branch), answer

    return over_lanes(play, block.branch.shape)(memory, (paths, block))


def conversation(target: Process) -> Callable[[Message], Message | None]:
    """A function that replies to the messages of one client, one after the other.

    Raises:
        InputError: a target that is no process.
    """
    check_process(target)
    session: Session | None = None

    def reply(message: Message) -> Message | None:
        nonlocal session
        session, answer = reply_to(target, session, message)
        return answer

    return reply


def serve(target: Process, listener: socket.socket) -> None:
    """Serves clients until the listener is closed, each in a thread of its own.

    Args:
        target: the process that verifies.
        listener: see `link.listen`.

    Raises:
        InputError: a target that is no process.
    """
    check_process(target)
    while True:
        try:
            connection, _ = listener.accept()
        except OSError as error:
            if error.errno not in PASSING:  # closed
                return
            log.warning("no client can be taken for now: %s", error)
            time.sleep(PAUSE)
            continue
        link = SocketLink(without_delay(connection))
        threading.Thread(target=_talk, args=(target, link), daemon=True).start()


def _talk(target: Process, link: SocketLink) -> None:
    """Replies to one client until it closes the link, or sends what is no message."""
    reply = conversation(target)
    try:
        while True:
            message: Any = link.receive(None)
            answer = reply(message)
            if answer is not None:
                link.send(answer)
    except InputError as error:
        with contextlib.suppress(LinkClosedError):
            link.send(_refusal(None, str(error)))
    except LinkClosedError:
        return
    finally:
        link.close()
