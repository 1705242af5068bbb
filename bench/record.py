"""
The record of a benchmark: all runs, and the figures made of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.loads import Load
from bench.measuring import Outcome, Run
from bench.ratios import Ratio, Row, ceiling_rate, ratios_of, rows


@dataclass(frozen=True)
class Summary:
    """
    A workload and its figures.
    """

    name: str
    title: str
    rows: list[Row]
    ratios: list[Ratio]
    ceiling_rate: float | None
    """The most requests per second that the load reached with any server."""
    runs: list[Run]
    curve: str = ""
    """Workloads of a curve differ only in the size of their values."""
    body_bytes: int = 0
    """Of the values of a curve."""


@dataclass(frozen=True)
class Record:
    """
    All workloads of a run, and the machine.
    """

    rounds: int
    seconds: float
    """Of each run of a server."""
    machine: Mapping[str, str]
    workloads: list[Summary]

    @property
    def errors(self) -> int:
        """
        Requests that failed, of all servers.
        """
        return sum(row.errors for summary in self.workloads for row in summary.rows)


def summarize(outcome: Outcome) -> Summary:
    """
    Make figures of what was measured.
    """
    workload = outcome.workload
    load = workload.load
    return Summary(
        name=workload.name,
        title=workload.title,
        rows=list(rows(outcome)),
        ratios=list(ratios_of(outcome)),
        ceiling_rate=ceiling_rate(outcome),
        runs=list(outcome.runs),
        curve=workload.curve,
        body_bytes=load.body_bytes if isinstance(load, Load) else 0,
    )
