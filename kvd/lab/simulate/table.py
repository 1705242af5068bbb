"""
The figures of a simulation, as tables and as JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from rich.console import Console

from kvd.lab.measuring.table import milliseconds, percent, show_lines, show_table
from kvd.lab.simulate.comparison import Comparison
from kvd.lab.simulate.laboratory import Row
from kvd.lab.simulate.plan import Case

_COLUMNS: Final = (
    "policy",
    "makespan\ns",
    "regret",
    "wait ms\np50",
    "\np99",
    "\nregret",
    "utili-\nsation",
    "Jain's\nindex",
    "all\nbusy",
    "few\nat end",
    "idle while\nqueued",
    "wasted",
)

_CHECK_COLUMNS: Final = (
    *("policy", "measure", "measured", "simulated", "5 % .. 95 %", "deviation"),
)


def show(case: Case, rows: Sequence[Row], console: Console) -> None:
    """
    Print one case.
    """
    several = case.fleet.machines > 1
    columns = [*_COLUMNS, *(["Jain's\nmachines"] if several else [])]
    lines = [
        [*_cells(row), *([f"{row.figures.jain_machines:.3f}"] if several else [])]
        for row in rows
    ]
    show_table(case.title, columns, lines, console)


def _cells(row: Row) -> Sequence[str]:
    figures = row.figures
    return (
        f"{row.policy} (model)" if row.model else row.policy,
        f"{figures.makespan:.3f}",
        percent(figures.regret),
        milliseconds(figures.wait_p50),
        milliseconds(figures.wait_p99),
        milliseconds(figures.wait_regret),
        percent(figures.utilisation),
        f"{figures.jain_requests:.3f}",
        percent(figures.all_busy),
        percent(figures.tail),
        percent(figures.idle_while_queued),
        percent(figures.wasted),
    )


def as_json(case: Case, rows: Sequence[Row]) -> dict[str, Any]:
    """
    One case.
    """
    return {
        "case": case.title,
        "workers": case.workers,
        **asdict(case.fleet),
        "policies": [
            {"policy": row.policy, "model": row.model, **asdict(row.figures)}
            for row in rows
        ],
    }


def show_check(comparison: Comparison, console: Console) -> None:
    """
    Print what was measured beside what was simulated.
    """
    lines = [
        (
            policy,
            line.name,
            f"{line.measured:.3f}",
            f"{line.simulated:.3f}",
            f"{line.low:.3f} .. {line.high:.3f}",
            f"{line.deviation * 100:+.1f} %",
        )
        for policy in comparison.pairs
        for line in comparison.lines(policy)
    ]
    show_table(comparison.title, _CHECK_COLUMNS, lines, console)
    failed = {policy: pair.failed for policy, pair in comparison.pairs.items()}
    show_lines(
        [
            f"{policy}: {count} requests failed"
            for policy, count in failed.items()
            if count
        ],
        console,
    )


def check_as_json(comparison: Comparison) -> dict[str, Any]:
    """
    One comparison.
    """
    return {
        "load": comparison.trial.title,
        "workers": comparison.workers,
        **asdict(comparison.fleet),
        "policies": [
            {
                "policy": policy,
                "failed": pair.failed,
                "measures": [asdict(line) for line in comparison.lines(policy)],
            }
            for policy, pair in comparison.pairs.items()
        ],
    }
