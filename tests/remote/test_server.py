"""The server: what it refuses, what it answers twice, and what it does not compute."""

import errno
import socket
import threading

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.apart import apart
from helpers.toys import (
    BATCH,
    CONTEXT,
    DRAFT,
    TARGET,
    fading,
    process,
    registered,
)

import stride_jax.remote.server as server
from stride_jax.decoding.base import Rule
from stride_jax.decoding.processes import window_process
from stride_jax.decoding.rules import (
    AsReleased,
    Maximal,
    Mean,
    Residual,
    Several,
    SharedNoise,
    WithoutBonus,
)
from stride_jax.decoding.scale import PatchCovariance
from stride_jax.decoding.types import DecodeConfig
from stride_jax.errors import InputError
from stride_jax.remote.link import DirectLink, SocketLink, connect, listen
from stride_jax.remote.messages import HEAD, Message
from stride_jax.remote.protocol import read_rule, rule_fields

DROP = object()


@registered
class Mine(Rule):
    """A rule that no server knows."""


def nested(draft=DRAFT):
    """A draft that lies inside its target's weights."""

    @registered
    class Inside:
        patch_len = TARGET.patch_len
        prepare = start = predict_next = commit = step = prepare_beside = draft.prepare

    return Inside()


REFUSED = {
    "another patch length": ({"target": process(10, patch_len=4)}, "must share a patch length"),
    "a rule of one's own": ({"rule": Mine()}, "does not know it"),
    "several chains": ({"rule": Several()}, "rule of one chain"),
    "no rule": ({"rule": "maximal"}, "rule of one chain"),
    "a setting out of range": ({"rule": Mean(-1.0)}, "tolerance"),
    "a learned scale with a tied rule": (
        {"config": DecodeConfig(20, 3, learned_scale=True)},
        "use Residual",
    ),
    "no proposals": ({"config": DecodeConfig(20, 0)}, "at least 1"),
    "a trace": ({"config": DecodeConfig(20, 3, trace=True)}, r"DecodeConfig\(trace=True\)"),
    "chunks": ({"config": DecodeConfig(20, 3, batch_size=2)}, r"batch_size=2"),
    "a bonus that is guessed": ({"ahead": 1}, r"use WithoutBonus\(Maximal\(\)\)"),
    "a fraction of a block": ({"ahead": 0.5}, "whole number"),
    "an unknown policy": ({"on_loss": "retry"}, "'wait' or 'draft'"),
    "no time": ({"timeout": 0}, "above 0"),
    "a draft inside the target": ({"draft": nested()}, "memory of its own"),
    "a draft length that is none": ({"draft_length": 3}, r"must be Fixed\(\)"),
    "lengths for a target without a mask": ({"lengths": np.full(5, 6)}, "knows no padding"),
    "a length that is no whole patch": (
        {"target": fading(), "draft": fading(0.3), "lengths": np.full(5, 7)},
        "whole patches",
    ),
    "a series with half a number": ({"series_index": np.full(5, 0.7)}, "whole numbers"),
    "a sigma of 0": ({"sigma": 0.0}, "sigma must be > 0"),
    "a context that is not finite": ({"context": BATCH * np.nan}, "NaN or infinite"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(key, case):
    """A decode would begin that cannot be right, or wait for ever."""
    options, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        apart(key, **{"context": BATCH, **options})


def spoiled(change):
    """A link whose client sends its first block after a change."""
    reply = server.conversation(TARGET)

    def answer(message):
        return reply(change(message) if message.kind == "block" else message)

    return DirectLink(answer)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("patches", np.zeros((1, 1, 3, 3, 1), np.float32)),
        ("mean", np.zeros((1, 1, 3, 3, 2), np.int32)),
        ("noise", np.zeros(1, np.float32)),
        ("length", DROP),
    ],
)
def test_a_block_of_other_arrays_is_refused(key, name, value):
    """Another shape would be broadcast, and decide on other proposals than were sent."""

    def change(message):
        arrays = {k: v for k, v in message.arrays.items() if k != name}
        return message._replace(arrays=arrays if value is DROP else {**arrays, name: value})

    with pytest.raises(InputError, match=r"server refused: message 'block' should hold"):
        apart(key, CONTEXT, link=spoiled(change))


@pytest.mark.parametrize(
    "fields", [{}, {"number": 1}, {"number": 1, "patch_len": "3", "rule": {}, "key": "x"}]
)
def test_a_request_that_cannot_be_read_is_refused(fields):
    """The server would stop for all its clients."""
    reply = server.conversation(TARGET)(Message("open", fields, {}))
    assert reply.kind == "refused"
    assert "cannot be read" in reply.fields["reason"]


