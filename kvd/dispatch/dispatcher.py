"""
Accepting in the supervisor, and dealing the connections to workers.

Connections are accepted in batches, each one's worker is chosen, and each
worker gets its part of the batch with one message. What a worker does not
claim in time, or can no longer claim, is dealt again. While no worker is open
nothing is accepted: connections wait in the kernel's queue, and the few that
are accepted already wait here.
"""

from __future__ import annotations

import socket
import sys
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from kvd.dispatch.deciding import Decider
from kvd.dispatch.handover import Accepted, HandOver
from kvd.dispatch.scoreboard import Scoreboard
from kvd.dispatch.shadow import Shadow
from kvd.ipc.channel import Channel
from kvd.ipc.messages import MAX_DESCRIPTORS, Declined, Message, Settled
from kvd.model.view import View
from kvd.net.factory import ServerFactory
from kvd.net.listening import ListenerGroup
from kvd.net.port import Port

CLAIM_SECONDS: Final = 0.15
"""
What a worker has not claimed after so long is dealt again, if another claims what it
gets.
"""

JOIN_SECONDS: Final = 1.0
"""
Before another try to give a worker its counter, or to look at a socket, if the
supervisor itself is out of descriptors.
"""

BRING_SECONDS: Final = 1.0
"""
When the daemon ends, workers are told to drain after so long at the latest,
whether or not they have all that had connected.
"""

LOOK_SECONDS: Final = 0.025
"""
How often that is looked at, and whether workers are open again, while there is
something to wait for.
"""


class _Holding(ServerFactory):
    """
    Keeps what the supervisor accepts from a socket, for workers.
    """

    batch_size = MAX_DESCRIPTORS

    def __init__(
        self, held: deque[Accepted], deal: Callable[[], None], family: int
    ) -> None:
        self._held = held
        self._deal = deal
        self._family = family

    def take_descriptor(self, descriptor: int, *, shared: bool) -> bool:
        """
        See `ServerFactory.take_descriptor`.
        """
        self._held.append(Accepted(descriptor, self._family))
        return True

    def batch_accepted(self) -> None:
        """
        See `ServerFactory.batch_accepted`.
        """
        self._deal()


