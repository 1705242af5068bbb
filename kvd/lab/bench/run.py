"""
One measurement: what the clients found, and what the workers did.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean

from kvd.dispatch.balance import jain_index
from kvd.lab.bench.figures import (
    idle_while_others_queue,
    percentile,
    share_of_time,
    under_half_busy,
    utilisation,
)
from kvd.lab.bench.load import Report
from kvd.lab.bench.sampling import Work


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
        When the load was meant to end, or ended.
        """
        report = self.report
        if report.given_seconds:
            return report.began + report.given_seconds
        return report.ended

    @property
    def worker_cores(self) -> float:
        """
        Processors that the workers kept busy.
        """
        return self._cores(self.work.worker_cpu_seconds)

    @property
    def load_cores(self) -> float:
        """
        Processors that the clients kept busy.
        """
        return self._cores(self.report.cpu_seconds)

    def _cores(self, cpu_seconds: float) -> float:
        seconds = self.report.seconds
        return cpu_seconds / seconds if seconds else math.nan
