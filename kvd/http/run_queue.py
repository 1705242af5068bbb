"""
Time slices of connections that have sent more than can be done at once.

One read may bring thousands of chunks or requests, and a client that sends without
pause has more of them ready in each turn of the reactor. So a connection works until
its time slice is over, then waits in a queue of all such connections, and reads at most
once more. In each turn the queue gets a bounded time; the connections that it did not
reach are first in the next turn. Addresses take turns, whoever has how many
connections: so a normal client is not behind thousands of handshakes of one address.
The rest of the turn belongs to connections that have just received something. So a
normal request waits some milliseconds, however many clients send at full speed.

A slice also ends when the turn of the reactor has lasted too long. If many connections
had work in that turn, each of the others still gets one step: the rest of a request, or
some chunks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from kvd.ipc.row import Row

SLICE_SECONDS: Final = 0.001
"""
The length of a slice; the step in progress is completed.
"""

QUEUE_SECONDS: Final = 0.002
"""
How long the whole queue works in one turn of the reactor; the step in progress is
completed.
"""

TURN_SECONDS: Final = 0.02
"""
After a turn of the reactor has lasted this long, each connection gets one step.
"""


class RunQueue:
    """
    The connections of a process that wait for their next time slice.
    """

    def __init__(
        self,
        call_later: Callable[[float, Callable[[], None]], object],
        row: Row,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            call_later: See `IReactorTime.callLater`.
            row: Knows when the current turn of the reactor began.
            seconds: The clock by which slices are measured.
        """
        self._call_later = call_later
        self._row = row
        self.seconds = seconds
        # Dictionaries, because a set has no order.
        self._waiting: dict[Callable[[], None], str] = {}
        self._queues: dict[str, dict[Callable[[], None], None]] = {}
        """Of each network; the first one is next."""
        self._later: dict[Callable[[], None], str] | None = None
        """What is added while the queue works: it has had its slice."""
        self._is_called = False

    def slice_end(self) -> float:
        """
        When a time slice that begins now is over, by `seconds`.
        """
        end = self.seconds() + SLICE_SECONDS
        turn_began = self._row.turn
        return min(end, turn_began * 1e-9 + TURN_SECONDS) if turn_began else end

    def has_time(self) -> bool:
        """
        Whether something that takes long may be done now, in place of a later slice:
        if nobody waits for one, and the turn of the reactor is still young.
        """
        if self._waiting:
            return False
        began = self._row.turn
        return not began or self.seconds() < began * 1e-9 + QUEUE_SECONDS

    def add(self, run: Callable[[], None], network: str = "") -> None:
        """
        Call a function in a later turn of the reactor, after those of its network that
        already wait. If it has more to do after its slice, it adds itself again.

        Args:
            run: The function.
            network: Whose it is (`kvd.access.networks`).
        """
        if self._later is not None:
            self._later[run] = network
            return
        self._waiting[run] = network
        self._queues.setdefault(network, {})[run] = None
        self._call()

    def discard(self, run: Callable[[], None]) -> None:
        """
        Do not call a function any more.
        """
        if self._later is not None:
            self._later.pop(run, None)
        network = self._waiting.pop(run, None)
        if network is not None:
            queue = self._queues[network]
            del queue[run]
            if not queue:
                del self._queues[network]

    def _call(self) -> None:
        if not self._is_called:
            self._is_called = True
            self._call_later(0, self._run)

    def _run(self) -> None:
        self._is_called = False
        end = self.seconds() + QUEUE_SECONDS
        self._later = {}
        try:
            while self._queues:
                network = next(iter(self._queues))
                queue = self._queues.pop(network)
                run = next(iter(queue))
                del queue[run], self._waiting[run]
                if queue:
                    # Behind those of all others.
                    self._queues[network] = queue
                run()
                if self.seconds() >= end:
                    break
        finally:
            later, self._later = self._later, None
            for run, network in later.items():
                self.add(run, network)
            if self._waiting:
                self._call()
