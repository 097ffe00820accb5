"""Frames of messages: what goes in comes out, and nothing else is taken for a message."""

import json

import numpy as np
import pytest

from stride_jax.errors import InputError
from stride_jax.remote.messages import (
    DTYPES,
    HEAD,
    LARGEST_BODY,
    LARGEST_HEADER,
    MAGIC,
    VERSION,
    Message,
    frame_size,
    pack,
    unpack,
)

MESSAGE = Message(
    "block",
    {"number": 3, "block": 0, "text": "é"},
    {name: np.arange(6).reshape(1, 2, 3).astype(name) for name in DTYPES},
)


def test_a_message_comes_out_as_it_went_in():
    """Values would change on their way, or change their place."""
    odd = {"scalar": np.float32(np.nan), "none": np.zeros((0, 4), np.int32)}
    sent = MESSAGE._replace(arrays={**MESSAGE.arrays, **odd, "turned": np.eye(3, 2, dtype="f4").T})
    frame = pack(sent)
    assert frame_size(frame[: HEAD.size]) == len(frame)
    got = unpack(frame)
    assert got[:2] == sent[:2]
    assert list(got.arrays) == list(sent.arrays)
    for name, array in sent.arrays.items():
        assert got.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(got.arrays[name], array)


def test_big_endian_values_are_sent_as_they_are():
    """A machine of the other byte order would send other numbers."""
    values = np.arange(3, dtype=">f4")
    got = unpack(pack(Message("block", {}, {"values": values}))).arrays["values"]
    np.testing.assert_array_equal(got, values)


def framed(header: object, body: bytes = b"") -> bytes:
    """A frame with a right head around any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return HEAD.pack(MAGIC, VERSION, len(text), len(body)) + text + body


def described(**changes: object) -> dict[str, object]:
    """A right header with changes."""
    return {"kind": "block", "fields": {}, "arrays": [["x", "float32", [2]]], **changes}


WRONG = {
    "no frame at all": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "does not speak this protocol"),
    "another version": (HEAD.pack(MAGIC, VERSION + 1, 0, 0), f"version {VERSION + 1}"),
    "a head that is cut": (pack(MESSAGE)[:10], "begins with 20 bytes"),
    "a frame that is cut": (pack(MESSAGE)[:-1], "not whole"),
    "a frame with more behind it": (pack(MESSAGE) + b"x", "not whole"),
    "a body that is too large": (HEAD.pack(MAGIC, VERSION, 2, LARGEST_BODY + 1), "too large"),
    "a header that is no JSON": (framed(b"\x80\x04N."), "cannot be read"),
    "a header that nests too deep": (framed(b"[" * 100_000), "cannot be read"),
    "a header without arrays": (framed({"kind": "block", "fields": {}}), "cannot be read"),
    "an unknown kind": (framed(described(kind="run")), "does not describe"),
    "objects as values": (framed(described(arrays=[["x", "object", [1]]])), "does not describe"),
    "a negative size": (framed(described(arrays=[["x", "float32", [-1]]])), "does not describe"),
    "a size that is no number": (
        framed(described(arrays=[["x", "float32", [True]]])),
        "does not describe",
    ),
    "fewer values than described": (framed(described(), b"1234"), "does not fit"),
    "more values than described": (framed(described(), b"123456789abc"), "behind its last array"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_message_is_refused(case):
    """Bytes of another program, or half of a message, would become numbers of a forecast."""
    frame, message = WRONG[case]
    with pytest.raises(InputError, match=message):
        unpack(frame)


def test_other_types_are_not_sent():
    """Objects would need pickle at the other side, which runs what it reads."""
    with pytest.raises(InputError, match="has type object"):
        pack(Message("block", {}, {"x": np.array([None])}))


def test_a_header_that_is_too_large_is_refused_before_it_is_read():
    """A foreign client would make the server hold whatever it announces."""
    with pytest.raises(InputError, match="too large"):
        frame_size(HEAD.pack(MAGIC, VERSION, LARGEST_HEADER + 1, 0))


def test_a_message_that_is_too_large_is_refused_where_it_is_sent():
    """The other side would refuse it after all of it was on its way."""
    with pytest.raises(InputError, match="too large"):
        pack(Message("block", {"text": "x" * LARGEST_HEADER}, {}))
