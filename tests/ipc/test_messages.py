"""
Tests for `kvd.ipc.messages`.
"""

import os
import socket
from collections.abc import Iterator

import pytest

from kvd.ipc.messages import (
    MAX_DESCRIPTORS,
    Acknowledged,
    BadMessage,
    Batch,
    Credits,
    Drain,
    Exited,
    Failed,
    Fork,
    Forked,
    Gated,
    Leaving,
    Listen,
    Load,
    LogLine,
    Message,
    Ready,
    Refused,
    Rights,
    Unlisten,
    decode,
    encode,
    receive,
    send,
    shortened,
)
from kvd.settings import (
    DialectChoice,
    Limits,
    Settings,
    StoreLocation,
    SystemdAddress,
    TCPAddress,
    UNIXAddress,
)
from tests.descriptors import Descriptors

SETTINGS = Settings(
    listen=(
        TCPAddress("127.0.0.1", 0),
        TCPAddress("::1", 80, 5),
        UNIXAddress("/s", 0o600),
        SystemdAddress("web"),
        SystemdAddress(""),
    ),
    store=StoreLocation("file", "/values\udcff"),
    policy="shared",
    procs=7,
    durability="process",
    dialects=(DialectChoice("/a/", "classic"),),
    access_log="-",
    record="/var/log/record",
    drain_seconds=0.5,
    limits=Limits(value_bytes=5, idle_seconds=1.5),
)

MESSAGES: list[Message] = [
    Load(SETTINGS),
    Load(Settings()),
    Fork(3, 7),
    Forked(3, 4711, 7),
    Exited(3, 4711, "was killed by SIGKILL (9)"),
    Listen("0/3"),
    Unlisten("0/3"),
    Gated("gated"),
    Rights("/etc/kvd/\u2603.toml"),
    Credits(),
    Batch(2**64 - 1, 64, socket.AF_INET6, asks=True),
    Batch(1, 1, socket.AF_UNIX, asks=False),
    Acknowledged(0),
    Refused(2**40),
    Drain(0.5),
    Ready(),
    Leaving(),
    Failed("no \udcff"),
    LogLine("warn", "text\n\u2603"),
]

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """
    A control socket's two ends.
    """
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far:
        yield near, far


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_a_message_comes_back_as_it_went(message: Message) -> None:
    """
    Of the same type, with the same contents.
    """
    assert message == decode(encode(message))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"nonsense",
        b'{"type": "Fork"}',
        b'{"type": "Format"}',
        b"\x01",
        b"\x02" + 9 * b"0",
        b"\x04",
    ],
)
def test_anything_else_is_no_message(data: bytes) -> None:
    """
    And said so.
    """
    with pytest.raises(BadMessage):
        decode(data)


@pytest.mark.parametrize("character", ["a", "\n", "\u00e9", "\u2603", "\U0001f600"])
def test_a_text_of_any_length_and_kind_fits(pair: Pair, character: str) -> None:
    """
    Most of it comes; what a character takes in the message differs.
    """
    near, far = pair
    text = character * 100_000
    send(near, LogLine("info", shortened(text)))
    came = receive(far)
    assert came is not None
    (message, _) = came

    assert isinstance(message, LogLine)
    assert text.startswith(message.text)
    assert 4000 < len(message.text)
    assert "short" == shortened("short")


def test_a_message_that_is_too_long_is_not_sent(pair: Pair) -> None:
    """
    The other side would get a part of it.
    """
    with pytest.raises(BadMessage, match="too long"):
        send(pair[0], Failed("x" * 70_000))


def test_descriptors_come_beside_and_are_not_inherited(pair: Pair) -> None:
    """
    Each is the receiver's own.
    """
    near, far = pair
    with open(os.devnull) as file:
        send(near, Listen("0/0"), [file.fileno()])
        came = receive(far)
        assert came is not None
        message, (descriptor,) = came
        same = os.path.samestat(os.fstat(descriptor), os.fstat(file.fileno()))
        inherited = os.get_inheritable(descriptor)
        os.close(descriptor)

    assert Listen("0/0") == message
    assert same
    assert not inherited


def test_descriptors_beside_nonsense_are_closed(pair: Pair) -> None:
    """
    A message that is not understood costs no descriptor.
    """
    near, far = pair
    opened = Descriptors(os.devnull)
    with open(os.devnull) as file:
        socket.send_fds(near, [b"nonsense"], [file.fileno()] * 3)
    with pytest.raises(BadMessage):
        receive(far)

    assert 0 == opened.more


def test_descriptors_without_room_leave_the_message_alone(pair: Pair) -> None:
    """
    The kernel closes what it cannot place without a word: then there are none.
    """
    near, far = pair
    opened = Descriptors(os.devnull)
    with open(os.devnull) as file:
        many = [file.fileno()] * (MAX_DESCRIPTORS + 1)
        socket.send_fds(near, [encode(Listen("0/0"))], many)

    assert (Listen("0/0"), []) == receive(far)
    assert 0 == opened.more


def test_what_was_said_before_an_abrupt_end_is_heard(pair: Pair) -> None:
    """
    A process that is killed has not read everything; the kernel reports that
    before it gives out what the process had said.
    """
    near, far = pair
    send(far, Ready())
    send(near, Acknowledged(7))
    near.close()

    assert (Acknowledged(7), []) == receive(far)
    assert receive(far) is None


def test_the_other_sides_end_is_reported(pair: Pair) -> None:
    """
    By None.
    """
    near, far = pair
    near.close()

    assert receive(far) is None
