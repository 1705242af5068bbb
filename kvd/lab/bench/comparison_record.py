"""
The comparisons as another program reads them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from kvd.lab.bench import dispatch, small
from kvd.lab.bench.machine import Machine
from kvd.lab.bench.run import Run
from kvd.lab.bench.wanted import Wanted


def write_dispatch(
    path: str, outcome: dispatch.Outcome, wanted: Sequence[Wanted], machine: Machine
) -> None:
    """
    Write all rounds of all policies into a file, as JSON.
    """
    loads = [
        {
            "load": compared.case.name,
            "title": compared.case.title,
            "policies": [
                {
                    "policy": seen.policy,
                    "requests_per_second": _number(seen.rate),
                    "rounds": [_run(run) for run in seen.runs],
                }
                for seen in compared.seen
            ],
        }
        for compared in outcome.compared
    ]
    hand_over = [
        {
            "policy": cost.policy,
            "supervisor_cpu_seconds": cost.seconds,
            "supervisor_cpu_seconds_alone": cost.alone_seconds,
            "batches": list(cost.batches),
        }
        for cost in outcome.hand_over
    ]
    figures = [
        asdict(figure) | {"seen": _number(figure.seen), "reached": figure.reached}
        for figure in wanted
    ]
    for figure in figures:
        del figure["spelled"]
    _write(
        path,
        machine,
        {
            "plan": asdict(outcome.plan),
            "loads": loads,
            "hand_over": hand_over,
            "figures": figures,
        },
    )


def write_small(path: str, outcome: small.Outcome, machine: Machine) -> None:
    """
    Write all rounds of all points into a file, as JSON.
    """
    points = [
        {
            "policy": point.policy,
            "workers": point.workers,
            "requests_per_second": _number(point.rate),
            "rounds": [_run(run) for run in point.runs],
        }
        for point in outcome.points
    ]
    _write(
        path,
        machine,
        {
            "plan": asdict(outcome.plan),
            "points": points,
            "load_alone_requests_per_second": outcome.alone.rate,
        },
    )


def _write(path: str, machine: Machine, record: dict[str, Any]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"machine": asdict(machine)} | record, file, indent=1)
        file.write("\n")


def _run(run: Run) -> dict[str, Any]:
    figures = {
        "requests_per_second": run.rate,
        "p50_seconds": run.latency(0.5),
        "p99_seconds": run.latency(0.99),
        "max_seconds": run.latency(1.0),
        "jain_index_of_requests": run.balance,
        "jain_index_of_connections": run.balance_of_connections,
        "idle_while_others_queue": run.idle_while_others_queue,
        "utilisation": run.utilisation,
        "worker_cores": run.worker_cores,
        "load_cores": run.load_cores,
    }
    return {name: _number(figure) for name, figure in figures.items()} | {
        "requests_of_workers": list(run.work.requests),
        "connections_of_workers": list(run.work.connections),
        "failures": run.report.failures,
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
