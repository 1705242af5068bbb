"""
The workers of one machine and their queues, simulated event by event.

A worker serves one request at a time. Requests that arrive meanwhile wait in its own
queue, in the order of their arrival. A connection belongs to the same worker for as
long as it lasts.

=================  =========================================================
policy             where a connection waits
=================  =========================================================
the supervisor     at the worker that `choose` named when it arrived
chooses
a socket for       the same: the kernel's choice is final, and `choose` is
each worker        the policy's model of it
one socket for     in the common queue until a worker takes it. If workers
all                are idle, `choose`, the policy's model, names the first of
                   them. If none is, a worker takes one connection between two
                   requests (`kvd.net.port`)
and gates          the same, but each worker asks its own gate first, the
                   policy's `accepts`. If the gate is closed, the connection
                   waits, and each idle worker asks again every millisecond
                   (`kvd.dispatch.gate`)
=================  =========================================================

The view is exact: it shows all connections that were assigned, and each close before
the next choice. A connection that was handed over is on its way until its first request
(`Load.lag`), since a worker reads right after it acknowledged one. Requests are those
that have arrived; with a common socket, those in service, since no worker has read
others. There is a single `View`, whose sequences are the lists in which the simulation
counts, since a new view for each of a million choices would cost more than most
choices.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from heapq import heappush
from random import Random
from typing import Final

from kvd.interfaces import IDispatchPolicy, IGatedPolicy
from kvd.lab.simulate.gating import Gates
from kvd.lab.simulate.load import Load
from kvd.lab.simulate.outcome import BadChoice
from kvd.model.view import View
from kvd.net.port import GATE_SECONDS

NONE: Final = -1


class Course:
    """
    What the machines of a simulation share: the time, the events, and how far each
    client is.
    """

    def __init__(self, load: Load, workers: int) -> None:
        """
        Args:
            load: The clients and their requests.
            workers: Of all machines together.
        """
        clients = len(load.begins)
        self.load = load
        self.workers = workers
        self.now = 0.0
        self.events: list[tuple[float, int]] = []
        """Moments, each with the number of a worker whose request ends; with that of
        a client that goes on, behind all workers; or with that of a worker that asks
        its gate again, negative, from -1 down."""
        self.busy = self.waiting = 0
        self.next = list(load.first[:clients])
        """The next request of each client."""
        self.since = [0.0] * clients
        """When each client's request arrived."""
        self.worker_of = [NONE] * clients
        """The worker, within its machine, that each client is connected to."""
        self.waits: list[float] = []


