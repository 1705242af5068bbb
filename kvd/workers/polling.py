"""
Who accepts from which socket, where the kernel chooses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from kvd.interfaces import IDispatchPolicy
from kvd.listening import ListenerGroup
from kvd.workers.channel import Channel
from kvd.workers.messages import Listen, Message, Unlisten

Member = tuple[int, int]
"""
A listening socket: the number of its group, and its own in the group.
"""


@dataclass
class _Worker:
    channel: Channel
    polls: set[Member] = field(default_factory=set)


class Polling:
    """
    Gives each listening socket to the workers that the policy names, or to a
    ready one in their stead while none of them is.

    Provides `kvd.workers.pool.Distribution`.
    """

    def __init__(
        self, policy: IDispatchPolicy, groups: Sequence[ListenerGroup], workers: int
    ) -> None:
        """
        Args:
            policy: Says who polls what.
            groups: The sockets; closed when this finishes.
            workers: How many workers there should be.
        """
        self._policy = policy
        self._groups = groups
        self._workers = workers
        self._ready: dict[int, _Worker] = {}

    def joined(self, worker: int, channel: Channel) -> None:
        """
        See `Distribution`.
        """
        self._ready[worker] = _Worker(channel)
        self._assign()

    def leaving(self, worker: int) -> None:
        """
        See `Distribution`. The worker has let go of its sockets by itself.
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
        raise AssertionError(f"no message from a worker that polls: {message}")

    def handing_over(self, worker: int) -> int:
        """
        See `Distribution`.
        """
        return 0

    def finish(self) -> None:
        """
        See `Distribution`. The workers hold the only copies of the sockets
        then: each empties its queues before it closes them.
        """
        for group in self._groups:
            group.close()

    def close(self) -> None:
        """
        See `Distribution`.
        """

    def _assign(self) -> None:
        if not self._ready:
            return
        wanted: dict[int, set[Member]] = {number: set() for number in self._ready}
        for group, sockets in enumerate(self._groups):
            for member in range(len(sockets.members)):
                for number in self._pollers((group, member)):
                    wanted[number].add((group, member))
        for number in sorted(self._ready):
            worker = self._ready[number]
            for polled in sorted(worker.polls - wanted[number]):
                worker.channel.send(Unlisten(_name(polled)))
            for polled in sorted(wanted[number] - worker.polls):
                sock = self._groups[polled[0]].members[polled[1]]
                worker.channel.send(Listen(_name(polled)), [sock.fileno()])
            worker.polls = wanted[number]

    def _pollers(self, polled: Member) -> list[int]:
        size = len(self._groups[polled[0]].members)
        own = [
            number
            for number in self._ready
            if polled[1]
            in {m % size for m in self._policy.members_of(number, self._workers)}
        ]
        if own:
            return own
        # Who took it over keeps it, so that a wave of starts moves it once.
        ready = sorted(self._ready)
        for number in ready:
            if polled in self._ready[number].polls:
                return [number]
        return [ready[polled[1] % len(ready)]]


def _name(polled: Member) -> str:
    return f"{polled[0]}/{polled[1]}"
