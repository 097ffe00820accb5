"""The client of a decode: it holds the draft, sends proposals, and goes on while it waits.

The paths are those of `decoding.speculative.decode`, key by key: both sides draw the noise of a
round from the same keys, and the server decides on the very proposals that the client keeps.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import jax
import numpy as np

from stride_jax.decoding.base import Draft, Process, Rule
from stride_jax.decoding.batching import typed_key
from stride_jax.decoding.checks import Inputs, check_inputs
from stride_jax.decoding.draft_length import DraftLength, Fixed
from stride_jax.decoding.drafts import as_draft
from stride_jax.decoding.rounds import Model
from stride_jax.decoding.rules import Maximal
from stride_jax.decoding.scale import PatchCovariance
from stride_jax.decoding.traits import for_paths
from stride_jax.decoding.types import DecodeConfig, DecodeInfo, num_patches
from stride_jax.errors import InputError
from stride_jax.remote.absent import Absent
from stride_jax.remote.choices import OnLoss, check_choices, check_waiting
from stride_jax.remote.link import Link, LinkClosedError
from stride_jax.remote.messages import Message
from stride_jax.remote.paths import (
    Progress,
    Sizes,
    apply_answer,
    draft_block,
    finish,
    start_drafting,
    summary,
    with_reports,
)
from stride_jax.remote.protocol import Request, numbered, open_message, read_answer

_numbers = itertools.count()


class ApartForecast(NamedTuple):
    """The result of a decode apart.

    Attributes:
        forecast: as `decode` returns it.
        info: as `decode` returns it, of the rounds that were answered; the patches that the target
            has not verified have the origin `AUTOREGRESSIVE`, and no proposal.
        verified: int32 `[...]` with the leading axes of the forecast, patches of each path that the
            target has verified or drawn; N unless the client was left alone.
        left_alone: whether no answer came in time and the draft finished the forecast by itself.
        blocks: blocks that were drafted and sent; each one once, however often it was sent.
        void_blocks: those of them that were thrown away for every path, as the guess that they
            went on from was wrong.
    """

    forecast: jax.Array
    info: DecodeInfo
    verified: jax.Array
    left_alone: bool
    blocks: int
    void_blocks: int


class Waiting(NamedTuple):
    """A block that was sent and not yet answered, and the draft's state that has seen it."""

    message: Message
    block: Any
    draft: Any


def decode_apart(
    key: jax.Array,
    context: Any,
    *,
    link: Link,
    draft: Draft | Process,
    sigma: Any,
    config: DecodeConfig,
    rule: Rule | None = None,
    draft_length: DraftLength | None = None,
    series_index: Any = None,
    lengths: Any = None,
    ahead: int = 0,
    on_loss: OnLoss = "wait",
    timeout: float = 10.0,
) -> ApartForecast:
    """Decodes speculatively with a target at the other end of a link.

    The forecast is that of `decode` with the same arguments and the server's target: counts and
    origins are the same, and values are equal to float rounding, since the parts of a round are
    compiled apart. Context, sigma and key are sent to the server once, together with the proposals
    of the first round. Every round sends its proposals, and gets the number of accepted ones and
    the patch that follows them.

    With `ahead` the client does not wait for the answer to a block: it goes on with up to so many
    further blocks on the guess that all proposals before them are accepted, and throws away those
    whose guess was wrong. The guess can only be right where a round has no bonus patch, so the rule
    is then a `WithoutBonus`; see there.

    Args:
        key: see `decode`, as for all arguments that are not described here.
        context: `[L, C]` or `[B, L, C]`.
        link: to the server, see `link.connect`.
        draft: proposes at the client; not one that lies inside the target's weights.
        sigma: a number, an array or a `PatchCovariance`.
        config: horizon, K, paths and learned scale. All series and paths are decoded together, and
            no trace is kept.
        rule: decides at the server; one of `RULES`, or `WithoutBonus` of one; default `Maximal()`.
        draft_length: see `decode`.
        series_index: see `decode`.
        lengths: see `decode`.
        ahead: blocks that may be under way beside the one that is waited for; 0 for none.
        on_loss: `wait` sends again what was not answered within `timeout`, as long as the link
            stands, and the forecast does not depend on what was lost. `draft` stops to wait: the
            draft finishes the forecast, as if all its proposals were accepted, and the result says
            so.
        timeout: seconds that an answer may take, above 0. The first decode of a shape waits for the
            server to compile it, too.

    Returns:
        The forecast, with what was verified and what the link was used for.

    Raises:
        InputError: arguments that do not fit each other or the target; see `decode`.
        LinkClosedError: the link was closed, and `on_loss` is `wait`.
    """
    rule = Maximal() if rule is None else rule
    draft_length = Fixed() if draft_length is None else draft_length
    check_choices(draft, rule, draft_length, config)
    check_waiting(rule, ahead, on_loss, timeout)
    proposing = for_paths(as_draft(draft), config.paths_at_once)
    inputs = host_inputs(key, context, sigma, series_index, lengths)
    check_inputs(inputs, proposing.patch_len, config, speculative=True, unit=1)
    number = next(_numbers)
    request = Request(number, inputs.as_arrays(), config, rule, proposing.patch_len, ahead)
    model = Model(Absent(), proposing, rule, draft_length)
    drive = Drive(link, request, model, on_loss, timeout)
    return drive_rounds(drive)


class Drive(NamedTuple):
    """The parts of a decode apart that do not change.

    Attributes:
        link: to the server.
        request: what the server is asked for.
        model: draft, rule and draft length; the target is absent.
        on_loss: see `decode_apart`.
        timeout: seconds.
    """

    link: Link
    request: Request
    model: Model
    on_loss: OnLoss
    timeout: float

    def sizes(self) -> Sizes:
        """The static sizes of the compiled programs."""
        config = self.request.config
        count = num_patches(config.horizon, self.request.patch_len)
        return Sizes(config, count, guesses=self.request.ahead > 0)


