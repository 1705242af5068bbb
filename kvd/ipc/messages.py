"""
Messages between the supervisor, the fork server and the workers.

Each message is one datagram on a ``SOCK_SEQPACKET`` socket; some carry descriptors.
Those that are sent for every batch of connections are packed, which saves 13
microseconds per batch. So are those that each worker sends or receives, or the fork
server for it: the modules for JSON, which a worker then never runs, would take 0.25 MiB
of each worker (pages that it no longer shares). All others are JSON.

============  ==========================  =====================================
message       from, to                    descriptors
============  ==========================  =====================================
Load          supervisor to fork server   the scoreboard's memory, and perhaps more
Fork          supervisor to fork server   the worker's end of its control socket
Alive         supervisor to fork server
              or evictor, and back
Forked        fork server to supervisor   a pidfd of the worker
Exited        fork server to supervisor
Listen        supervisor to worker        a listening socket
Unlisten      supervisor to worker
Gated         supervisor to worker
Credits       supervisor to worker        an eventfd
Batch         supervisor to worker        connections
Rights        supervisor to worker        see there
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
from functools import partial
from operator import attrgetter
from typing import Any, Final, NamedTuple, get_args

from cattrs import Converter
from cattrs.strategies import configure_tagged_union

from kvd.settings import RightsFile, Settings

MAX_BYTES: Final = 64 * 1024
MAX_TEXT_BYTES: Final = 48 * 1024
"""
How many of these bytes a text may take; see `shortened`.
"""
MAX_DESCRIPTORS: Final = 64
"""
The most descriptors in one message. The kernel allows 253 (unix(7)); beyond 64, the
cost of a message is negligible beside that of its descriptors.
"""

# As plain integers: an operation on an enumeration is five calls in Python.
_SOL_SOCKET: Final = int(socket.SOL_SOCKET)
_SCM_RIGHTS: Final = int(socket.SCM_RIGHTS)
_MSG_TRUNC: Final = int(socket.MSG_TRUNC)
_MSG_CTRUNC: Final = int(socket.MSG_CTRUNC)
_MSG_CMSG_CLOEXEC: Final = int(socket.MSG_CMSG_CLOEXEC)

_INT_BYTES: Final = array("i").itemsize
_DESCRIPTORS_SPACE: Final = socket.CMSG_SPACE(MAX_DESCRIPTORS * _INT_BYTES)


@dataclass(frozen=True, slots=True)
class Load:
    """
    Import what workers with these settings need. The message carries the scoreboard's
    memory, that of `kvd.access.counting`, and the socket of `kvd.access.verifying`;
    then, if there is a rights file, a file in memory with its text; then, if an address
    speaks TLS, a file in memory with the credentials; then, if the store has limits,
    the memory in which workers count (`kvd.store.usage`); and then, if there is one,
    the descriptor of what the store is in (`IHeldStoreMaker`).
    """

    settings: Settings
    """Without the text of the rights file, and the credentials."""
    credentials: bool = False
    """Whether there are some."""


@dataclass(frozen=True, slots=True)
class Fork:
    """
    Fork a worker.
    """

    worker: int
    request: int
    """Unique: an answer may come late, when another process has been requested for the
    same worker."""


@dataclass(frozen=True, slots=True)
class Alive:
    """
    The receiver is asked whether it lives, and sends the same back
    (`kvd.workers.heartbeat`); a worker writes a time stamp by waking, and says nothing
    (`kvd.dispatch.stalling`).
    """


@dataclass(frozen=True, slots=True)
class Forked:
    """
    A worker has been forked.
    """

    worker: int
    pid: int
    request: int
    """The number of the `Fork` that this answers."""


@dataclass(frozen=True, slots=True)
class Exited:
    """
    A worker has ended, or could not be forked (pid 0).
    """

    worker: int
    pid: int
    reason: str


@dataclass(frozen=True, slots=True)
class Listen:
    """
    Accept from the socket in this message, which replaces one of the same name. With
    one that is not exclusive comes its bell (`kvd.net.bell`).
    """

    name: str
    exclusive: bool = True
    """Whether this worker is the only one that accepts from it."""


@dataclass(frozen=True, slots=True)
class Unlisten:
    """
    Stop accepting from a socket.
    """

    name: str


@dataclass(frozen=True, slots=True)
class Gated:
    """
    Accept only as this policy allows (`kvd.interfaces.IGatedPolicy`).
    """

    policy: str
    """As the operator wrote it; empty: no gate."""


@dataclass(frozen=True, slots=True)
class Credits:
    """
    Carries the counter of credits, which has one credit for each batch of connections.
    A worker takes a credit before it touches a batch (`kvd.dispatch.handover`).
    """


@dataclass(frozen=True, slots=True)
class Batch:
    """
    Carries accepted connections, which the worker has if it gets a credit for them.
    """

    number: int
    """Greater than that of any batch that was sent before, to whichever worker."""
    connections: int
    group: int
    """The number of the address that they have come to."""
    asks: bool
    """Whether the worker is to send `Acknowledged` when it is done with it. It always
    writes that on the scoreboard."""


@dataclass(frozen=True, slots=True)
class Rights:
    """
    Decide by this rights file from now on. Comes with descriptors of its text
    (`kvd.ipc.texts`), of the memory of `kvd.access.counting`, and of the socket to the
    process that verifies passwords.
    """

    path: str
    """Empty: there is no rights file any more, and no descriptor comes."""


@dataclass(frozen=True, slots=True)
class Drain:
    """
    Finish all requests within this time, and exit.
    """

    seconds: float
    others_serve: bool = False
    """Whether other workers take the connections that still arrive."""


@dataclass(frozen=True, slots=True)
class Ready:
    """
    The store is open, and the worker is ready for sockets.
    """

    pid: int = 0
    """The worker's own: the fork server may have died before it reported it."""


