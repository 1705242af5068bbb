"""
What is simulated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from kvd.errors import RecordUnusable
from kvd.http.record import read_record
from kvd.interfaces import IDispatchPolicy
from kvd.lab.simulate.balancing import ALONE, Fleet
from kvd.lab.simulate.load import Load, arrivals, closed_load, open_load, services
from kvd.lab.simulate.replay import AsRecorded, load_of, with_requests, workers_in


@dataclass(frozen=True, slots=True)
class Case:
    """
    One load.
    """

    title: str
    workers: int
    make: Callable[[int], Load]
    """The load of a seed."""
    fleet: Fleet = ALONE
    """The machines that share the workers equally."""


@dataclass(frozen=True, slots=True)
class Plan:
    """
    Loads that are simulated together.
    """

    description: str
    cases: Sequence[Case]
    runs: int = 1
    """The number of seeds over which figures are averaged."""
    conclusion: str = ""
    """What the figures mean, printed after them."""
    further: Mapping[str, IDispatchPolicy] = field(default_factory=dict)
    """Policies in addition to those of the command line."""

    def adjusted(self, workers: int | None, runs: int | None) -> Plan:
        """
        The same plan with other numbers; the workers are those of a machine. The
        conclusion does not hold for these, and is left out.
        """
        if workers is None and runs is None:
            return self
        cases = [
            replace(
                case,
                workers=workers * case.fleet.machines if workers else case.workers,
            )
            for case in self.cases
        ]
        return replace(self, cases=cases, runs=runs or self.runs, conclusion="")


def recorded_plan(paths: Sequence[str], workers: int | None) -> Plan:
    """
    The load that a daemon recorded.

    Args:
        paths: Of the records.
        workers: Their number; None: as many as were recorded.

    Raises:
        RecordUnusable: A file is not a record, or all are empty.
    """
    record = with_requests([one for path in paths for one in read_record(path)])
    if not record:
        raise RecordUnusable(f"no requests are recorded in {', '.join(paths)}")
    recorded = workers_in(record)
    count = workers or recorded
    load = load_of(record)
    further = {"(as recorded)": AsRecorded(record)} if count >= recorded else {}
    title = (
        f"{len(record)} connections with {len(load.services)} requests to"
        f" {count} workers"
    )
    return Plan(
        "As recorded.",
        [Case(title, count, lambda seed: load)],
        further=further,
    )


@dataclass(frozen=True, slots=True)
class Synthesis:
    """
    The options of a synthetic load.
    """

    requests: int
    reuse: int
    """Requests over one connection; 0: all of a client."""
    arrivals: str
    """One of `load.ARRIVALS`, or "closed"."""
    clients: int
    utilisation: float
    burst: int
    service: str
    mean: float
    pause: float | None
    lag: float | None

    def make(self, workers: int, seed: int) -> Load:
        """
        The load of one seed.
        """
        return replace(self._make(workers, seed), lag=self.lag or 0.0)

    def _make(self, workers: int, seed: int) -> Load:
        pause = self.pause or 0.0
        if self.arrivals == "closed":
            times = services(self.service, self.mean, self.requests, seed)
            return closed_load(times, self.clients, self.reuse, pause)
        reuse = self.reuse or self.requests
        connections = -(-self.requests // reuse)
        times = services(self.service, self.mean, connections * reuse, seed)
        per_second = self.utilisation * workers / (self.mean * reuse)
        begins = arrivals(self.arrivals, connections, per_second, seed, self.burst)
        return open_load(times, begins, pause)

    def plan(self, each: int, fleets: Sequence[Fleet] = (ALONE,)) -> Plan:
        """
        The plan for a number of workers on each machine.

        Args:
            fleets: One after the other, with the same number of machines.
        """
        workers = each * fleets[0].machines
        if self.arrivals == "closed":
            come = f"{self.clients} clients"
        else:
            come = f"arrivals {self.arrivals} at {self.utilisation:g} of capacity"
        title = (
            f"{self.requests} requests to {workers} workers, {come}, service times"
            f" {self.service} with mean {self.mean * 1e3:g} ms"
        )
        return Plan(
            "",
            [
                Case(
                    title + fleet.title,
                    workers,
                    lambda seed: self.make(workers, seed),
                    fleet,
                )
                for fleet in fleets
            ],
        )