def test_a_block_before_its_decode_gets_no_reply():
    """A client whose request was lost would be told nonsense."""
    fields = {"number": 1, "block": 0}
    assert server.conversation(TARGET)(Message("block", fields, {})) is None


def test_a_target_that_is_no_process_is_refused_at_once():
    """The first client would meet the mistake of the server."""
    with pytest.raises(InputError, match="target must be a process"):
        server.conversation(object())


def test_void_blocks_cost_no_pass_and_repeated_ones_none(key, monkeypatch):
    """A rejection would cost the server a pass for every block that was under way."""
    passes, verify = [], server.verify_block
    monkeypatch.setattr(server, "verify_block", lambda *a, **k: passes.append(1) or verify(*a, **k))
    reply = server.conversation(TARGET)
    link = DirectLink(lambda message: (reply(message), reply(message))[1])  # all of it twice
    rule = WithoutBonus(SharedNoise(0.0))
    result = apart(key, CONTEXT, link=link, rule=rule, ahead=2)
    assert result.void_blocks > 0
    assert len(passes) == int(result.info.target_passes) == 7


def test_rules_come_out_as_they_went_in():
    """A setting would be lost on the way to the server, which decides by it."""
    for rule in (
        Maximal(),
        Mean(0.25, emit_proposal=True),
        WithoutBonus(Mean(0.1, 0.7)),
        Residual(),
    ):
        assert read_rule(rule_fields(rule)) == rule
    with pytest.raises(InputError, match="settings of a rule are numbers"):
        read_rule({"name": "mean", "settings": {"tolerance": "0.1"}, "bonus": True})


def test_a_target_that_fails_is_told_to_its_client(key, caplog):
    """The client would hear that the link was closed, and the next one as well."""

    def fails(window):
        return jnp.ones((3, 5)) @ window  # of a window of another length

    target = window_process(fails, TARGET.patch_len)
    with pytest.raises(InputError, match=r"the server refused: TypeError: .*dot_general"):
        apart(key, CONTEXT, target=target)
    assert "a decode failed" in caplog.text


def talking():
    """A listener with a server of the toys behind it."""
    listener = listen()
    threading.Thread(target=server.serve, args=(TARGET, listener), daemon=True).start()
    return listener


def test_another_version_is_told_to_the_client():
    """The client would hear that the link was closed, and not why."""
    with talking() as listener, socket.create_connection(listener.getsockname()) as connection:
        connection.sendall(HEAD.pack(b"STRIDE", 99, 10, 0) + b"{" * 10)
        link = SocketLink(connection)
        found = link.receive(10.0)
        assert (found.kind, found.fields["number"]) == ("refused", None)
        assert "version 99" in found.fields["reason"]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ECONNABORTED])
def test_a_server_goes_on_after_an_error_that_passes(key, monkeypatch, number):
    """One moment without descriptors would end the service, without a word."""
    monkeypatch.setattr(server, "PAUSE", 0.0)

    class Listener:
        def __init__(self, connection):
            self.results = [OSError(number, "for now"), (connection, None), OSError(9, "closed")]

        def accept(self):
            result = self.results.pop(0)
            if isinstance(result, OSError):
                raise result
            return result

    with listen() as listener:
        link = connect(*listener.getsockname())
        server.serve(TARGET, Listener(listener.accept()[0]))
    found = apart(key, CONTEXT, link=link)
    np.testing.assert_array_equal(found.forecast, apart(key, CONTEXT).forecast)
    link.close()


def test_a_server_checks_the_settings_of_a_rule():
    """A client of another version would have proposals accepted by a wrong setting."""
    settings = {"tolerance": -1.0, "temperature": None, "emit_proposal": False}
    with pytest.raises(InputError, match="tolerance"):
        read_rule({"name": "mean", "settings": settings, "bonus": True})


def test_a_covariance_that_the_rule_does_not_take_is_refused(key):
    """The server would decide as if the steps of a patch were independent."""
    factor = np.linalg.cholesky(np.full((3, 3), 0.4) + 0.6 * np.eye(3))
    with pytest.raises(InputError, match="takes no PatchCovariance"):
        apart(key, CONTEXT, rule=AsReleased(), sigma=PatchCovariance(factor, 0.5))


@pytest.mark.parametrize("name", ["path_chunk", "compactions", "least_lanes"])
def test_settings_that_do_not_apply_are_refused(key, name):
    """They would be dropped without a word."""
    with pytest.raises(InputError, match=f"{name}=1"):
        apart(key, config=DecodeConfig(20, 3, num_paths=2, **{name: 1}))


def test_a_yes_is_no_number_of_blocks(key):
    """`ahead=True` would go one block ahead without a word."""
    with pytest.raises(InputError, match="whole number"):
        apart(key, rule=WithoutBonus(Maximal()), ahead=True)
