"""
A lone connection.

It finds the processor's caches cold, and costs the supervisor what the code for it
costs to load. So it is accepted, shown to the policy and sent in one compiled call
(``kvd/native/dispatch.c``), which decides nothing: the policy does, in `Decider.ask`.
The call is left to the dispatcher if another connection waits too, if a worker is near
one of its limits or its control socket has a queue, if a message cannot be sent, and
whenever the dispatcher has not said that things are as usual.

Whether another connection waits is a system call. It is spared if none came in the half
of a millisecond before: then one that waits too comes to the next event.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from random import Random
from typing import Any, Final, Protocol

from kvd.dispatch.lane import Lane
from kvd.dispatch.primitives import Accepted
from kvd.ipc.scoreboard import Scoreboard
from kvd.model.view import View
from kvd.native import compiled


class Lone(Protocol):
    """
    Hands over a lone connection.
    """

    ready: Sequence[int]
    """The workers that are open, as for `View`; none: everything is left to the
    dispatcher."""
    lanes: list[Lane | None]
    """Of each worker."""
    ask: Callable[[View], int | None]
    """See `Decider.ask`."""
    whose_turn: Callable[[View], int]
    """Asked if `ask` has no answer."""
    timer: Any
    """Of the decider."""
    turn: int
    """See `View.turn`."""
    most_connections: int
    """A worker that gets so many is left to the dispatcher."""
    most_waiting: int
    """So is a worker with so many on their way."""
    looks: bool
    """Whether the dispatcher will look after what is on its way."""

    def accept_from(self, listener: int, /) -> bool:
        """
        Accept what waits at a listening socket, and hand it over: after a pause, one.

        Args:
            listener: A descriptor; one that is not among `listeners` is left.

        Returns:
            Whether nothing is left to do in this turn.
        """

    def close(self) -> None:
        """
        Leave everything to the dispatcher from now on, and the scoreboard alone.
        """


class LoneInPython:
    """
    Leaves all to the dispatcher.
    """

    ready: Sequence[int] = ()
    turn = 0

    def __init__(
        self, listeners: dict[int, int], dispatch: Callable[[int], bool]
    ) -> None:
        self._listeners = listeners
        self._dispatch = dispatch

    def accept_from(self, listener: int, /) -> bool:
        """
        See `Lone`.
        """
        return listener in self._listeners and self._dispatch(listener)

    def close(self) -> None:
        """
        See `Lone`.
        """


_native: Final = compiled("_dispatch")


def make_lone(
    scoreboard: Scoreboard,
    random: Random,
    numbers: Iterator[int],
    clock: Callable[[], float],
    listeners: dict[int, int],
    held: deque[Accepted],
    dispatch: Callable[[int], bool],
    look_later: Callable[[], None],
) -> Any:
    """
    Make what `Lone` describes.

    Args:
        scoreboard: Shows what the workers are doing.
        random: For the views.
        numbers: Of batches.
        clock: Tells when a batch is sent.
        listeners: The number of each listening socket's address, by its descriptor.
        held: Gets connections that were accepted but are left to the dispatcher.
        dispatch: Called with the descriptor of the listening socket for these, and for
            those that still wait there; returns as `Lone.accept_from`.
        look_later: Called when something is on its way, if `Lone.looks` is not set.
    """
    if _native is None:
        return LoneInPython(listeners, dispatch)
    names = tuple(field.name for field in fields(View))
    return _native.Lone(
        *scoreboard.words_of_tasks,
        (View, names),
        random,
        numbers,
        clock,
        time.monotonic,
        listeners,
        held,
        dispatch,
        look_later,
    )
