"""
Processes of tests: work in a child, and what the kernel says of those that are not
children.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import struct
import time
import traceback
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from tests.patience import PATIENCE_SECONDS

T = TypeVar("T")

_STILL: Final = frozenset("TZX")
"""
The states of a thread that makes no step: stopped, or ended.
"""


def in_child(work: Callable[[], T]) -> T:
    """
    Do something in a process of its own, and give back what comes of it. It is forked:
    there is nothing that it has to import.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with os.fdopen(writing, "wb") as pipe:
                pickle.dump(work(), pipe)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    assert said, "it failed; its traceback is in the captured output"
    result: T = pickle.loads(said)
    return result


def state_of(pid: int) -> str:
    """
    The letter of a process's state, as in proc_pid_stat(5); empty if it is gone.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        # The latter if it ends between the opening and the reading.
        return ""
    return _state_in(stat)


def _state_in(stat: str) -> str:
    return stat.rpartition(")")[2].split()[0]


def states_of_threads(pid: int) -> set[str]:
    """
    As `state_of`, of all threads of a process.
    """
    states = set()
    # The process may end between the opening and the reading, and so may a thread.
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(FileNotFoundError, ProcessLookupError):
                stat = Path(f"/proc/{pid}/task/{thread}/stat").read_text()
                states.add(_state_in(stat))
    return states


def stop_all(pids: Collection[int]) -> None:
    """
    Send processes SIGSTOP, and wait until each of them stands still or is gone.
    """
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    for pid in pids:
        await_stop(pid)


def await_stop(pid: int) -> None:
    """
    Wait until a process that was sent SIGSTOP stands still in all its threads, or is
    gone.
    """
    # One that is in a call of the kernel finishes that first.
    end = time.monotonic() + PATIENCE_SECONDS
    while not states_of_threads(pid) <= _STILL:
        assert time.monotonic() < end, f"process {pid} does not stop"
        time.sleep(0.001)


def peers_of_stopped(pids: Collection[int]) -> dict[int, set[int] | None]:
    """
    The ports at the other ends of the connections over TCP and IPv4 that each of some
    processes holds, all of them. None for one that did not stand still until they were
    known: it may have let go of some.
    """
    held = {pid: _sockets_of(pid) for pid in pids}
    peers = _connected_peers()
    return {
        pid: {peers[each] for each in held[pid] & peers.keys()}
        if state_of(pid) == "T"
        else None
        for pid in pids
    }


def _sockets_of(pid: int) -> set[int]:
    """
    The inodes of a process's sockets.
    """
    sockets = set()
    with suppress(FileNotFoundError, ProcessLookupError):
        for descriptor in os.scandir(f"/proc/{pid}/fd"):
            with suppress(FileNotFoundError):
                kind, _, inode = os.readlink(descriptor.path).partition(":")
                if kind == "socket":
                    sockets.add(int(inode.strip("[]")))
    return sockets


_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_REQUEST_AND_DUMP: Final = 0x301
_ERROR, _DONE = 2, 3
_HEADER: Final = struct.Struct("=IHHII")
_REQUEST: Final = struct.Struct("=BBBxI48x")
_ANSWER: Final = struct.Struct("=16x6x2s60xI")
_HELD_STATES: Final = sum(1 << state for state in (1, 4, 5, 8, 9, 11))
"""
Of those in the kernel's tcp_states.h: ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT,
LAST_ACK and CLOSING.
"""


def _connected_peers() -> dict[int, int]:
    """
    The port at the other end of each connection over TCP and IPv4, by the inode of its
    socket; as in sock_diag(7).

    ``/proc/net/tcp`` has them too, between all that were closed within the last minute.
    """
    peers: dict[int, int] = {}
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_NETLINK, kind, _NETLINK_SOCK_DIAG) as asked:
        request = _REQUEST.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, _HELD_STATES)
        size = _HEADER.size + len(request)
        head = size, _SOCK_DIAG_BY_FAMILY, _REQUEST_AND_DUMP, 1, 0
        asked.send(_HEADER.pack(*head) + request)
        while True:
            reply = asked.recv(1 << 16)
            while reply:
                length, answers, *_ = _HEADER.unpack_from(reply)
                if answers == _DONE:
                    return peers
                assert answers != _ERROR, "the kernel does not tell its connections"
                port, inode = _ANSWER.unpack_from(reply)
                peers[inode] = int.from_bytes(port, "big")
                reply = reply[length:]


def has_ended(pid: int) -> bool:
    """
    Whether a process has ended. One that nobody has reaped is there still: in many
    containers, whoever adopts orphans never does.
    """
    return state_of(pid) in {"", "Z", "X"}
