"""
What a dispatch policy decides by.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class View:
    """
    The workers at the moment of one decision.

    Sequences are indexed by a worker's number and have an entry for each
    worker there should be; the entries of workers that are not ready mean
    nothing.

    - Who counts: each worker itself, except hand-overs, which the supervisor
      counts from the choice on.
    - When a close is visible: as soon as the worker has heard of it.
    - What is on its way to a worker is in `handing_over` until the worker has
      it, and for a moment afterwards counted there and in `connections`: never
      in neither.
    - Connections and requests are counted apart: a connection may be idle.
    - Whose tie it is: `turn` goes on with every choice, so that who decides by
      a load can let the first of the best from there on have it (`whose_turn`
      of a view with only those as `ready`). Always the lowest number would get
      whatever comes at once, before any load has changed.
    """

    ready: Sequence[int]
    """Who can take a connection now; ascending, never empty."""
    turn: int
    """The number behind that of the worker chosen last, or 0."""
    connections: Sequence[int]
    """How many each worker has open."""
    requests: Sequence[int]
    """How many each worker is serving; idle connections have none."""
    handing_over: Sequence[int]
    """How many connections are on their way to each worker."""
    random: Random
    """The only source of chance that a policy may use."""
    waiting: int = 1
    """How many connections wait to be taken by workers that take them for themselves,
    the one in question included."""


def whose_turn(view: View) -> int:
    """
    The first ready worker from the one whose turn it is.
    """
    return view.ready[bisect_left(view.ready, view.turn) % len(view.ready)]
