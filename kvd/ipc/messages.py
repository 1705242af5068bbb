"""
What supervisor, fork server and workers say to each other.

Each message is one datagram on a ``SOCK_SEQPACKET`` socket, some with descriptors
beside it. All are JSON, except those that are sent for every batch of connections: they
are packed, which saves 13 microseconds per batch.

============  ==========================  =====================================
message       from, to                    descriptors
============  ==========================  =====================================
Load          supervisor to fork server   the scoreboard's memory
Fork          supervisor to fork server   the worker's end of its control socket
Forked        fork server to supervisor   a pidfd of the worker
Exited        fork server to supervisor
Listen        supervisor to worker        a listening socket
Unlisten      supervisor to worker
Gated         supervisor to worker
Credits       supervisor to worker        an eventfd
Batch         supervisor to worker        connections
Drain         supervisor to worker
Ready         worker to supervisor
Failed        worker to supervisor
Unplaced      worker to supervisor
Leaving       worker to supervisor
Acknowledged  worker to supervisor
Refused       worker to supervisor
LogLine       worker to supervisor
============  ==========================  =====================================
"""

from __future__ import annotations

import json
import os
import socket
import struct
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final, get_args

from cattrs import Converter
from cattrs.strategies import configure_tagged_union

from kvd.settings import Settings

MAX_BYTES: Final = 64 * 1024
MAX_TEXT_BYTES: Final = 48 * 1024
"""
What a text may have of that; see `shortened`.
"""
MAX_DESCRIPTORS: Final = 64
"""
With one message. The kernel takes 253 (unix(7)); beyond 64, the cost of a
message no longer counts beside that of its descriptors.
"""

_INT_BYTES: Final = array("i").itemsize
_DESCRIPTORS_SPACE: Final = socket.CMSG_SPACE(MAX_DESCRIPTORS * _INT_BYTES)


@dataclass(frozen=True, slots=True)
class Load:
    """
    Import what workers with these settings need. With it come the scoreboard's memory
    and, where there is one, what the store is in (`IHeldStoreMaker`).
    """

    settings: Settings


@dataclass(frozen=True, slots=True)
class Fork:
    """
    Make a worker.
    """

    worker: int
    request: int
    """Each has another number: an answer may come late, when the worker has been asked
    for anew."""


@dataclass(frozen=True, slots=True)
class Forked:
    """
    A worker is made.
    """

    worker: int
    pid: int
    request: int
    """Of the `Fork` that this answers."""


@dataclass(frozen=True, slots=True)
class Exited:
    """
    A worker has ended, or could not be made (pid 0).
    """

    worker: int
    pid: int
    reason: str


@dataclass(frozen=True, slots=True)
class Listen:
    """
    Accept from the socket beside this, instead of one of the same name.
    """

    name: str
    exclusive: bool = True
    """Whether no other worker is meant to accept from it."""


@dataclass(frozen=True, slots=True)
class Unlisten:
    """
    Leave a socket to others.
    """

    name: str


@dataclass(frozen=True, slots=True)
class Gated:
    """
    Accept only as this policy allows (`kvd.interfaces.IGatedPolicy`).
    """

    policy: str
    """As the operator wrote it; empty: there is no gate."""


@dataclass(frozen=True, slots=True)
class Credits:
    """
    The counter beside this has a credit for each batch of connections. A worker takes
    one off before it touches a batch (`kvd.dispatch.handover`).
    """


@dataclass(frozen=True, slots=True)
class Batch:
    """
    Accepted connections, for the worker if it gets a credit for them.
    """

    number: int
    """Counted from 0 for each worker process."""
    connections: int
    family: int
    """As in `socket.socket`."""


@dataclass(frozen=True, slots=True)
class Drain:
    """
    Finish, within so many seconds, and exit.
    """

    seconds: float
    others_serve: bool = False
    """Whether they take what still comes; else nobody will."""


@dataclass(frozen=True, slots=True)
class Ready:
    """
    The store is open; sockets can come.
    """

    pid: int = 0
    """Of the worker: the fork server may have died before it could tell."""


@dataclass(frozen=True, slots=True)
class Failed:
    """
    The worker cannot serve; it exits.
    """

    sentence: str


@dataclass(frozen=True, slots=True)
class Unplaced:
    """
    The worker has no descriptor left for a socket that it should accept from;
    others may have it.
    """

    name: str
    """As in `Listen`."""


@dataclass(frozen=True, slots=True)
class Leaving:
    """
    The worker was told to end, by somebody else. It serves until it is told to
    drain.
    """


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """
    The worker is done with all batches up to this one: it serves them, or found no
    credit for them.
    """

    batch: int


@dataclass(frozen=True, slots=True)
class Refused:
    """
    The worker gives a batch back that it has a credit for, untouched. It is done with
    all before it.
    """

    batch: int


@dataclass(frozen=True, slots=True)
class LogLine:
    """
    A line for the log.
    """

    level: str
    text: str


