"""
One frame of ``kvd top``.
"""

from __future__ import annotations

from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from kvd.cli.rates import Rates, WorkerRates

BAR_CELLS: Final = 6
SILENT_SECONDS: Final = 1.5
"""
A worker gives a sign of life every second; from so long on, it is conspicuous.
"""

_HEADINGS: Final = (
    *("open", "now", "req/s", "in/s", "out/s"),
    *("busy", "silent", "waiting"),
)
_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"


def plain_console() -> Console:
    """
    For whoever is no terminal: a line stays a line.
    """
    return Console(highlight=False, width=200)


def draw(rates: Rates, bars: bool) -> Group:
    """
    A frame.

    Args:
        rates: What is in it.
        bars: Whether the busy share is drawn too.
    """
    told = rates.told
    ready = sum(row["state"] == "ready" for row in told["workers"])
    replaced = {instead["by"]: None for instead in told.get("instead", ())}
    policy = " but ".join([("not " if replaced else "") + told["policy"], *replaced])
    head = Text(
        f"kvd {told['version']}, process {told['pid']}, policy {policy},"
        f" up {told['uptime_seconds']:.0f} s: {ready} of {len(told['workers'])} workers"
        " ready\n"
        f"{rates.total('requests'):.0f} requests/s, {rates.sum_of('open')} connections,"
        f" {rates.sum_of('in_progress')} in progress,"
        f" {decimal(int(rates.total('bytes_in')))}/s in,"
        f" {decimal(int(rates.total('bytes_out')))}/s out\n"
        f"{rates.waiting} waiting; balance of requests"
        f" {rates.balance_of_requests:.3f},"
        f" of connections {rates.balance_of_connections:.3f}"
    )
    # 80 columns are enough.
    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("worker", justify="right", no_wrap=True)
    table.add_column("state", min_width=8, no_wrap=True)
    for heading in _HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    for worker in rates.workers:
        table.add_row(*_cells(worker, bars))
    return Group(head, Text(), table)


def _cells(worker: WorkerRates, bars: bool) -> list[Text | str]:
    row, rate = worker.row, worker.per_second
    state = Text(row["state"], "" if row["state"] == "ready" else "yellow")
    cells: list[Text | str] = [str(row["worker"]), state]
    if not rate:
        return cells
    return [
        *cells,
        str(row["open"]),
        str(row["in_progress"]),
        f"{rate['requests']:.0f}",
        decimal(int(rate["bytes_in"])),
        decimal(int(rate["bytes_out"])),
        _busy(rate.get("busy_seconds"), bars),
        _silent(row.get("silent_seconds")),
        "-" if worker.waiting is None else str(worker.waiting),
    ]


def _busy(share: float | None, bars: bool) -> Text | str:
    if share is None:
        return "-"
    share = min(share, 1.0)
    percent = f"{share * 100:.0f} %"
    if not bars:
        return percent
    eighths = round(share * BAR_CELLS * 8)
    bar = "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")
    style = "green" if share < 0.7 else "yellow" if share < 0.95 else "red"
    return Text.assemble((bar.ljust(BAR_CELLS), style), f" {percent:>5}")


def _silent(seconds: float | None) -> Text | str:
    if seconds is None:
        return "-"
    return Text(f"{seconds:.2f}", "red" if seconds >= SILENT_SECONDS else "")
