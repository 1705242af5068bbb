"""
The dispatcher: the supervisor accepts connections and hands them to workers.

It accepts connections in batches, chooses a worker for each, and sends each worker its
part of the batch in one message. Connections that a worker does not take in time, or
can no longer take, go to another. While no worker is open it accepts nothing:
connections wait in the kernel's queue, and the few that are accepted already wait here.
"""

from __future__ import annotations

import sys
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from itertools import count
from random import Random
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from kvd.dispatch.deciding import Decider
from kvd.dispatch.handover import ASK_WAITING, HandOver
from kvd.dispatch.lane import Lane, close_all
from kvd.dispatch.lone import Lone, make_lone
from kvd.dispatch.ports import Ports
from kvd.dispatch.primitives import Accepted, accept, make_view
from kvd.dispatch.shadow import Shadow
from kvd.ipc.channel import Channel
from kvd.ipc.messages import MAX_DESCRIPTORS, Acknowledged, Message, Refused
from kvd.ipc.scoreboard import Scoreboard
from kvd.model.view import View, whose_turn
from kvd.net.listening import ListenerGroup

CREDIT_SECONDS: Final = 0.15
"""
A batch that a worker has not taken after this time goes to others, if there is one that
takes what it gets.
"""

SIGN_SECONDS: Final = 0.1
"""
A worker that has written no time stamp for this time is asked for one before it gets
late batches: it may be stopped too, and each one would keep them for as long again.
"""

JOIN_SECONDS: Final = 1.0
"""
Before another try to give a worker its counter of credits, if the supervisor itself is
out of descriptors.
"""

DELIVER_SECONDS: Final = 1.0
"""
When the daemon ends, workers drain after this time at the latest, whether or not they
have all connections.
"""

LOOK_SECONDS: Final = 0.025
"""
How often to look whether workers are open again, and whether they have taken batches
that are late, while there is something to wait for.
"""


