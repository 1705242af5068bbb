"""
Assigns listening sockets to workers, for policies under which the kernel chooses.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed

from kvd.ipc.channel import Channel
from kvd.ipc.messages import Alive, Gated, Listen, Message, Unlisten, Unplaced
from kvd.net.bell import make_bell, ring
from kvd.net.listening import ListenerGroup

Listener = tuple[int, int]
"""
A listening socket: the number of its group, and its own in the group.
"""

ROOM_SECONDS: Final = 1.0
"""
A worker that had no descriptor left for a socket is given none for this time.
"""


@dataclass
class _Worker:
    channel: Channel
    listeners: dict[Listener, bool] = field(default_factory=dict)
    """The sockets that it accepts from, and whether it alone is meant to."""
    full: bool = False
    """Whether it had no descriptor left for a socket a moment ago."""


class ListenerAssignment:
    """
    Assigns each listening socket to the workers that the policy names. If they are not
    ready, or if it names none, another ready worker gets the socket; if they make no
    turn, another gets it too.

    Provides `kvd.workers.distribution.Distribution`.
    """

    def __init__(
        self,
        members: Sequence[Collection[int]] | None,
        groups: Sequence[ListenerGroup],
        reactor: Any,
    ) -> None:
        """
        Args:
            members: For each worker, the members of each group that it accepts from; a
                worker beyond them begins anew with the first. None: workers accept
                from none.
            groups: The listening sockets; closed when this finishes.
            reactor: Provides the time.
        """
        self._members = members
        self._gate = ""
        self._groups = groups
        self._reactor = reactor
        self._bells: dict[int, int] = {}
        """Of groups with a socket that several workers accept from."""
        self._ready: dict[int, _Worker] = {}
        self._stalled: Set[int] = frozenset()
        self._again: Any = None
        self._finished = False

    def arrange(
        self, members: Sequence[Collection[int]] | None, gate: str = ""
    ) -> None:
        """
        Assign the sockets to other workers, or to none. Connections in a socket's queue
        stay there.

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
        Set which workers are stalled.
        """
        self._stalled = workers
        self._assign()
        if workers:
            self._ring()

    def awaited(self, workers: Collection[int]) -> Set[int]:
        """
        Return those of the given workers for which connections wait at a socket.
        """
        theirs = {
            listener
            for worker in workers
            if worker in self._ready
            for listener in self._ready[worker].listeners
        }
        # A call for each socket: none, where the supervisor accepts.
        waiting = {
            (group, member)
            for group in {group for group, _ in theirs}
            for member, waits in enumerate(self._groups[group].have_waiting())
            if waits
        }
        return {
            worker
            for worker in workers
            if worker in self._ready and waiting & self._ready[worker].listeners.keys()
        }

    def ask(self, workers: Collection[int]) -> None:
        """
        Wake some workers, so that each writes a time stamp if it lives.
        """
        for worker in workers:
            if worker in self._ready:
                self._ready[worker].channel.send(Alive())

    def wake_for_waiting(self) -> None:
        """
        Wake the workers that accept from one socket, if connections wait there. The
        kernel has woken one for each; but that one may have been stopped before it
        accepted. It may even be another daemon's, in whose place this one is
        (`kvd.daemon.upgrade`), and which rings other bells.
        """
        shared = {
            group
            for worker in self._ready.values()
            for (group, _), exclusive in worker.listeners.items()
            if not exclusive
        }
        for group in shared:
            if any(self._groups[group].have_waiting()):
                ring(self._bells[group])

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
        See `Distribution`. The worker closes its sockets by itself.
        """
        self.left(worker)

    def left(self, worker: int) -> None:
        """
        See `Distribution`.
        """
        if self._ready.pop(worker, None) is not None:
            self._assign()
            self._ring()

    def _ring(self) -> None:
        """
        The kernel may have woken a worker that does not accept now.
        """
        for bell in self._bells.values():
            ring(bell)

    def received(self, worker: int, message: Message) -> None:
        """
        See `Distribution`.
        """
        if not isinstance(message, Unplaced):
            raise AssertionError(f"no message from a worker that accepts: {message}")
        if worker in self._ready:
            self._unplaced(self._ready[worker], message.name)

    def _unplaced(self, worker: _Worker, name: str) -> None:
        """
        A worker has no descriptor for a socket: another gets it, or, if there is
        none, the same one a moment later.
        """
        group, member = name.split("/")
        worker.listeners.pop((int(group), int(member)), None)
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
        See `Distribution`. From here on the workers have the only copies of the
        sockets: each empties its queues before it closes them. From sockets that
        another process keeps, nothing more is taken.
        """
        self._finished = True
        for _, worker in sorted(self._ready.items()):
            for listener in sorted(worker.listeners):
                group, member = listener
                if member < self._groups[group].given:
                    worker.channel.send(Unlisten(_name(listener)))
        for sockets in self._groups:
            sockets.close()
        return succeed(None)

    def close(self) -> None:
        """
        See `Distribution`.
        """
        if self._again is not None:
            self._again.cancel()
            self._again = None
        while self._bells:
            os.close(self._bells.popitem()[1])

    def _assign(self) -> None:
        if self._finished:
            return
        assigned: dict[int, dict[Listener, bool]] = {
            number: {} for number in self._ready
        }
        for group, sockets in enumerate(self._groups):
            for member in range(len(sockets.members)):
                listener = group, member
                exclusive = self._is_exclusive(listener)
                for number in self._workers_for(listener):
                    assigned[number][listener] = exclusive
        for number in sorted(self._ready):
            worker = self._ready[number]
            before, after = worker.listeners, assigned[number]
            for listener in sorted(before.keys() - after.keys()):
                worker.channel.send(Unlisten(_name(listener)))
            for listener, exclusive in sorted(after.items() - before.items()):
                group, member = listener
                sent = [self._groups[group].members[member].fileno()]
                if not exclusive:
                    sent.append(self._bell_of(group))
                worker.channel.send(Listen(_name(listener), exclusive), sent)
            worker.listeners = after

    def _bell_of(self, group: int) -> int:
        if group not in self._bells:
            self._bells[group] = make_bell()
        return self._bells[group]

    def _is_exclusive(self, listener: Listener) -> bool:
        """
        Whether the policy names one worker at most for a socket.
        """
        named = [self._names(own, listener) for own in self._members or ()]
        return sum(named) <= 1

    def _names(self, own: Collection[int], listener: Listener) -> bool:
        """
        Whether a socket is one of a worker's own, where there are as many as there are.
        """
        group, member = listener
        size = len(self._groups[group].members)
        return any(each % size == member for each in own)

    def _workers_for(self, listener: Listener) -> list[int]:
        members = self._members
        if members is None:
            return []
        able = [
            number
            for number, worker in sorted(self._ready.items())
            if listener in worker.listeners or not worker.full
        ]
        own = [
            number
            for number in able
            if self._names(members[number % len(members)], listener)
        ]
        others = [number for number in able if number not in self._stalled]
        if not set(own).isdisjoint(others):
            return own
        # Where no worker makes a turn, any of them may be the first to do so.
        others = others or able
        if not others:
            return own
        # A worker that took it over keeps it, so that a wave of starts moves it once.
        for number in others:
            if listener in self._ready[number].listeners:
                return sorted({*own, number})
        return sorted({*own, others[listener[1] % len(others)]})


def _name(listener: Listener) -> str:
    group, member = listener
    return f"{group}/{member}"
