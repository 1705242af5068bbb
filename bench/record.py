"""
A run of the benchmark as it is kept: what was seen, and what was made of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cattrs

from bench.measuring import Outcome, Run
from bench.ratios import Ratio, Row, load_alone_rate, ratios, rows


@dataclass(frozen=True)
class Summary:
    """
    A workload and all that was seen of it.
    """

    name: str
    title: str
    rows: list[Row]
    ratios: list[Ratio]
    load_alone_rate: float
    """The most requests per second that the load reached with any server."""
    runs: list[Run]


@dataclass(frozen=True)
class Record:
    """
    All workloads of a run, and what they ran on.
    """

    began: str
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
    Make figures of what was seen.
    """
    return Summary(
        name=outcome.workload.name,
        title=outcome.workload.title,
        rows=list(rows(outcome)),
        ratios=list(ratios(outcome)),
        load_alone_rate=load_alone_rate(outcome),
        runs=list(outcome.runs),
    )


def write_record(path: Path, record: Record) -> None:
    """
    Write a record as JSON.
    """
    path.write_text(json.dumps(cattrs.unstructure(record), indent=1) + "\n")


def read_record(path: Path) -> Record:
    """
    Read what `write_record` wrote.
    """
    return cattrs.structure(json.loads(path.read_text()), Record)
