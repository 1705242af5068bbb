"""
The data by which a dispatch policy decides.
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

    Sequences are indexed by the number of a worker and have an entry for each worker
    that there should be; entries of workers that are not ready have no meaning.

    - Each worker counts for itself; the supervisor counts hand-overs, from the choice
      on.
    - A close is visible as soon as the worker has noticed it.
    - A connection on its way to a worker is counted in `handing_over` until the worker
      has it, and for a moment afterwards both there and in `connections`: never in
      neither.
    - Connections and requests are counted separately: a connection may be idle.
    - Ties: `turn` advances with every choice, so a policy that decides by load can
      choose the first of the best workers from there on (`whose_turn` of a view with
      only those as `ready`). If it always chose the lowest number, that worker would
      get all connections that arrive before any load has changed.
    """

    ready: Sequence[int]
    """The workers that can take a connection now; ascending, never empty."""
    turn: int
    """The number after that of the worker chosen last, or 0."""
    connections: Sequence[int]
    """How many open connections each worker has."""
    requests: Sequence[int]
    """How many requests each worker is serving; an idle connection has none."""
    handing_over: Sequence[int]
    """How many connections are on their way to each worker."""
    random: Random
    """The only source of randomness that a policy may use."""
    waiting: int = 1
    """How many connections wait for workers that accept themselves, the one in question
    included."""


def whose_turn(view: View) -> int:
    """
    The first ready worker, starting at the worker whose turn it is.
    """
    return view.ready[bisect_left(view.ready, view.turn) % len(view.ready)]
