"""
What a scoreboard tells those who read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Counts:
    """
    What a worker is doing, and what has been counted for it.
    """

    starts: int
    """Processes that have had this worker number, this one included; all sums cover all
    of them."""
    accepted: int
    """Connections that were accepted."""
    open: int
    """Connections that are open now."""
    requests: int
    """Requests that have ended, including aborted ones."""
    in_progress: int
    """Requests whose head has been read and that have not ended."""
    bytes_in: int
    """Bytes read from connections, heads included."""
    bytes_out: int
    """Bytes that the kernel accepted for connections, heads included."""
    busy_seconds: float
    """Time in which the worker did not wait for events."""
    silent_seconds: float
    """Time since the worker last began or ended to wait. It waits for a second at most,
    so a longer time means that one event takes long."""


@dataclass(frozen=True, slots=True)
class Sums:
    """
    What all processes with one worker number have counted, whether or not there is one
    now. None of the numbers ever decreases.
    """

    starts: int
    stalls: int
    """How often a process was stalled, and other workers took its connections."""
    accepted: int
    requests: int
    bytes_in: int
    bytes_out: int
    busy_seconds: float
    """Time in turns of the reactor that have ended."""
    serving_seconds: float
    """The time of all requests, from the end of the head to the end of the reply."""
    latency: list[int]
    """How many requests took how long, in the buckets of `kvd.ipc.histogram`."""
    loop_delay: list[int]
    """How many turns of the reactor took how long, from waking to waiting. Events that
    arrived meanwhile waited for up to this time."""


class Loads(NamedTuple):
    """
    How busy each worker is now.
    """

    ready: tuple[int, ...]
    """The numbers of the workers that can take a connection, ascending."""
    connections: Sequence[int]
    """The open connections of each worker."""
    requests: Sequence[int]
    """The requests in progress of each worker."""
