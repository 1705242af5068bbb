"""
A load, simulated event by event: clients, machines, and what balances between them.

`kvd.lab.simulate.machine` has the workers. With several machines, each new connection
first gets a machine, from one of the balancers (`kvd.lab.simulate.balancing`), and then
a worker of it, from the policy. It stays with both. A client that connects again may
get others.

Events of the same time are ordered: gates that are asked again and ends of requests, by
the worker's number, then returning clients, then new ones. So a seed always has the
same outcome.
"""

from __future__ import annotations

from heapq import heappop, heappush
from random import Random

from kvd.interfaces import IDispatchPolicy
from kvd.lab.simulate.balancing import ALONE, Balancing, Fleet
from kvd.lab.simulate.load import Load
from kvd.lab.simulate.machine import NONE, Course, Machine
from kvd.lab.simulate.outcome import FEW, Outcome


class Simulation:
    """
    One load under one policy.
    """

    def __init__(
        self,
        load: Load,
        policy: IDispatchPolicy,
        workers: int,
        seed: int = 0,
        fleet: Fleet = ALONE,
    ) -> None:
        """
        Args:
            load: The clients and their requests.
            policy: Chooses the workers, on each machine.
            workers: Their number, of all machines together.
            seed: Of the random numbers that policies and balancers may use.
            fleet: The machines, which have equal parts of the workers.
        """
        each = workers // fleet.machines
        assert each * fleet.machines == workers
        self._each = each
        self._course = Course(load, workers)
        self._machine_of = [0] * len(load.begins)
        self._balancing = (
            None if fleet.machines == 1 else Balancing(fleet, Random(f"fleet {seed}"))
        )
        self._machines = [
            Machine(
                self._course,
                policy,
                each,
                number * each,
                Random(f"{seed} {number}" if number else seed),
                self._closed,
                self._replied,
            )
            for number in range(fleet.machines)
        ]
        self._few = int(FEW * workers)
        self._seconds_with_busy = [0.0] * (workers + 1)
        self._idle_while_queued = self._wasted = self._many_until = 0.0

    def run(self) -> Outcome:
        """
        From the first connection to the last reply; once.

        Raises:
            BadChoice: By the policy.
        """
        course, machines, each = self._course, self._machines, self._each
        events, begins, workers = course.events, course.load.begins, course.workers
        come, clients = 0, len(begins)
        while events or come < clients:
            if events and (come == clients or events[0][0] <= begins[come]):
                now, code = heappop(events)
                self._pass_time(now)
                if code >= workers:
                    self._go_on(code - workers)
                elif code >= 0:
                    machines[code // each].end(code % each)
                else:
                    worker = -1 - code
                    machines[worker // each].ask_again(worker % each)
            else:
                self._pass_time(begins[come])
                self._connect(come)
                come += 1
        return Outcome(
            course.now,
            course.waits,
            [count for machine in machines for count in machine.got],
            [count for machine in machines for count in machine.served],
            [seconds for machine in machines for seconds in machine.busy_seconds],
            self._seconds_with_busy,
            self._idle_while_queued,
            self._wasted,
            course.now - self._many_until,
        )

    def _pass_time(self, now: float) -> None:
        course = self._course
        seconds = now - course.now
        if not seconds:
            return
        busy = course.busy
        self._seconds_with_busy[busy] += seconds
        if busy > self._few:
            self._many_until = now
        if course.waiting and busy < course.workers:
            self._idle_while_queued += seconds
            self._wasted += seconds * min(course.waiting, course.workers - busy)
        course.now = now

    def _connect(self, client: int) -> None:
        machine = 0
        if self._balancing is not None:
            machine = self._machine_of[client] = self._balancing.choose(client)
        self._machines[machine].connect(client)

    def _closed(self, client: int) -> None:
        if self._balancing is not None:
            self._balancing.closed(client, self._machine_of[client])

    def _replied(self, client: int) -> None:
        """
        A client has its reply, and further requests to send.
        """
        course = self._course
        pauses = course.load.pauses
        if pauses is not None and pauses[client]:
            heappush(
                course.events, (course.now + pauses[client], course.workers + client)
            )
        else:
            self._go_on(client)

    def _go_on(self, client: int) -> None:
        """
        A client sends its next request, or the first behind its connection.
        """
        if self._course.worker_of[client] == NONE:
            self._connect(client)
        else:
            self._machines[self._machine_of[client]].go_on(client)
