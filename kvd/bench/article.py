"""
The measurement of the article that kvd descends from: clients that store large
values into /dev/null, and who of the workers serves them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from kvd.balance import jain_index
from kvd.bench.figures import percentile, share_of_time, under_half_busy
from kvd.bench.load import Load, Report
from kvd.bench.programs import daemon, send, sink
from kvd.bench.sampling import Sampler, Work


@dataclass(frozen=True, slots=True)
class Plan:
    """
    What is measured.
    """

    requests: int
    body_bytes: int
    clients: int
    workers: int
    policies: Sequence[str]
    ceiling: bool
    """Whether the load is measured alone, too."""

    def load(self, keep_alive: bool) -> Load:
        """
        The load of one mode.
        """
        return Load(self.requests, self.body_bytes, self.clients, keep_alive)


@dataclass(frozen=True, slots=True)
class Run:
    """
    One policy under one load.
    """

    policy: str
    report: Report
    work: Work

    @property
    def rate(self) -> float:
        """
        Requests that succeeded per second.
        """
        return rate_of(self.report)

    def latency(self, share: float) -> float:
        """
        A percentile of the latencies.
        """
        return percentile(self.report.latencies, share)

    @property
    def balance(self) -> float:
        """
        Jain's index of the workers' requests.
        """
        return jain_index(self.work.requests)

    @property
    def without_work(self) -> int:
        """
        Workers that served nobody.
        """
        return sum(not requests for requests in self.work.requests)

    @property
    def time_under_half_busy(self) -> float:
        """
        The share of the time in which fewer than half of the workers had a
        request.
        """
        return share_of_time(
            self.work.samples, self.report.began, self.report.ended, under_half_busy
        )


@dataclass(frozen=True, slots=True)
class Mode:
    """
    What was measured with one way to use connections.
    """

    keep_alive: bool
    runs: Sequence[Run]
    ceiling: Report | None

    @property
    def name(self) -> str:
        """
        For headings.
        """
        return mode_name(self.keep_alive)


def mode_name(keep_alive: bool) -> str:
    """
    How connections are used, in words.
    """
    return "keep-alive" if keep_alive else "a new connection for each request"


def rate_of(report: Report) -> float:
    """
    Requests that succeeded per second.
    """
    return len(report.latencies) / report.seconds if report.seconds else 0.0


def measure(plan: Plan, tell: Callable[[str], object]) -> Iterator[Mode]:
    """
    Measure everything, one after the other, each policy with a daemon of its own.

    Args:
        plan: What is measured.
        tell: Is told what is measured next.

    Raises:
        BenchFailed: Something could not be measured at all.
    """
    for keep_alive in (False, True):
        load = plan.load(keep_alive)
        name = mode_name(keep_alive)
        runs = []
        for policy in plan.policies:
            tell(f"{policy}, {name}")
            runs.append(measure_policy(policy, plan.workers, load))
        ceiling = None
        if plan.ceiling:
            tell(f"the load alone, {name}")
            ceiling = measure_ceiling(load)
        yield Mode(keep_alive, runs, ceiling)


def measure_policy(policy: str, workers: int, load: Load) -> Run:
    """
    Send a load to a new daemon.
    """
    with short_folder() as folder, daemon(policy, workers, folder) as served:
        sampler = Sampler(served.control.status)
        report = send(served.port, load, folder, sampler.sample)
        return Run(policy, report, sampler.finish())


def measure_ceiling(load: Load) -> Report:
    """
    Send a load to a sink.
    """
    with short_folder() as folder, sink(load.clients) as port:
        return send(port, load, folder)


def short_folder() -> tempfile.TemporaryDirectory[str]:
    """
    A folder that is removed in the end.
    """
    # Not below TMPDIR if that is long: the path of a Unix socket has at most 107
    # bytes (unix(7)).
    place = tempfile.gettempdir()
    return tempfile.TemporaryDirectory(
        prefix="kvd-",
        dir="/tmp" if len(os.fsencode(place)) > 80 else place,  # noqa: S108
    )
