"""
What the kernel knows of processes that are measured.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path


def unused_port() -> int:
    """
    A port that was free a moment ago.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int) -> bool:
    """
    Whether somebody listens.
    """
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    """
    Poll until something holds.

    Raises:
        TimeoutError: It did not in so many seconds.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"it did not come true in {seconds:g} seconds")
        time.sleep(0.005)


def tree(pid: int) -> list[int]:
    """
    A process and all below it.
    """
    # Each thread has its own list of children.
    children = [
        child
        for thread in os.listdir(f"/proc/{pid}/task")
        for child in Path(f"/proc/{pid}/task/{thread}/children").read_text().split()
    ]
    return [pid, *(below for child in children for below in tree(int(child)))]


def cpu_seconds(pids: Iterable[int]) -> float:
    """
    CPU time of processes, to the nanosecond.
    """
    return (
        sum(
            int(Path(f"/proc/{p}/task/{t}/schedstat").read_text().split()[0])
            for p in pids
            for t in os.listdir(f"/proc/{p}/task")
        )
        / 1e9
    )
