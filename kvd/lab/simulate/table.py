"""
The figures as a person reads them, and as a program does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

from kvd.lab.simulate.comparison import Comparison
from kvd.lab.simulate.laboratory import Row
from kvd.lab.simulate.plan import Case

_COLUMNS: Final = (
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


def show(title: str, rows: Sequence[Row], console: Console) -> None:
    """
    Print one case.
    """
    table = _table("policy")
    for name in _COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row))
    console.print(f"\n{title}\n", style="bold", highlight=False)
    console.print(table)


def _table(*names: str) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0)
    )
    for name in names:
        table.add_column(name, no_wrap=True)
    return table


def _cells(row: Row) -> Sequence[str]:
    told = row.figures
    return (
        f"{row.policy} (model)" if row.model else row.policy,
        f"{told.makespan:.3f}",
        _percent(told.regret),
        _milliseconds(told.wait_p50),
        _milliseconds(told.wait_p99),
        _milliseconds(told.wait_regret),
        _percent(told.utilisation),
        f"{told.jain_requests:.3f}",
        _percent(told.all_busy),
        _percent(told.tail),
        _percent(told.idle_while_queued),
        _percent(told.wasted),
    )


def _milliseconds(seconds: float) -> str:
    # At least three figures of it, and not -0.00.
    milliseconds = round(seconds * 1e3, 2) + 0.0
    digits = 2 if abs(milliseconds) < 10 else 1 if abs(milliseconds) < 100 else 0
    return f"{milliseconds:.{digits}f}"


def _percent(share: float) -> str:
    # Not -0.
    return f"{round(share * 100) + 0} %"


def as_json(case: Case, rows: Sequence[Row]) -> dict[str, Any]:
    """
    One case.
    """
    return {
        "case": case.title,
        "workers": case.workers,
        "policies": [
            {"policy": row.policy, "model": row.model, **asdict(row.figures)}
            for row in rows
        ],
    }


def show_check(comparison: Comparison, console: Console) -> None:
    """
    Print what was measured beside what was simulated.
    """
    table = _table("policy", "measure")
    for name in ("measured", "simulated", "5 % .. 95 %", "deviation"):
        table.add_column(name, justify="right", no_wrap=True)
    for policy, pair in comparison.pairs.items():
        for line in comparison.lines(policy):
            table.add_row(
                policy,
                line.name,
                f"{line.measured:.3f}",
                f"{line.simulated:.3f}",
                f"{line.low:.3f} .. {line.high:.3f}",
                f"{line.deviation * 100:+.1f} %",
            )
        if pair.failed:
            console.print(f"{policy}: {pair.failed} requests failed", style="bold")
    title = f"{comparison.workers} workers, {comparison.trial.title}"
    console.print(f"\n{title}\n", style="bold", highlight=False)
    console.print(table)


def check_as_json(comparison: Comparison) -> dict[str, Any]:
    """
    One comparison.
    """
    return {
        "load": comparison.trial.title,
        "workers": comparison.workers,
        "policies": [
            {
                "policy": policy,
                "failed": pair.failed,
                "measures": [asdict(line) for line in comparison.lines(policy)],
            }
            for policy, pair in comparison.pairs.items()
        ],
    }