class Machine:
    """
    Serves the clients that are connected to it.
    """

    def __init__(
        self,
        course: Course,
        policy: IDispatchPolicy,
        workers: int,
        first: int,
        chance: Random,
        closed: Callable[[int], object],
        replied: Callable[[int], object],
    ) -> None:
        """
        Args:
            course: Of the simulation.
            policy: Chooses the workers.
            workers: Their number.
            first: The number of the first of them among those of all machines.
            chance: The policy may use it.
            closed: Called with a client whose connection has ended.
            replied: Called with a client that has another request to send.
        """
        self._course = course
        self._load = course.load
        self._workers = workers
        self._first = first
        self._closed = closed
        self._replied = replied
        self._choose = policy.choose
        self._hands_over = not policy.kernel_chooses
        # Whether connections wait in one queue, rather than at a worker.
        self._common = policy.kernel_chooses and policy.group_size(workers) < workers
        self._accept_queue: deque[int] = deque()
        self._queues: list[deque[int]] = [deque() for _ in range(workers)]
        self._idle = list(range(workers))
        self._serves = [NONE] * workers

        self._open = [0] * workers
        self._handing_over = [0] * workers
        self._on_its_way: set[int] = set()
        self._requests = [0] * workers
        self._view = View(
            ready=self._idle if self._common else tuple(range(workers)),
            turn=0,
            connections=self._open,
            requests=self._requests,
            handing_over=self._handing_over,
            random=chance,
        )

        self._gates: Gates | None = None
        if self._common and IGatedPolicy.providedBy(policy):
            all_workers = replace(self._view, ready=tuple(range(workers)))
            self._gates = Gates(policy.accepts, all_workers)
        # Idle workers that will ask their gate again.
        self._asking: set[int] = set()

        self.got = [0] * workers
        """How many connections each worker got."""
        self.served = [0] * workers
        """How many requests each worker served."""
        self.busy_seconds = [0.0] * workers

    # -- clients --------------------------------------------------------------

    def connect(self, client: int) -> None:
        """
        A client opens a connection, which brings its next request.
        """
        if self._common and not self._idle:
            self._queue(client)
            return
        worker = self._chosen()
        if self._gates and (self._accept_queue or not self._may(worker)):
            self._queue(client)
            for idle in tuple(self._idle):
                self._ask(idle)
            return
        self._join(client, worker)
        lag = self._load.lag
        if lag:
            if self._hands_over:
                self._on_its_way.add(client)
                self._open[worker] -= 1
                self._handing_over[worker] += 1
            heappush(
                self._course.events,
                (self._course.now + lag, self._course.workers + client),
            )
        else:
            self._request(client, worker)

    def _queue(self, client: int) -> None:
        self._course.since[client] = self._course.now
        self._accept_queue.append(client)
        self._course.waiting += 1

    def _chosen(self) -> int:
        try:
            worker = self._choose(self._view)
        except Exception as error:
            raise BadChoice(f"failed with {type(error).__name__}: {error}") from error
        if (
            type(worker) is int
            and 0 <= worker < self._workers
            and not (self._common and self._serves[worker] != NONE)
        ):
            return worker
        raise BadChoice(f"chose {worker!r}, which is no ready worker")

    def _join(self, client: int, worker: int) -> None:
        self._course.worker_of[client] = worker
        self._open[worker] += 1
        self.got[worker] += 1
        # The only field that is not a sequence; policies see it as frozen.
        object.__setattr__(self._view, "turn", (worker + 1) % self._workers)

    def _request(self, client: int, worker: int) -> None:
        if not self._common:
            self._requests[worker] += 1
        self._course.since[client] = self._course.now
        if self._serves[worker] == NONE:
            self._wake(worker)
            self._begin(client, worker)
        else:
            self._queues[worker].append(client)
            self._course.waiting += 1

    def go_on(self, client: int) -> None:
        """
        A client that is connected sends its next request, or the first behind its
        connection.
        """
        worker = self._course.worker_of[client]
        if client in self._on_its_way:
            self._on_its_way.discard(client)
            self._handing_over[worker] -= 1
            self._open[worker] += 1
        self._request(client, worker)

    # -- workers --------------------------------------------------------------

    def _wake(self, worker: int) -> None:
        self._course.busy += 1
        if self._common:
            self._idle.remove(worker)

    def _begin(self, client: int, worker: int) -> None:
        if self._common:
            self._requests[worker] += 1
        number = self._course.next[client]
        self._course.next[client] = number + 1
        self._course.waits.append(self._course.now - self._course.since[client])
        self._serves[worker] = client
        self.served[worker] += 1
        seconds = self._load.services[number]
        self.busy_seconds[worker] += seconds
        heappush(
            self._course.events, (self._course.now + seconds, self._first + worker)
        )

    def end(self, worker: int) -> None:
        """
        The request that a worker serves has ended.
        """
        load = self._load
        client = self._serves[worker]
        first, number = load.first[client], self._course.next[client]
        stays = number < load.first[client + 1]
        self._requests[worker] -= 1
        if not stays or (load.reuse and (number - first) % load.reuse == 0):
            self._open[worker] -= 1
            self._course.worker_of[client] = NONE
            self._closed(client)
        self._next_of(worker)
        if stays:
            self._replied(client)

    def _next_of(self, worker: int) -> None:
        """
        Between two requests.
        """
        queue = self._queues[worker]
        if self._accept_queue and self._may(worker):
            client = self._accept_queue.popleft()
            self._join(client, worker)
            queue.append(client)
        if queue:
            self._course.waiting -= 1
            self._begin(queue.popleft(), worker)
            return
        self._serves[worker] = NONE
        self._course.busy -= 1
        if self._common:
            insort(self._idle, worker)
            if self._accept_queue:
                self._ask_later(worker)

    # -- gates ----------------------------------------------------------------

    def _may(self, worker: int) -> bool:
        if self._gates is None:
            return True
        # A connection that has just arrived is not queued yet.
        waiting = max(1, len(self._accept_queue))
        return self._gates.is_open(worker, self._course.now, waiting)

    def _ask_later(self, worker: int) -> None:
        if worker not in self._asking:
            self._asking.add(worker)
            heappush(
                self._course.events,
                (self._course.now + GATE_SECONDS, -1 - self._first - worker),
            )

    def ask_again(self, worker: int) -> None:
        """
        An idle worker asks its gate again, a while after it was closed.
        """
        self._asking.discard(worker)
        if self._serves[worker] == NONE:
            self._ask(worker)

    def _ask(self, worker: int) -> None:
        """
        An idle worker asks its gate, and takes the connection that has waited longest.
        """
        if worker in self._asking:
            return
        if not self._accept_queue:
            if self._gates is not None:
                self._gates.none_waits(worker)
            return
        if not self._may(worker):
            self._ask_later(worker)
            return
        client = self._accept_queue.popleft()
        self._course.waiting -= 1
        self._join(client, worker)
        self._wake(worker)
        self._begin(client, worker)
