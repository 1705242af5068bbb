"""
Processes of tests: work in a child, and what the kernel says of those that are not
children.
"""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


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
    return stat.rpartition(")")[2].split()[0]


def peers_of(pid: int) -> set[int]:
    """
    The ports at the other ends of a process's connections over TCP and IPv4.
    """
    sockets = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            sockets.add(os.readlink(descriptor))
    _, *lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()
    # As proc(5) has them: the number of the line, both addresses, ..., the inode.
    rows = [line.split() for line in lines]
    return {
        int(row[2].rpartition(":")[2], 16)
        for row in rows
        if f"socket:[{row[9]}]" in sockets
    }


def has_ended(pid: int) -> bool:
    """
    Whether a process has ended. One that nobody has reaped is there still: in many
    containers, whoever adopts orphans never does.
    """
    return state_of(pid) in {"", "Z", "X"}
