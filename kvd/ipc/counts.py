"""
What the processes that read a scoreboard get from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import add, sub
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
    uploads: int
    """Those of them that store a value."""
    busy_seconds: float
    """Time in which the worker did not wait for events."""
    silent_seconds: float
    """Time since the worker last began or ended to wait. It waits for a second at most,
    so a longer time means that one event takes long."""


@dataclass(frozen=True, slots=True)
class MethodSums:
    """
    What was counted of the requests with one method, or of all.
    """

    statuses: tuple[int, ...]
    """How many replies had a status of each class (`kvd.ipc.row.STATUSES`)."""
    seconds: float
    """The time of all requests, from the end of the head to the end of the reply."""
    latency: tuple[int, ...]
    """How many requests took how long, in the buckets of `kvd.ipc.histogram`."""

    def __add__(self, other: MethodSums) -> MethodSums:
        return MethodSums(
            tuple(map(add, self.statuses, other.statuses)),
            self.seconds + other.seconds,
            tuple(map(add, self.latency, other.latency)),
        )

    def __sub__(self, other: MethodSums) -> MethodSums:
        return MethodSums(
            tuple(map(sub, self.statuses, other.statuses)),
            self.seconds - other.seconds,
            tuple(map(sub, self.latency, other.latency)),
        )


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
    methods: tuple[MethodSums, ...]
    """For each of `kvd.ipc.row.METHODS`."""
    total: MethodSums
    """Of all methods."""
    sync_seconds: float
    """The time of all syncs of a file or folder."""
    syncs: list[int]
    """How many of them took how long."""
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
