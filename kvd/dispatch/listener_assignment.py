"""
Who accepts from which socket, where the kernel chooses.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed

from kvd.ipc.channel import Channel
from kvd.ipc.messages import Gated, Listen, Message, Unlisten, Unplaced
from kvd.net.listening import ListenerGroup

Member = tuple[int, int]
"""
A listening socket: the number of its group, and its own in the group.
"""

ROOM_SECONDS: Final = 1.0
"""
A worker that had no descriptor left for a socket is given none for so long.
"""


@dataclass
class _Worker:
    channel: Channel
    polls: dict[Member, bool] = field(default_factory=dict)
    """And whether it is meant to be alone."""
    full: bool = False
    """Whether it had no descriptor left for a socket, a moment ago."""


class Polling:
    """
    Gives each listening socket to the workers that the policy names. One that is
    nobody's, or whose workers are not ready, goes to a ready one in their stead; one
    whose workers make no turn goes to another as well.

    Provides `kvd.workers.pool.Distribution`.
    """

    def __init__(
        self,
        members: Sequence[Collection[int]] | None,
        groups: Sequence[ListenerGroup],
        reactor: Any,
    ) -> None:
        """
        Args:
            members: Of each group, for each worker those that it polls; a worker
                beyond them polls as if it were counted from the first again. None:
                workers poll nothing.
            groups: The sockets; closed when this finishes.
            reactor: Tells the time.
        """
        self._members = members
        self._gate = ""
        self._groups = groups
        self._reactor = reactor
        self._ready: dict[int, _Worker] = {}
        self._stalled: Set[int] = frozenset()
        self._again: Any = None
        self._finished = False

    def arrange(
        self, members: Sequence[Collection[int]] | None, gate: str = ""
    ) -> None:
        """
        Let others poll from now on, or nobody. What waits in a socket's queue stays
        there for them.

        Args:
            members: As for the constructor.
            gate: The policy that workers ask before they accept; empty: none.
        """
        self._members = members
        if gate != self._gate:
            self._gate = gate
            for worker in self._ready.values():
                worker.channel.send(Gated(gate))
        self._assign()

    def stalled(self, workers: Set[int]) -> None:
        """
        These make no turn; all others do.
        """
        self._stalled = workers
        self._assign()

    def awaited(self, workers: Collection[int]) -> Set[int]:
        """
        Of some workers, those who have a socket at which connections wait.
        """
        waiting = {
            (group, member)
            for group, sockets in enumerate(self._groups)
            for member, count in enumerate(sockets.waiting() if workers else ())
            if count
        }
        return {
            worker
            for worker in workers
            if worker in self._ready and waiting & self._ready[worker].polls.keys()
        }

    def joined(self, worker: int, channel: Channel) -> None:
        """
        See `Distribution`.
        """
        self._ready[worker] = _Worker(channel)
        if self._gate:
            channel.send(Gated(self._gate))
        self._assign()

    def leaving(self, worker: int) -> None:
        """
        See `Distribution`. The worker lets go of its sockets by itself.
        """
        self.left(worker)

    def left(self, worker: int) -> None:
        """
        See `Distribution`.
        """
        if self._ready.pop(worker, None) is not None:
            self._assign()

    def heard(self, worker: int, message: Message) -> None:
        """
        See `Distribution`.
        """
        if not isinstance(message, Unplaced):
            raise AssertionError(f"no message from a worker that polls: {message}")
        if worker in self._ready:
            self._unplaced(self._ready[worker], message.name)

    def _unplaced(self, worker: _Worker, name: str) -> None:
        """
        A worker has no descriptor for a socket: another gets it, or, if there is
        none, the same one a moment later.
        """
        group, member = name.split("/")
        worker.polls.pop((int(group), int(member)), None)
        worker.full = True
        # It may have been given the socket again meanwhile, and have found room.
        worker.channel.send(Unlisten(name))
        if self._again is None:
            self._again = self._reactor.callLater(ROOM_SECONDS, self._try_again)
        self._assign()

    def _try_again(self) -> None:
        self._again = None
        for worker in self._ready.values():
            worker.full = False
        self._assign()

    def handing_over(self, worker: int) -> int:
        """
        See `Distribution`.
        """
        return 0

    def finish(self) -> Deferred[None]:
        """
        See `Distribution`. The workers hold the only copies of the sockets
        then: each empties its queues before it closes them. But of those that are
        another's, who keeps them, nothing more is taken.
        """
        self._finished = True
        for _, worker in sorted(self._ready.items()):
            for polled in sorted(worker.polls):
                if polled[1] < self._groups[polled[0]].given:
                    worker.channel.send(Unlisten(_name(polled)))
        for group in self._groups:
            group.close()
        return succeed(None)

    def close(self) -> None:
        """
        See `Distribution`.
        """
        if self._again is not None:
            self._again.cancel()
            self._again = None

    def _assign(self) -> None:
        if self._finished:
            return
        wanted: dict[int, dict[Member, bool]] = {number: {} for number in self._ready}
        for group, sockets in enumerate(self._groups):
            for member in range(len(sockets.members)):
                polled = group, member
                for number in self._pollers(polled):
                    wanted[number][polled] = self._is_for_one(polled)
        for number in sorted(self._ready):
            worker = self._ready[number]
            for polled in sorted(worker.polls.keys() - wanted[number].keys()):
                worker.channel.send(Unlisten(_name(polled)))
            for polled, alone in sorted(wanted[number].items() - worker.polls.items()):
                sock = self._groups[polled[0]].members[polled[1]]
                worker.channel.send(Listen(_name(polled), alone), [sock.fileno()])
            worker.polls = wanted[number]

    def _is_for_one(self, polled: Member) -> bool:
        size = len(self._groups[polled[0]].members)
        meant = [
            polled[1] in {member % size for member in own}
            for own in self._members or ()
        ]
        return sum(meant) <= 1

    def _pollers(self, polled: Member) -> list[int]:
        members = self._members
        if members is None:
            return []
        size = len(self._groups[polled[0]].members)
        able = [
            number
            for number, worker in sorted(self._ready.items())
            if polled in worker.polls or not worker.full
        ]
        own = [
            number
            for number in able
            if polled[1] in {member % size for member in members[number % len(members)]}
        ]
        others = [number for number in able if number not in self._stalled]
        if not set(own).isdisjoint(others):
            return own
        # Where nobody makes a turn, anybody may be the first to do so.
        others = others or able
        if not others:
            return own
        # Who took it over keeps it, so that a wave of starts moves it once.
        for number in others:
            if polled in self._ready[number].polls:
                return sorted({*own, number})
        return sorted({*own, others[polled[1] % len(others)]})


def _name(polled: Member) -> str:
    return f"{polled[0]}/{polled[1]}"