class Dispatcher:
    """
    Hands connections to the workers that have joined.

    A worker is open if it has only a few unacknowledged connections, its control socket
    takes messages, and it has not reached its limit of connections.

    Provides `kvd.workers.distribution.Distribution`.
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
            decider: Chooses the worker; None: the supervisor accepts nothing.
            groups: The listening sockets; closed when this finishes.
            scoreboard: Shows how busy the workers are.
            max_connections: How many connections one worker may have open.
            reactor: Adopts the sockets (`kvd.net.reactor`) and provides the time.
        """
        self._shadow: Shadow | None = None
        self._decider = decider
        self._accepts = decider is not None
        self._scoreboard = scoreboard
        self._max_connections = max_connections
        self._reactor = reactor
        self._hands: dict[int, HandOver] = {}
        self._numbers = count(1)
        self._lanes: list[Lane | None] = []
        self._joining: dict[int, Any] = {}
        self._open: tuple[int, ...] = ()
        self._held: deque[Accepted] = deque()
        self._random = Random()
        self._finished = False
        self._look_call: Any = None
        self._looks_soon = False
        self._delivered: Deferred[None] | None = None
        self._deliver_call: Any = None
        self._ports = Ports(groups, self._held, self._dispatch, reactor)
        self._lone: Lone = make_lone(
            scoreboard,
            self._random,
            self._numbers,
            reactor.seconds,
            self._ports.listeners,
            self._held,
            self._accept_from,
            self._dispatch,
        )
        reactor.serve_readable = self._lone.accept_from
        self._ports.adopt()

    @property
    def shadow(self) -> Shadow | None:
        """
        Asked about each batch, once it is on its way. May be set.
        """
        return self._shadow

    @shadow.setter
    def shadow(self, shadow: Shadow | None) -> None:
        self._shadow = shadow
        self._leave_usual()

    @property
    def max_connections(self) -> int:
        """
        How many connections one worker may have open. May be set.
        """
        return self._max_connections

    @max_connections.setter
    def max_connections(self, max_connections: int) -> None:
        self._max_connections = max_connections
        self._find_open()
        self._dispatch()

    def dispatch_by(self, decider: Decider | None) -> None:
        """
        Let another policy choose from now on. Without one nothing more is accepted;
        what is on its way arrives.

        Args:
            decider: As for the constructor.
        """
        self._ports.adopt()
        # Workers that accepted for themselves meanwhile may have no room left.
        self._find_open()
        self._accepts = decider is not None
        # The policy so far chooses for what is accepted already.
        self._decider = decider or self._decider
        self._dispatch()

    # -- events from the pool -------------------------------------------------

    def joined(self, worker: int, channel: Channel) -> None:
        """
        See `Distribution`.
        """
        self._joining.pop(worker, None)
        try:
            hand = HandOver(channel, self._scoreboard.batches(worker), self._numbers)
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
        self._hands[worker] = hand
        self._lanes += [None] * (worker + 1 - len(self._lanes))
        self._lanes[worker] = hand.lane
        self._find_open()
        self._dispatch()

    def leaving(self, worker: int) -> None:
        """
        See `Distribution`. The worker may still refuse what it has taken.
        """
        self._join_no_more(worker)
        hand = self._hands.get(worker)
        if hand is not None:
            hand.leaving = True
            self._hold(hand.revoke())
            self._find_open()
            self._dispatch()

    def left(self, worker: int) -> None:
        """
        See `Distribution`.
        """
        self._join_no_more(worker)
        hand = self._hands.pop(worker, None)
        if hand is not None:
            self._lanes[worker] = None
            self._hold(hand.close())
            self._find_open()
            self._dispatch()

    def _join_no_more(self, worker: int) -> None:
        call = self._joining.pop(worker, None)
        if call is not None:
            call.cancel()

    def received(self, worker: int, message: Message) -> None:
        """
        See `Distribution`.
        """
        hand = self._hands.get(worker)
        if hand is None:
            # It has left, and its batches went to others.
            return
        if isinstance(message, Acknowledged):
            hand.lane.acknowledged(message.batch)
        elif isinstance(message, Refused):
            self._hold(hand.refused(message.batch, self._reactor.seconds()))
        else:
            raise AssertionError(f"no message from a worker: {message}")
        if len(self._open) < len(self._hands) or self._held or self._finished:
            self._find_open()
            self._dispatch()

    def handing_over(self, worker: int) -> int:
        """
        See `Distribution`.
        """
        hand = self._hands.get(worker)
        if hand is None:
            return 0
        hand.lane.read_done()
        return hand.lane.waiting

    # -- dispatching ----------------------------------------------------------

    def _hold(self, connections: Sequence[Accepted]) -> None:
        """
        Put connections at the front of the queue for the next open worker.
        """
        self._held.extendleft(reversed(connections))

    def _accept_from(self, descriptor: int) -> bool:
        """
        Accept what waits at a socket, and hand it over. See
        `WorkerReactor.serve_readable`.
        """
        if self._ports.accepting:
            most = MAX_DESCRIPTORS - len(self._held)
            try:
                self._held += accept(
                    descriptor, self._ports.listeners[descriptor], most
                )
            except OSError:
                # None waits; or its port meets the error again, and copes with it.
                pass
        if not self._held:
            return False
        self._dispatch()
        return True

    def _dispatch(self) -> None:
        """
        Hand over the held connections, as long as workers are open.
        """
        hands = self._hands
        # Connections are counted afterwards: what is no longer on its way has been
        # counted then.
        self._read_done()
        try:
            while self._held and self._open:
                self._dispatch_batch()
        except Exception:
            # An exception that escaped would end a port, or a worker's channel.
            self._log.failure("connections cannot be handed over for now")
            self._open = ()
        if self._finished:
            self._check_delivered()
        accepting = bool(self._open) and self._accepts
        if accepting != self._ports.accepting and not self._finished:
            self._ports.accept(accepting)
        soon = bool(
            self._held or len(self._open) < len(hands) or self._delivered is not None
        )
        if soon or self._look_call is None:
            self._look_later(soon)
        self._be_usual()

    def _be_usual(self) -> None:
        """
        Leave lone connections to `Lone`, if nothing is unusual.
        """
        lone, decider = self._lone, self._decider
        if (
            decider is None
            or not self._ports.accepting
            or self._held
            or self._finished
            or self._shadow is not None
        ):
            lone.ready = ()
            return
        decider.be_heard()
        lone.lanes = self._lanes
        lone.ask = decider.ask
        lone.whose_turn = whose_turn
        lone.timer = decider.timer
        lone.most_connections = self._max_connections
        lone.most_waiting = ASK_WAITING
        lone.looks = self._look_call is not None
        lone.ready = self._open

    def _leave_usual(self) -> None:
        """
        Have the next connection come to this, whatever it is.
        """
        self._lone.ready = ()

    def _dispatch_batch(self) -> None:
        connections, requests = self._scoreboard.tasks()
        parts: defaultdict[int, list[Accepted]] = defaultdict(list)
        views: list[View] = []
        workers = self._choose(connections, requests, views)
        for worker in workers:
            parts[worker].append(self._held.popleft())
        now = self._reactor.seconds()
        for worker, chosen in parts.items():
            hand = self._hands[worker]
            room = self._max_connections - connections[worker] - hand.lane.waiting
            is_full = len(chosen) >= room
            for alike in _by_group(chosen):
                # What it serves at once makes room again.
                if not hand.offer(alike, now, asks=is_full or self._finished):
                    self._hold(alike)
            if is_full or not hand.is_open(now):
                self._open = _without(self._open, worker)
        if self._shadow is not None:
            self._shadow.look_on(views, workers)

    def _choose(
        self, connections: Sequence[int], requests: Sequence[int], views: list[View]
    ) -> list[int]:
        """
        Choose a worker for each connection of a batch of those held.

        Args:
            connections: How many each worker has open.
            requests: How many each worker has in progress.
            views: Gets the view of each decision, if there is a shadow.
        """
        ready = self._open
        handing_over = [0] * len(connections)
        for worker in ready:
            handing_over[worker] = self._hands[worker].lane.waiting
        chosen: list[int] = []
        decider = self._decider
        assert decider is not None
        decider.begin()
        try:
            while ready and len(chosen) < min(len(self._held), MAX_DESCRIPTORS):
                # Tuples, since a policy could change a list.
                on_their_way = tuple(handing_over)
                view = make_view(
                    (
                        ready,
                        self._lone.turn,
                        connections,
                        requests,
                        on_their_way,
                        self._random,
                        1,
                    )
                )
                answer = decider.ask(view)
                worker = whose_turn(view) if answer is None else answer
                chosen.append(worker)
                if self._shadow is not None:
                    views.append(view)
                handing_over[worker] += 1
                self._lone.turn = (worker + 1) % len(connections)
                if connections[worker] + handing_over[worker] >= self._max_connections:
                    ready = _without(ready, worker)
        finally:
            decider.end()
        return chosen

    def _read_done(self) -> None:
        """
        Find what is no longer on its way.
        """
        for hand in self._hands.values():
            if hand.lane.waiting or hand.lane.revoked:
                hand.lane.read_done()

    def _find_open(self) -> None:
        self._read_done()
        now = self._reactor.seconds()
        connections, _ = self._scoreboard.tasks()
        self._open = tuple(
            worker
            for worker, hand in sorted(self._hands.items())
            if hand.is_open(now)
            and connections[worker] + hand.lane.waiting < self._max_connections
        )

    # -- late batches ---------------------------------------------------------

    def _look_later(self, soon: bool) -> None:
        if self._look_call is not None:
            if self._looks_soon or not soon:
                return
            self._look_call.cancel()
            self._look_call = None
        seconds = LOOK_SECONDS
        if not soon:
            left = self._until_late()
            if left is None:
                return
            seconds = max(seconds, left)
        self._looks_soon = soon
        self._look_call = self._reactor.callLater(seconds, self._look)

    def _until_late(self) -> float | None:
        """
        The time until the oldest batch on its way is late; None: there is none.
        """
        sent = [
            since
            for hand in self._hands.values()
            if hand.lane.waiting and (since := hand.lane.oldest()) is not None
        ]
        if not sent:
            return None
        return min(sent) + CREDIT_SECONDS - float(self._reactor.seconds())

    def _look(self) -> None:
        self._look_call = None
        self._leave_usual()
        if not self._looks_soon:
            # All workers are open, and nothing waits here.
            self._read_done()
            left = self._until_late()
            if left is None or left > 0:
                self._dispatch()
                return
        self._find_open()
        self._revoke_late()
        self._dispatch()

    def _revoke_late(self) -> None:
        """
        Give late batches to workers that take theirs promptly, to each no more than
        one worker had. Where requests keep all workers for long, the first that is done
        would otherwise get everything, and the others would be idle next.
        """
        now = self._reactor.seconds()
        late: list[tuple[float, int]] = []
        prompt: list[int] = []
        for worker, hand in sorted(self._hands.items()):
            oldest = hand.lane.oldest()
            if oldest is not None and oldest <= now - CREDIT_SECONDS:
                late.append((oldest, worker))
            elif worker in self._open and (
                oldest is None or oldest > now - LOOK_SECONDS
            ):
                prompt.append(worker)
        if late:
            prompt = self._responding(prompt, now)
        if not (late and prompt):
            return
        revoked: list[Accepted] = []
        left = len(prompt)
        for _, worker in sorted(late):
            untaken = self._hands[worker].revoke()
            revoked += untaken
            # One that has taken all it got gives nothing up: it would keep the others'
            # connections for as long as it hangs.
            left -= bool(untaken)
            if not left:
                break
        self._hold(revoked)
        self._open = tuple(prompt)
        self._dispatch()
        self._find_open()

    def _responding(self, workers: Sequence[int], now: float) -> list[int]:
        """
        Those of some workers that have given a sign of life a moment ago. The others
        are asked for one.
        """
        silent = self._scoreboard.silent_seconds()
        responding: list[int] = []
        for worker in workers:
            if silent[worker] <= SIGN_SECONDS:
                responding.append(worker)
            else:
                self._hands[worker].ask(now, now - silent[worker])
        return responding

    # -- the end --------------------------------------------------------------

    def finish(self) -> Deferred[None]:
        """
        See `Distribution`. Connections that wait in the queues are accepted and handed
        over, but not those at sockets that another process keeps.
        """
        # Clients that are connected are served, as when workers empty the queues.
        self.max_connections = sys.maxsize
        if self._accepts:
            self._ports.empty()
        self._finished = True
        self._ports.close()
        delivered = self._delivered = Deferred()
        self._deliver_call = self._reactor.callLater(
            DELIVER_SECONDS, self._end_delivery
        )
        self._find_open()
        self._dispatch()
        return delivered

    def _check_delivered(self) -> None:
        if not self._hands:
            self._close_held()
        if not (self._held or any(hand.lane.waiting for hand in self._hands.values())):
            self._end_delivery()

    def _end_delivery(self) -> None:
        if self._delivered is not None:
            delivered, self._delivered = self._delivered, None
            if self._deliver_call.active():
                self._deliver_call.cancel()
            delivered.callback(None)

    def close(self) -> None:
        """
        See `Distribution`.
        """
        if self._look_call is not None:
            self._look_call.cancel()
            self._look_call = None
        self._end_delivery()
        for worker in list(self._joining):
            self._join_no_more(worker)
        for worker in list(self._hands):
            self._hold(self._hands.pop(worker).close())
        self._open = ()
        self._lone.close()
        self._close_held()

    def _close_held(self) -> None:
        close_all(self._held)
        self._held.clear()


def _without(workers: tuple[int, ...], worker: int) -> tuple[int, ...]:
    return tuple(other for other in workers if other != worker)


def _by_group(connections: Sequence[Accepted]) -> Iterable[list[Accepted]]:
    """
    Split connections into lists of one address each; usually there is one address.
    """
    if len(connections) == 1:
        return (list(connections),)
    groups: dict[int, list[Accepted]] = {}
    for connection in connections:
        groups.setdefault(connection[1], []).append(connection)
    return groups.values()
