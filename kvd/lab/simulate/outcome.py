"""
The outcome of a simulation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

FEW: Final = 5 / 32
"""
The share of the workers that is called few: the article's 4 or 5 of 32.
"""


class BadChoice(Exception):
    """
    A policy did not choose a ready worker; a sentence.
    """


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    What happened to a load under a policy.
    """

    makespan: float
    """Seconds from 0 to the end of the last request."""
    waits: Sequence[float]
    """Seconds from the arrival of each request to its service; in no order."""
    connections: Sequence[int]
    """How many each worker got."""
    requests: Sequence[int]
    """How many each worker served."""
    busy_seconds: Sequence[float]
    """Time in which each worker served."""
    seconds_with_busy: Sequence[float]
    """For how long exactly 0, 1, 2, ... workers were busy."""
    idle_while_queued: float
    """Seconds in which a worker was idle while a request waited."""
    wasted: float
    """Seconds of workers that were idle while a request waited for each."""
    tail: float
    """Seconds at the end in which few workers were busy."""