@dataclass(frozen=True, slots=True)
class Failed:
    """
    The worker cannot serve, and exits.
    """

    sentence: str


@dataclass(frozen=True, slots=True)
class Unplaced:
    """
    The worker has no descriptor left for a socket that it should accept from. Another
    worker may get the socket.
    """

    name: str
    """As in `Listen`."""


@dataclass(frozen=True, slots=True)
class Leaving:
    """
    Another process than the supervisor has asked the worker to end. It serves until the
    supervisor sends `Drain`.
    """


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """
    The worker is done with all batches up to this one: it serves them, or found no
    credit for them. Sent if the supervisor may wait for it.
    """

    batch: int


@dataclass(frozen=True, slots=True)
class Refused:
    """
    The worker returns a batch that it has a credit for, untouched. It is done with all
    earlier batches.
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
    | Alive
    | Forked
    | Exited
    | Listen
    | Unlisten
    | Gated
    | Credits
    | Batch
    | Rights
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
_CONVERTER.register_unstructure_hook(RightsFile, lambda file: {"path": file.path})
configure_tagged_union(Message, _CONVERTER, tag_name="type")
# cattrs looks for the hooks of a type at its first use. Found now, in the fork server,
# they are shared by all workers.
for _kind in (Message, *get_args(Message)):
    _CONVERTER.get_structure_hook(_kind)
    _CONVERTER.get_unstructure_hook(_kind)


class _Packing(NamedTuple):
    """
    How messages of a type are packed.
    """

    kind: type[Any]
    form: struct.Struct
    """Of the first byte and the numbers."""
    numbers: Callable[[Any], Sequence[int]]
    """Returns the fields that are numbers."""
    text: Callable[[Any], str] | None = None
    """Returns the first field, if that is a text. It follows the numbers."""


def _none(message: object) -> Sequence[int]:
    return ()


# By the first byte, with which no JSON begins.
_PACKED: Final = {
    1: _Packing(
        Batch,
        struct.Struct("=BQII?"),
        attrgetter("number", "connections", "group", "asks"),
    ),
    2: _Packing(Acknowledged, struct.Struct("=BQ"), lambda message: (message.batch,)),
    3: _Packing(Refused, struct.Struct("=BQ"), lambda message: (message.batch,)),
    4: _Packing(Fork, struct.Struct("=BIQ"), attrgetter("worker", "request")),
    5: _Packing(Forked, struct.Struct("=BIIQ"), attrgetter("worker", "pid", "request")),
    6: _Packing(Ready, struct.Struct("=BI"), lambda message: (message.pid,)),
    7: _Packing(Credits, struct.Struct("=B"), _none),
    8: _Packing(Gated, struct.Struct("=B"), _none, attrgetter("policy")),
    9: _Packing(
        Listen,
        struct.Struct("=B?"),
        lambda message: (message.exclusive,),
        attrgetter("name"),
    ),
    10: _Packing(Alive, struct.Struct("=B"), _none),
    11: _Packing(Rights, struct.Struct("=B"), _none, attrgetter("path")),
}
pack_batch: Final[Callable[[int, int, int, bool], bytes]] = partial(
    _PACKED[1].form.pack, 1
)
"""
Encode a `Batch` with these fields, which is not made for it.
"""

_PACKED_AS: Final = {packing.kind: first for first, packing in _PACKED.items()}


class BadMessage(Exception):
    """
    A datagram is not one of these messages: a bug in kvd.
    """


def encode(message: Message) -> bytes:
    """
    Encode a message as one datagram.
    """
    first = _PACKED_AS.get(type(message))
    if first is not None:
        _, form, numbers, text = _PACKED[first]
        packed = form.pack(first, *numbers(message))
        return packed if text is None else packed + text(message).encode()
    return json.dumps(_CONVERTER.unstructure(message, Message)).encode("ascii")


def decode(data: bytes) -> Message:
    """
    Decode the message in a datagram.

    Raises:
        BadMessage: The datagram is not a message.
    """
    try:
        packed = _PACKED.get(data[0])
        if packed is not None:
            kind, form, _, text = packed
            made: Message
            if text is None:
                made = kind(*form.unpack(data)[1:])
            else:
                made = kind(data[form.size :].decode(), *form.unpack_from(data)[1:])
            return made
        message: Message = _CONVERTER.structure(json.loads(data), Message)  # type: ignore[arg-type]  # a union is no type to mypy
    except Exception as error:
        raise BadMessage(f"not a message: {data[:200]!r}") from error
    return message


def shortened(text: str) -> str:
    """
    Cut a text to the length that fits into a message, where a character may take twelve
    bytes.
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
        BadMessage: The message is longer than the other side accepts: a bug in kvd.
        OSError: It cannot be sent, or not now.
    """
    data = encode(message)
    if len(data) > MAX_BYTES:
        raise BadMessage(f"too long, with {len(data)} bytes: {data[:200]!r}")
    sock.sendmsg([data], rights_of(descriptors) if descriptors else ())


def rights_of(
    descriptors: Sequence[int],
) -> Sequence[tuple[int, int, array[int]]]:
    """
    The ancillary data of a message with copies of descriptors; at least one.
    """
    return ((_SOL_SOCKET, _SCM_RIGHTS, array("i", descriptors)),)


def receive(sock: socket.socket) -> tuple[Message, list[int]] | None:
    """
    Receive a message and the descriptors that came with it. The caller owns the
    descriptors; child processes do not inherit them. If this process has no room for
    all of them, there are none.

    Returns:
        None when the other side is gone and all its messages have been received.

    Raises:
        BadMessage: The datagram is not a message; its descriptors are closed.
        BlockingIOError: No message has arrived, on a non-blocking socket.
    """
    try:
        data, ancillary, flags = _receive_datagram(sock)
    except ConnectionResetError:
        # The other side ended without reading everything. The kernel reports that once,
        # before it delivers what that side had sent (unix(7)).
        data, ancillary, flags = _receive_datagram(sock)
    return understand(data, _descriptors_in(ancillary), flags)


def understand(
    data: bytes, descriptors: list[int], flags: int
) -> tuple[Message, list[int]] | None:
    """
    Do as `receive` does, with what was read from the socket.

    Args:
        data: The datagram.
        descriptors: All that came with it; they are the result's, or closed.
        flags: As recvmsg(2) returns them.
    """
    if not data:
        return None
    try:
        if flags & _MSG_TRUNC:
            raise BadMessage("a message came cut off")
        message = decode(data)
    except BadMessage:
        _close_all(descriptors)
        raise
    if flags & _MSG_CTRUNC:
        _close_all(descriptors)
        return message, []
    return message, descriptors


def _receive_datagram(
    sock: socket.socket,
) -> tuple[bytes, Sequence[tuple[int, int, bytes]], int]:
    # Not socket.recv_fds, which ignores its flags (Python 3.11): processes forked
    # meanwhile would inherit the descriptors.
    data, ancillary, flags, _ = sock.recvmsg(
        MAX_BYTES, _DESCRIPTORS_SPACE, _MSG_CMSG_CLOEXEC
    )
    return data, ancillary, flags


def _close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _descriptors_in(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    descriptors = array("i")
    for level, kind, data in ancillary:
        if level == _SOL_SOCKET and kind == _SCM_RIGHTS:
            # A truncated message may end within a number.
            descriptors.frombytes(data[: len(data) - len(data) % _INT_BYTES])
    return list(descriptors)
