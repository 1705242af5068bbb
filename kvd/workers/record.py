"""
What the pool knows of each worker.

======== =================================== ==================================
state    means                               next
======== =================================== ==================================
WAITING  no process; a pause runs            STARTING
STARTING forked, or about to be              READY, or WAITING if it ends
READY    serves                              DRAINING, or WAITING if it ends
DRAINING accepts nothing new, finishes its   ENDED, or WAITING if the worker is
         requests and exits                  still wanted
ENDED    no process, none wanted             STARTING, if one is wanted again
======== =================================== ==================================
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from kvd.ipc.channel import Channel
from kvd.workers.backoff import Backoff


class State(Enum):
    """
    A worker's state; the module's docstring has the table.
    """

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    ENDED = "ended"


@dataclass
class WorkerRecord:
    """
    What the pool knows of one worker, whichever process serves as it.
    """

    number: int
    wanted: bool = True
    """Whether there should be a process; if not, the last one is ending."""
    state: State = State.WAITING
    pid: int = 0
    pidfd: int = -1
    channel: Channel | None = None
    request: int = 0
    """The number of the request to the fork server that made the present process."""
    started: float = 0.0
    backoff: Backoff = field(default_factory=Backoff)
    timer: Any = None
    reason: str = ""
    """Why the process ended, if the fork server has reported it already."""
    failure: str = ""
    """Why the process cannot serve, as it last reported."""
