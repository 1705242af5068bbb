"""
One frame of ``kvd top``.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from kvd.cli.rates import Rates, WorkerRates

LEAST_BAR_CELLS: Final = 6
MOST_BAR_CELLS: Final = 30
OTHER_CELLS: Final = 74
"""
The width of the rest of a row. With the shortest bar, 80 columns are enough.
"""
SILENT_SECONDS: Final = 1.5
"""
A worker reports every second; from this age of its last report on, it counts as stuck.
"""

_HEADINGS: Final = (
    *("open", "now", "req/s", "in/s", "out/s"),
    *("busy", "delay", "waiting"),
)
_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"


def text_console() -> Console:
    """
    Standard output. If it is not a terminal, lines are not wrapped.
    """
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=200)


def draw(rates: Rates, screen: Console | None = None) -> Group:
    """
    A frame.

    Args:
        rates: What it shows.
        screen: Where it has to fit; the busy share is drawn as a bar too. None: all
            workers are shown, as plain text.
    """
    head = _head(rates)
    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("worker", justify="right", no_wrap=True)
    table.add_column("state", min_width=8, no_wrap=True)
    for heading in _HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    if screen is None:
        bar_cells, shown, last = 0, rates.workers, Text()
    else:
        spare = screen.width - OTHER_CELLS
        bar_cells = max(LEAST_BAR_CELLS, min(MOST_BAR_CELLS, spare))
        # Between them are a blank line, the headings and a rule.
        lines = screen.height - len(head.wrap(screen, screen.width)) - 3
        shown, last = _as_many_as_fit(rates.workers, lines)
    for worker in shown:
        table.add_row(*_cells(worker, bar_cells))
    return Group(head, Text(), table, *([last] if last else []))


def _head(rates: Rates) -> Text:
    status = rates.status
    workers = status["workers"]
    ready = sum(row["state"] == "ready" for row in workers)
    fallbacks = {each["by"]: None for each in status.get("fallbacks", ())}
    policy = " but ".join(
        [("not " if fallbacks else "") + status["policy"], *fallbacks]
    )
    return Text(
        f"kvd {status['version']}, process {status['pid']}, policy {policy},"
        f" up {status['uptime_seconds']:.0f} s: {ready} of {len(workers)} workers"
        " ready\n"
        f"{rates.total('requests'):.0f} requests/s, {rates.sum_of('open')} connections,"
        f" {rates.sum_of('in_progress')} in progress,"
        f" {decimal(int(rates.total('bytes_in')))}/s in,"
        f" {decimal(int(rates.total('bytes_out')))}/s out\n"
        f"{rates.waiting} waiting; balance of requests"
        f" {rates.balance_of_requests:.3f},"
        f" of connections {rates.balance_of_connections:.3f}"
    )


def _as_many_as_fit(
    workers: Sequence[WorkerRates], lines: int
) -> tuple[Sequence[WorkerRates], Text]:
    """
    All of them; or the busiest, and a line about the others.
    """
    if len(workers) <= lines:
        return workers, Text()
    busiest_first = sorted(workers, key=_activity, reverse=True)
    shown, others = (
        busiest_first[: max(0, lines - 1)],
        busiest_first[max(0, lines - 1) :],
    )
    most = max(worker.per_second.get("busy_seconds", 0.0) for worker in others)
    return shown, Text(
        f"… and {len(others)} less busy workers, at most {min(most, 1) * 100:.0f} %",
        "dim",
    )


def _activity(worker: WorkerRates) -> tuple[bool, float, float]:
    """
    Workers that are not ready, or stuck, come first.
    """
    urgent = worker.row["state"] != "ready" or _is_stuck(worker)
    rate = worker.per_second
    return urgent, rate.get("busy_seconds", 0.0), rate.get("requests", 0.0)


def _is_stuck(worker: WorkerRates) -> bool:
    return bool(worker.row.get("silent_seconds", 0.0) >= SILENT_SECONDS)


def _cells(worker: WorkerRates, bar_cells: int) -> list[Text | str]:
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
        _busy(rate.get("busy_seconds"), bar_cells),
        _delay(worker),
        "-" if worker.waiting is None else str(worker.waiting),
    ]


def _busy(share: float | None, bar_cells: int) -> Text | str:
    if share is None:
        return "-"
    share = min(share, 1.0)
    percent = f"{share * 100:.0f} %"
    if not bar_cells:
        return percent
    eighths = round(share * bar_cells * 8)
    bar = "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")
    style = "green" if share < 0.7 else "yellow" if share < 0.95 else "red"
    return Text.assemble((bar.ljust(bar_cells), style), f" {percent:>5}")


def _delay(worker: WorkerRates) -> Text | str:
    if _is_stuck(worker):
        return Text(f">{floor(worker.row['silent_seconds'])} s", "red")
    if worker.loop_delay is None:
        return "-"
    for unit, seconds in (("s", 1.0), ("ms", 1e-3)):
        if worker.loop_delay >= seconds:
            return f"<{ceil(worker.loop_delay / seconds)} {unit}"
    return f"<{ceil(worker.loop_delay * 1e6)} µs"
