"""
The figures as another program reads them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from kvd.lab.bench.article import Mode, Plan
from kvd.lab.bench.figures import busy_shares
from kvd.lab.bench.run import Run

COLUMNS: Final = 200


def write_record(path: str, plan: Plan, modes: Sequence[Mode]) -> None:
    """
    Write everything that was measured into a file, as JSON.
    """
    record = {"plan": asdict(plan), "modes": [_mode(mode) for mode in modes]}
    with open(path, "w", encoding="utf-8") as file:
        json.dump(record, file, indent=1)
        file.write("\n")


def _mode(mode: Mode) -> dict[str, Any]:
    ceiling = mode.ceiling
    return {
        "keep_alive": mode.keep_alive,
        "load_alone_requests_per_second": ceiling and ceiling.rate,
        "runs": [_run(run) for run in mode.runs],
    }


def _run(run: Run) -> dict[str, Any]:
    report, work = run.report, run.work
    busy = busy_shares(work.samples, report.began, report.ended, COLUMNS)
    return {
        "policy": run.policy,
        "seconds": report.seconds,
        "requests_per_second": run.rate,
        "latency_seconds": {
            name: _number(run.latency(share))
            for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
        },
        "requests_of_workers": list(work.requests),
        "jain_index": run.balance,
        "share_of_time_under_half_busy": _number(run.time_under_half_busy),
        "cpu_seconds": {
            "load": report.cpu_seconds,
            "workers": work.worker_cpu_seconds,
            "supervisor": work.supervisor_cpu_seconds,
        },
        "failures": report.failures,
        "samples": len(work.samples),
        # Of each worker, along the run in equal columns.
        "busy": [[round(share, 3) for share in row] for row in busy],
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