Message = (
    Load
    | Fork
    | Forked
    | Exited
    | Listen
    | Unlisten
    | Gated
    | Credits
    | Batch
    | Drain
    | Ready
    | Failed
    | Unplaced
    | Leaving
    | Acknowledged
    | Refused
    | LogLine
)

_CONVERTER: Final = Converter(forbid_extra_keys=True)
configure_tagged_union(Message, _CONVERTER, tag_name="type")
# Made now, so that workers share them: made at first use, they would cost each worker
# 0.2 MiB.
for _kind in get_args(Message):
    _CONVERTER.get_structure_hook(_kind)
    _CONVERTER.get_unstructure_hook(_kind)

# By the first byte, which no JSON begins with: the type, how its fields are packed,
# and how they are got.
_PACKED: Final[dict[int, tuple[type[Any], struct.Struct, Callable[[Any], Any]]]] = {
    1: (Batch, struct.Struct("=BQII"), attrgetter("number", "connections", "family")),
    2: (Acknowledged, struct.Struct("=BQ"), lambda message: (message.batch,)),
    3: (Refused, struct.Struct("=BQ"), lambda message: (message.batch,)),
}
_PACKED_AS: Final = {kind: first for first, (kind, _, _) in _PACKED.items()}


class BadMessage(Exception):
    """
    A datagram is none of these messages: a mistake of ours.
    """


def encode(message: Message) -> bytes:
    """
    A message as one datagram.
    """
    first = _PACKED_AS.get(type(message))
    if first is not None:
        _, form, fields = _PACKED[first]
        return form.pack(first, *fields(message))
    return json.dumps(_CONVERTER.unstructure(message, Message)).encode("ascii")


def decode(data: bytes) -> Message:
    """
    The message in a datagram.

    Raises:
        BadMessage: There is none.
    """
    try:
        packed = _PACKED.get(data[0])
        if packed is not None:
            kind, form, _ = packed
            made: Message = kind(*form.unpack(data)[1:])
            return made
        message: Message = _CONVERTER.structure(json.loads(data), Message)  # type: ignore[arg-type]  # a union is no type to mypy
    except Exception as error:
        raise BadMessage(f"not a message: {data[:200]!r}") from error
    return message


def shortened(text: str) -> str:
    """
    As much of a text's beginning as fits into a message: a character may take
    twelve bytes there.
    """
    text = text[:MAX_TEXT_BYTES]
    while (size := len(json.dumps(text))) > MAX_TEXT_BYTES:
        text = text[: len(text) * MAX_TEXT_BYTES // size]
    return text


def send(
    sock: socket.socket, message: Message, descriptors: Sequence[int] = ()
) -> None:
    """
    Send a message, with copies of descriptors.

    Raises:
        BadMessage: It is longer than the other side takes: a mistake of ours.
        OSError: It cannot be sent, or not now.
    """
    data = encode(message)
    if len(data) > MAX_BYTES:
        raise BadMessage(f"too long, with {len(data)} bytes: {data[:200]!r}")
    socket.send_fds(sock, [data], list(descriptors))


def receive(sock: socket.socket) -> tuple[Message, list[int]] | None:
    """
    Receive a message and what came with it; the descriptors are the caller's,
    and are not inherited by anyone. There are none of them if this process has
    no room for all.

    Returns:
        None when the other side is gone, and all that it said has been heard.

    Raises:
        BadMessage: The datagram is none; what came with it is closed.
        BlockingIOError: Nothing is there, on a non-blocking socket.
    """
    try:
        data, ancillary, flags = _receive_datagram(sock)
    except ConnectionResetError:
        # The other side ended without reading everything. The kernel says so
        # once, before it gives out what that side had said (unix(7)).
        data, ancillary, flags = _receive_datagram(sock)
    descriptors = _descriptors_in(ancillary)
    if not data:
        return None
    try:
        if flags & socket.MSG_TRUNC:
            raise BadMessage("a message came cut off")
        message = decode(data)
    except BadMessage:
        _close_all(descriptors)
        raise
    if flags & socket.MSG_CTRUNC:
        _close_all(descriptors)
        return message, []
    return message, descriptors


def _receive_datagram(
    sock: socket.socket,
) -> tuple[bytes, Sequence[tuple[int, int, bytes]], int]:
    # Not socket.recv_fds, which drops the flags it is given (Python 3.11):
    # descriptors would be inherited by whatever is forked meanwhile.
    data, ancillary, flags, _ = sock.recvmsg(
        MAX_BYTES, _DESCRIPTORS_SPACE, socket.MSG_CMSG_CLOEXEC
    )
    return data, ancillary, flags


def _close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _descriptors_in(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    descriptors = array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            # A message that was cut off may end within a number.
            descriptors.frombytes(data[: len(data) - len(data) % _INT_BYTES])
    return list(descriptors)
