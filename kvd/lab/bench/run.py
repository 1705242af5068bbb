"""
One run: what the clients measured, and what the workers did.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from kvd.dispatch.balance import jain_index
from kvd.lab.bench.load import Load, Report
from kvd.lab.bench.programs import send
from kvd.lab.bench.sampling import Sampler, Work
from kvd.lab.bench.timeline import (
    idle_while_others_queue,
    share_of_time,
    under_half_busy,
    utilisation,
)
from kvd.lab.measuring.daemon import Daemon
from kvd.lab.measuring.figures import median, percentile


@dataclass(frozen=True, slots=True)
class Run:
    """
    One policy under one load, once.
    """

    policy: str
    report: Report
    work: Work

    @property
    def rate(self) -> float:
        """
        Requests that succeeded per second.
        """
        return self.report.rate

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
        Workers that served no request.
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

    @property
    def balance_of_connections(self) -> float:
        """
        Jain's index of the workers' connections.
        """
        return jain_index(self.work.connections)

    @property
    def idle_while_others_queue(self) -> float:
        """
        The share of the time in which a worker had no client while another had more
        than one.
        """
        return share_of_time(
            self.work.samples,
            self.report.began,
            self.until,
            idle_while_others_queue,
            lambda sample: sample.tasks,
        )

    @property
    def utilisation(self) -> float:
        """
        The share of the workers' time in which they did not wait for events.
        """
        shares = utilisation(self.work.samples, self.report.began, self.until, 1)
        return fmean(row[0] for row in shares) if shares else math.nan

    @property
    def until(self) -> float:
        """
        The given end of the load, or its actual end.
        """
        report = self.report
        if report.given_seconds:
            return report.began + report.given_seconds
        return report.ended

    @property
    def worker_cores(self) -> float:
        """
        The number of processors that the workers used on average.
        """
        return self._cores(self.work.worker_cpu_seconds)

    @property
    def load_cores(self) -> float:
        """
        The number of processors that the clients used on average.
        """
        return self._cores(self.report.cpu_seconds)

    def _cores(self, cpu_seconds: float) -> float:
        seconds = self.report.seconds
        return cpu_seconds / seconds if seconds else math.nan


@dataclass(frozen=True, slots=True)
class Rounds:
    """
    One policy under one load, in all rounds.
    """

    policy: str
    runs: Sequence[Run]

    def median(self, of: Callable[[Run], float]) -> float:
        """
        The median of a figure; not a number if that of a round is none.
        """
        return median([of(run) for run in self.runs])

    @property
    def rates(self) -> Sequence[float]:
        """
        The requests per second of each round.
        """
        return [run.rate for run in self.runs]

    @property
    def rate(self) -> float:
        """
        Their median.
        """
        return median(self.rates)

    def latency(self, share: float) -> float:
        """
        A percentile of the latencies.
        """
        return self.median(lambda run: run.latency(share))

    @property
    def failed(self) -> int:
        """
        The requests that failed in all rounds.
        """
        return sum(run.report.failed for run in self.runs)

    @property
    def typical(self) -> Run:
        """
        The round whose rate is nearest to the median.
        """
        return min(self.runs, key=lambda run: abs(run.rate - self.rate))


def measure_run(
    policy: str, served: Daemon, load: Load, *, sampled: bool = True
) -> Run:
    """
    Send a load to a daemon.

    Args:
        policy: The daemon's.
        served: The daemon.
        load: What is sent.
        sampled: Whether to ask the daemon meanwhile what its workers do.
    """
    sampler = Sampler(served.control.status)
    report = send(served.port, load, sampler.sample if sampled else None)
    work = sampler.finish()
    # The connection may be idle until the next round for longer than the daemon keeps
    # it.
    served.control.close()
    return Run(policy, report, work)


def failure_lines(name: str, *reports: Report) -> Sequence[str]:
    """
    A line for each reason why requests failed.
    """
    return [
        f"{name}: {count} failed: {reason}"
        for report in reports
        for reason, count in sorted(report.failures.items())
    ]


def ceiling_line(ceiling: Report, rates: Sequence[float]) -> str:
    """
    How far the load is from being the limit.
    """
    line = f"Ceiling of the load, against a sink that discards: {ceiling.rate:,.0f}"
    fastest = max(rates, default=0.0)
    times = (
        f", {ceiling.rate / fastest:.1f} times the fastest policy" if fastest else ""
    )
    return f"{line} requests/s{times}"
