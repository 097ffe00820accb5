"""Messages as frames of bytes: a small JSON header, then the raw values of arrays; no pickle.

A frame is `head | header | body`. The head has 20 bytes: the magic word, the version, and the sizes
of header and body. The header holds the kind, the fields, and name, dtype and shape of each array.
The body holds their values one after the other, little-endian, in rows. Nothing of a frame is ever
executed, and a frame that is not whole is refused.
"""

from __future__ import annotations

import json
import math
import struct
from typing import Any, NamedTuple

import numpy as np

from stride_jax.errors import InputError

MAGIC, VERSION = b"STRIDE", 1
HEAD = struct.Struct("<6sHIQ")
"""Magic word, version, bytes of the header, bytes of the body."""
LARGEST_HEADER, LARGEST_BODY = 2**20, 2**30
"""Bytes; a frame that announces more is refused before anything is read."""
DTYPES = ("bool", "int32", "uint32", "float32")
KINDS = ("open", "ready", "block", "answer", "refused")


class Message(NamedTuple):
    """One message.

    Attributes:
        kind: one of `KINDS`.
        fields: numbers, texts, and lists and dicts of them.
        arrays: by name, of one of `DTYPES`.
    """

    kind: str
    fields: dict[str, Any]
    arrays: dict[str, np.ndarray]


def pack(message: Message) -> bytes:
    """The frame of a message.

    Raises:
        InputError: an array of another type, or a message that is too large.
    """
    described, values = [], []
    for name, array in message.arrays.items():
        if array.dtype.name not in DTYPES:
            raise InputError(f"array {name!r} of a message has type {array.dtype}, not {DTYPES}.")
        described.append([name, array.dtype.name, list(array.shape)])
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        values.append(np.ascontiguousarray(little).tobytes())
    parts = {"kind": message.kind, "fields": message.fields, "arrays": described}
    header, body = json.dumps(parts, allow_nan=False).encode(), b"".join(values)
    head = HEAD.pack(MAGIC, VERSION, len(header), len(body))
    frame_size(head)
    return head + header + body


def frame_size(head: bytes) -> int:
    """Bytes of the whole frame that begins with this head.

    Raises:
        InputError: fewer bytes than a head, another magic word or version, or a frame that is too
            large.
    """
    if len(head) < HEAD.size:
        raise InputError(f"a frame begins with {HEAD.size} bytes, got {len(head)}.")
    magic, version, header, body = HEAD.unpack(head[: HEAD.size])
    if magic != MAGIC:
        raise InputError(
            f"the other side does not speak this protocol: its frame begins with {magic!r}, not "
            f"{MAGIC!r}."
        )
    if version != VERSION:
        raise InputError(
            f"the other side speaks version {version} of the protocol, this one {VERSION}; use the "
            "same version of the library on both sides."
        )
    if header > LARGEST_HEADER or body > LARGEST_BODY:
        raise InputError(
            f"a frame of {header} + {body} bytes is too large; at most {LARGEST_HEADER} + "
            f"{LARGEST_BODY}. Decode fewer series or paths at once."
        )
    return HEAD.size + int(header) + int(body)


def unpack(frame: bytes) -> Message:
    """The message of a whole frame.

    Raises:
        InputError: see `frame_size`; a frame of another size than its head says, a header that is
            none, or arrays that do not fill the body.
    """
    size = frame_size(frame)
    if len(frame) != size:
        raise InputError(f"a frame of {size} bytes came with {len(frame)}; it is not whole.")
    start = HEAD.size + HEAD.unpack(frame[: HEAD.size])[2]
    kind, fields, described = _header(frame[HEAD.size : start])
    arrays = {}
    for name, dtype, shape in described:
        count = math.prod(shape)
        stored = np.dtype(dtype).newbyteorder("<")
        stop = start + count * stored.itemsize
        if stop > size:
            raise InputError(f"array {name!r} of shape {shape} does not fit into its frame.")
        values = np.frombuffer(frame[start:stop], stored).reshape(shape)
        arrays[name] = values.astype(np.dtype(dtype))
        start = stop
    if start != size:
        raise InputError(f"a frame has {size - start} bytes behind its last array.")
    return Message(kind, fields, arrays)


def _header(text: bytes) -> tuple[str, dict[str, Any], list[tuple[str, str, list[int]]]]:
    """Kind, fields, and name, dtype and shape of the arrays."""
    try:
        parts = json.loads(text)
        kind, fields, described = parts["kind"], parts["fields"], parts["arrays"]
        right = kind in KINDS and isinstance(fields, dict) and all(map(_describes, described))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"the header of a frame cannot be read: {error}.") from error
    if not right:
        raise InputError(f"the header of a frame does not describe a message: {text[:200]!r}.")
    return kind, fields, described


def _describes(entry: Any) -> bool:
    """Whether an entry is `[name, dtype, shape]` of an array."""
    name, dtype, shape = entry
    sizes = isinstance(shape, list) and all(type(n) is int and 0 <= n < 2**31 for n in shape)
    return isinstance(name, str) and dtype in DTYPES and sizes