class Dealing:
    """
    Deals connections to the workers that have joined.

    A worker is open if it has no more than a few unclaimed connections, if its
    control socket takes messages, and if it has not reached its limit of
    connections.

    Provides `kvd.workers.pool.Distribution`.
    """

    _log = Logger()

    def __init__(
        self,
        decider: Decider | None,
        groups: Sequence[ListenerGroup],
        scoreboard: Scoreboard,
        max_connections: int,
        reactor: Any,
    ) -> None:
        """
        Args:
            decider: Chooses; None: the supervisor accepts nothing.
            groups: The sockets; closed when this finishes.
            scoreboard: How busy the workers are.
            max_connections: How many one worker may have open.
            reactor: Adopts the sockets, in kvd's way (`kvd.net.reactor`), and tells the
                time.
        """
        self.shadow: Shadow | None = None
        """Looks on, as soon as a batch is on its way."""
        self._decider = decider
        self._accepts = decider is not None
        self._groups = groups
        self._scoreboard = scoreboard
        self.max_connections = max_connections
        """May change."""
        self._reactor = reactor
        self._hands: dict[int, HandOver] = {}
        self._joining: dict[int, Any] = {}
        self._open: tuple[int, ...] = ()
        self._held: deque[Accepted] = deque()
        self._turn = 0
        self._random = Random()
        self._accepting = False
        self._finished = False
        self._look_call: Any = None
        self._brought: Deferred[None] | None = None
        self._bring_call: Any = None
        self._ports: dict[tuple[int, int], Port] = {}
        self._socket_call: Any = None
        self._look_for_sockets()

    def _look_for_sockets(self) -> None:
        self._socket_call = None
        try:
            for number, group in enumerate(self._groups):
                for member, sock in enumerate(group.members):
                    if (number, member) not in self._ports:
                        self._ports[number, member] = self._adopt(sock)
        except OSError as error:
            self._log.error(
                "connections at some sockets wait for now: {error}",
                error=error.strerror,
            )
            self._socket_call = self._reactor.callLater(
                JOIN_SECONDS, self._look_for_sockets
            )

    def _adopt(self, sock: socket.socket) -> Port:
        port: Port = self._reactor.adoptStreamPort(
            sock.fileno(),
            sock.family,
            _Holding(self._held, self._deal, sock.family),
        )
        if not self._accepting:
            port.pauseProducing()
        return port

    def _look_for_no_more(self) -> None:
        if self._socket_call is not None:
            self._socket_call.cancel()
            self._socket_call = None

    def deal_by(self, decider: Decider | None) -> None:
        """
        Let another choose from now on. Without one nothing more is accepted, and
        what is on its way arrives.

        Args:
            decider: As for the constructor.
        """
        self._look_for_no_more()
        self._look_for_sockets()
        # Workers that have accepted for themselves meanwhile may have no room left.
        self._find_open()
        self._accepts = decider is not None
        # Who chose so far, chooses for what has been accepted.
        self._decider = decider or self._decider
        self._deal()

    # -- what the pool tells --------------------------------------------------

    def joined(self, worker: int, channel: Channel) -> None:
        """
        See `Distribution`.
        """
        self._joining.pop(worker, None)
        try:
            self._hands[worker] = HandOver(channel)
        except OSError as error:
            self._log.error(
                "worker {worker} gets no connections for now: {error}",
                worker=worker,
                error=error.strerror,
            )
            self._joining[worker] = self._reactor.callLater(
                JOIN_SECONDS, self.joined, worker, channel
            )
            return
        self._find_open()
        self._deal()

    def leaving(self, worker: int) -> None:
        """
        See `Distribution`. What the worker has claimed, it may still decline.
        """
        self._join_no_more(worker)
        hand = self._hands.get(worker)
        if hand is not None:
            hand.leaving = True
            self._hold(hand.revoke())
            self._find_open()
            self._deal()

    def left(self, worker: int) -> None:
        """
        See `Distribution`.
        """
        self._join_no_more(worker)
        hand = self._hands.pop(worker, None)
        if hand is not None:
            self._hold(hand.close())
            self._find_open()
            self._deal()

    def _join_no_more(self, worker: int) -> None:
        call = self._joining.pop(worker, None)
        if call is not None:
            call.cancel()

    def heard(self, worker: int, message: Message) -> None:
        """
        See `Distribution`.
        """
        hand = self._hands.get(worker)
        if hand is None:
            # It has left, and its batches were seen to.
            return
        if isinstance(message, Settled):
            hand.settled(message.batch)
        elif isinstance(message, Declined):
            self._hold(hand.declined(message.batch, self._reactor.seconds()))
        else:
            raise AssertionError(f"no message from a worker: {message}")
        if len(self._open) < len(self._hands) or self._held or self._finished:
            self._find_open()
            self._deal()

    def handing_over(self, worker: int) -> int:
        """
        See `Distribution`.
        """
        hand = self._hands.get(worker)
        return 0 if hand is None else hand.waiting

    # -- dealing --------------------------------------------------------------

    def _hold(self, connections: Sequence[Accepted]) -> None:
        """
        Keep connections that came first for whoever is open next.
        """
        self._held.extendleft(reversed(connections))

    def _deal(self) -> None:
        """
        Deal all that is held, as far as workers are open.
        """
        try:
            while self._held and self._open:
                self._deal_batch()
        except Exception:
            # Out of here it would end an acceptor, or a worker's channel.
            self._log.failure("connections cannot be dealt for now")
            self._open = ()
        if self._finished:
            self._look_whether_brought()
        self._accept(bool(self._open) and self._accepts)
        self._look_later()

    def _deal_batch(self) -> None:
        connections = tuple(self._scoreboard.connections())
        dealt: defaultdict[int, list[Accepted]] = defaultdict(list)
        views: list[View] = []
        workers = self._choose(connections, views)
        for worker in workers:
            dealt[worker].append(self._held.popleft())
        now = self._reactor.seconds()
        for worker, chosen in dealt.items():
            hand = self._hands[worker]
            for alike in _by_family(chosen):
                if not hand.offer(alike, now):
                    self._hold(alike)
            if (
                not hand.is_open(now)
                or connections[worker] + hand.waiting >= self.max_connections
            ):
                self._open = _without(self._open, worker)
        if self.shadow is not None:
            self.shadow.look_on(views, workers)

    def _choose(self, connections: Sequence[int], views: list[View]) -> list[int]:
        """
        Choose the workers for a batch of what is held.

        Args:
            connections: How many each worker has open.
            views: Gets what each decision saw, if a shadow wants it.
        """
        ready = self._open
        requests = tuple(self._scoreboard.requests())
        handing_over = [0] * len(connections)
        for worker in ready:
            handing_over[worker] = self._hands[worker].waiting
        chosen: list[int] = []
        decider = self._decider
        assert decider is not None
        decider.begin()
        try:
            while ready and len(chosen) < min(len(self._held), MAX_DESCRIPTORS):
                view = View(
                    ready,
                    self._turn,
                    connections,
                    requests,
                    # Tuples: what a policy did to a list of ours would stay.
                    tuple(handing_over),
                    self._random,
                )
                worker = decider.choose(view)
                chosen.append(worker)
                if self.shadow is not None:
                    views.append(view)
                handing_over[worker] += 1
                self._turn = (worker + 1) % len(connections)
                if connections[worker] + handing_over[worker] >= self.max_connections:
                    ready = _without(ready, worker)
        finally:
            decider.end()
        return chosen

    def _find_open(self) -> None:
        now = self._reactor.seconds()
        connections = self._scoreboard.connections()
        self._open = tuple(
            worker
            for worker, hand in sorted(self._hands.items())
            if hand.is_open(now)
            and connections[worker] + hand.waiting < self.max_connections
        )

    def _accept(self, accepting: bool) -> None:
        if accepting != self._accepting and not self._finished:
            self._accepting = accepting
            for port in self._ports.values():
                if accepting:
                    port.resumeProducing()
                else:
                    port.pauseProducing()

    # -- what takes too long --------------------------------------------------

    def _look_later(self) -> None:
        if self._look_call is None and (
            self._held
            or len(self._open) < len(self._hands)
            or any(hand.waiting for hand in self._hands.values())
        ):
            self._look_call = self._reactor.callLater(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._look_call = None
        self._find_open()
        self._take_back()
        self._find_open()
        self._deal()

    def _take_back(self) -> None:
        """
        Give what was not claimed in time to those who claim what they get; to each no
        more than one worker had. Where requests keep all workers for long, the first
        to be done would else get everything, and the others would be idle next.
        """
        now = self._reactor.seconds()
        late: list[tuple[float, int]] = []
        prompt: list[int] = []
        for worker, hand in sorted(self._hands.items()):
            oldest = hand.oldest()
            if oldest is not None and oldest <= now - CLAIM_SECONDS:
                late.append((oldest, worker))
            elif worker in self._open and (
                oldest is None or oldest > now - LOOK_SECONDS
            ):
                prompt.append(worker)
        if not (late and prompt):
            return
        for _, worker in sorted(late)[: len(prompt)]:
            self._hold(self._hands[worker].revoke())
        self._open = tuple(prompt)
        self._deal()

    # -- the end --------------------------------------------------------------

    def finish(self) -> Deferred[None]:
        """
        See `Distribution`. What waits in the queues is accepted and dealt, but not in
        those of sockets that are another's, who keeps them.
        """
        # Who was let in is served, as where workers empty the queues.
        self.max_connections = sys.maxsize
        if self._accepts:
            for (number, member), port in self._ports.items():
                if member >= self._groups[number].given:
                    port.empty()
        self._finished = True
        self._look_for_no_more()
        for port in self._ports.values():
            port.stopListening()
        for group in self._groups:
            group.close()
        brought = self._brought = Deferred()
        self._bring_call = self._reactor.callLater(BRING_SECONDS, self._end_bringing)
        self._find_open()
        self._deal()
        return brought

    def _look_whether_brought(self) -> None:
        if not self._hands:
            self._close_held()
        if not (self._held or any(hand.waiting for hand in self._hands.values())):
            self._end_bringing()

    def _end_bringing(self) -> None:
        if self._brought is not None:
            brought, self._brought = self._brought, None
            if self._bring_call.active():
                self._bring_call.cancel()
            brought.callback(None)

    def close(self) -> None:
        """
        See `Distribution`.
        """
        if self._look_call is not None:
            self._look_call.cancel()
            self._look_call = None
        self._end_bringing()
        for worker in list(self._joining):
            self._join_no_more(worker)
        for worker in list(self._hands):
            self._hold(self._hands.pop(worker).close())
        self._open = ()
        self._close_held()

    def _close_held(self) -> None:
        for connection in self._held:
            connection.close()
        self._held.clear()


def _without(workers: tuple[int, ...], worker: int) -> tuple[int, ...]:
    return tuple(other for other in workers if other != worker)


def _by_family(connections: Sequence[Accepted]) -> Iterable[list[Accepted]]:
    """
    The connections in lists of one family each; as a rule there is one.
    """
    families: dict[int, list[Accepted]] = {}
    for connection in connections:
        families.setdefault(connection.family, []).append(connection)
    return families.values()