class Driven(NamedTuple):
    """The part of a decode apart that changes.

    Attributes:
        progress: of all paths.
        waiting: blocks without an answer, in the order in which they were sent.
        blocks: that were drafted.
        void_blocks: those of them that were thrown away.
    """

    progress: Progress
    waiting: tuple[Waiting, ...] = ()
    blocks: int = 0
    void_blocks: int = 0


def drive_rounds(drive: Drive) -> ApartForecast:
    """Opens the decode, and plays its rounds until every path has its patches."""
    inputs, sizes = drive.request.inputs, drive.sizes()
    opening = open_message(drive.request)
    send(drive, opening)
    memory, progress = start_drafting(drive.model, inputs, sizes=sizes)

    # The first blocks do not wait for the server to be ready.
    driven = send_blocks(drive, memory, Driven(progress))
    ready = answer_to(drive, [opening, *messages_of(driven)], "ready")
    left_alone, outputs = ready is None, 0
    if ready is not None:
        outputs = len(ready.fields["reports"])
        driven = driven._replace(progress=with_reports(driven.progress, outputs))

    while driven.waiting and not left_alone:
        reply = answer_to(drive, messages_of(driven), "answer")
        left_alone = reply is None
        if reply is not None:
            driven = take_answer(drive, memory, driven, reply, outputs)
            driven = send_blocks(drive, memory, driven)

    progress = driven.progress
    finished = progress.confirmed
    if left_alone:
        finished = finish(drive.model, memory, progress, sizes=sizes)
    single = inputs.context.ndim == 2
    forecast, info, verified = summary(progress.confirmed, finished, sizes=sizes, single=single)
    return ApartForecast(forecast, info, verified, left_alone, driven.blocks, driven.void_blocks)


def messages_of(driven: Driven) -> list[Message]:
    """The blocks without an answer."""
    return [each.message for each in driven.waiting]


def send_blocks(drive: Drive, memory: Any, driven: Driven) -> Driven:
    """Drafts and sends blocks, as far ahead as is allowed and as patches are missing.

    Patches count as there if they come out where all that is under way is accepted.
    """
    progress, waiting, blocks, void_blocks = driven
    sizes = drive.sizes()
    while len(waiting) <= drive.request.ahead:
        if (np.asarray(progress.head.filled) >= sizes.patches).all():
            break
        block, draft, progress = draft_block(drive.model, memory, progress, sizes=sizes)
        message = numbered("block", drive.request.number, blocks, block)
        send(drive, message)
        waiting += (Waiting(message, block, draft),)
        blocks += 1
    return Driven(progress, waiting, blocks, void_blocks)


def take_answer(drive: Drive, memory: Any, driven: Driven, reply: Message, outputs: int) -> Driven:
    """Takes the answer to the oldest block; `outputs` is Q of what the target reports.

    Raises:
        InputError: the answer does not fit the block.
    """
    oldest, *waiting = driven.waiting
    answer = read_answer(reply, np.shape(oldest.block.patches), outputs)
    sent = oldest.block, oldest.draft
    progress = apply_answer(drive.model, memory, driven.progress, sent, answer, sizes=drive.sizes())
    void_blocks = driven.void_blocks + (not answer.taken.any())
    return Driven(progress, tuple(waiting), driven.blocks, void_blocks)


def send(drive: Drive, message: Message) -> None:
    """Sends a message; where the client may finish alone, a closed link is a loss."""
    try:
        drive.link.send(message)
    except LinkClosedError:
        if drive.on_loss == "wait":
            raise


def answer_to(drive: Drive, messages: list[Message], kind: str) -> Message | None:
    """The answer to the first of these messages; None where it did not come and is not waited for.

    Args:
        drive: the link, and how to wait.
        messages: under way, in this order; all are sent again where the answer is late.
        kind: of the answer.

    Raises:
        InputError: the server refused the decode.
        LinkClosedError: the link is closed and the client waits.
    """
    while True:
        reply = next_message(drive)
        if reply is None and drive.on_loss == "draft":
            return None
        if reply is None:
            for message in messages:
                drive.link.send(message)
        elif answers(reply, kind, messages[0]):
            return reply


def next_message(drive: Drive) -> Message | None:
    """The next message of the server; None where none came in time, see `send`."""
    try:
        return drive.link.receive(drive.timeout)
    except LinkClosedError:
        if drive.on_loss == "wait":
            raise
        return None


def answers(reply: Message, kind: str, message: Message) -> bool:
    """Whether a reply is the answer to a message, and not a late one or one that came twice.

    Raises:
        InputError: the server refused this decode.
    """
    number = reply.fields.get("number")
    if reply.kind == "refused" and number in (None, message.fields["number"]):
        raise InputError(f"the server refused: {reply.fields['reason']}")
    if number != message.fields["number"]:
        return False
    return reply.kind == kind and reply.fields.get("block") == message.fields.get("block")


def host_inputs(key: Any, context: Any, sigma: Any, series_index: Any, lengths: Any) -> Inputs:
    """The inputs as values of the host: they are sent, and so can be checked."""

    def on_host(value: Any) -> Any:
        return np.asarray(value) if isinstance(value, jax.Array) else value

    if isinstance(sigma, PatchCovariance):
        sigma = PatchCovariance(on_host(sigma.factor), on_host(sigma.sigma))
    key = typed_key(key) if hasattr(key, "dtype") else key
    index: Any = None if series_index is None else np.asarray(series_index)
    return Inputs(key, on_host(context), on_host(sigma), index, on_host(lengths))
