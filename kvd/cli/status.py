"""
``kvd status``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from kvd.cli.control import asking, control_option
from kvd.cli.output import standard_output

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


@click.command()
@control_option
@click.option("--json", "as_json", is_flag=True, help="As the daemon sends it.")
@click.pass_obj
def status(url: str, control: str | None, as_json: bool) -> None:
    """
    Show the workers of a daemon on this machine, and how evenly they are used.

    The numbers of a worker include those of the processes that it replaced. Balance is
    Jain's index: 1 if all workers have the same, 1/n if one of n has everything.
    """
    with asking(url, control) as asked:
        found = asked.status()
    with standard_output():
        if as_json:
            click.echo(json.dumps(found))
        else:
            _show(found)


def _show(status: dict[str, Any]) -> None:
    # Imported here, because --json does not need it.
    from rich.filesize import decimal

    from kvd.cli.frame import text_console

    console = text_console()
    shadow = status.get("shadow")
    workers = status["workers"]
    ready = sum(row["state"] == "ready" for row in workers)
    console.print(
        f"kvd {status['version']}, process {status['pid']}, policy {status['policy']}:"
        f" {', '.join(status['addresses'])} from {status['store']},"
        f" durability {status['durability']}",
        markup=False,
    )
    console.print(
        f"up {status['uptime_seconds']:.0f} s, {ready} of {len(workers)} workers"
        f" ready; balance of connections {status['balance']['connections']:.3f},"
        f" of requests {status['balance']['requests']:.3f}"
    )
    totals = status["totals"]
    console.print(
        f"in all {totals['requests']} requests over {totals['accepted']} connections,"
        f" {decimal(totals['bytes_in'])} in, {decimal(totals['bytes_out'])} out"
    )
    for quota in status.get("usage", ()):
        console.print(usage_sentence(quota["prefix"], quota), markup=False)
    if status.get("near") is not None:
        console.print(usage_sentence("the near cache", status["near"]), markup=False)
    for sentence in process_sentences(status):
        console.print(sentence, markup=False)
    for sentence in fallback_sentences(status):
        console.print(sentence, markup=False)
    if shadow is not None:
        console.print(_shadow_lines(shadow), markup=False)
    for table in tables(status, console):
        console.print(table)


def tables(status: dict[str, Any], console: Console) -> list[Table]:
    """
    A row for each worker. Where that is too wide for the terminal, what was moved and
    how busy it was is in a table of its own.
    """
    from rich.measure import Measurement

    chosen = {
        row["worker"]: row for row in (status.get("shadow") or {}).get("workers", ())
    }
    headings = [*_REQUESTS, *_MOVED, *(_CHOSEN if chosen else ())]
    rows = [_cells(row, chosen.get(row["worker"])) for row in status["workers"]]
    whole = _table(headings, rows)
    unbounded = console.options.update(max_width=1000)
    if Measurement.get(console, unbounded, whole).maximum <= console.width:
        return [whole]
    half = len(_REQUESTS)
    return [
        _table(headings[:half], [cells[:half] for cells in rows]),
        _table(
            [headings[0], *headings[half:]],
            [[cells[0], *cells[half:]] for cells in rows],
        ),
    ]


_TEXTS: Final = ("worker", "process", "state")
_REQUESTS: Final = (*_TEXTS, "on the way", "accepted", "open", "requests", "now")
_MOVED: Final = ("bytes in", "bytes out", "busy s", "silent s")
_CHOSEN: Final = ("dispatched", "shadow")


def _cells(row: dict[str, Any], chosen: dict[str, Any] | None) -> list[str]:
    """
    What is shown of a worker, in the order of the headings.
    """
    from rich.filesize import decimal

    cells = [row["worker"], row["pid"] or "-", row["state"], row["handing_over"]]
    if "requests" in row:
        cells += [row["accepted"], row["open"], row["requests"], row["in_progress"]]
        cells += [decimal(row["bytes_in"]), decimal(row["bytes_out"])]
        cells += [_seconds(row.get("busy_seconds"))]
        cells += [_seconds(row.get("silent_seconds"))]
    else:
        cells += [""] * (len(_REQUESTS) + len(_MOVED) - len(cells))
    if chosen is not None:
        cells += [chosen["dispatched"], chosen["shadow"]]
    return [str(cell) for cell in cells]


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True)
    for heading in headings:
        is_text = heading in _TEXTS
        table.add_column(heading, justify="left" if is_text else "right", no_wrap=True)
    for cells in rows:
        table.add_row(*cells)
    return table


def usage_sentence(name: str, quota: dict[str, Any]) -> str:
    """
    What the values of a quota, or of the near cache, take.
    """
    from rich.filesize import decimal

    limit = "" if quota["limit"] is None else f" of {decimal(quota['limit'])}"
    text = f"{name} takes {decimal(quota['taken'])}{limit}"
    text += f" with {quota['values']} values; {quota['evicted']} evicted"
    if quota["expired"]:
        text += f", {quota['expired']} expired"
    return text if quota["counted"] else f"{text}; still being counted"


def process_sentences(status: dict[str, Any]) -> Iterator[str]:
    """
    A sentence for each process beside the workers that does not run, or not as it
    should.
    """
    for process in status.get("processes", ()):
        if process["state"] in {"stalled", "waiting"}:
            pid = (
                "no process" if process["pid"] is None else f"process {process['pid']}"
            )
            yield f"{process['process']} ({pid}): {process['state']}"


def fallback_sentences(status: dict[str, Any]) -> Iterator[str]:
    """
    A sentence for each address at which a fallback replaces the policy.
    """
    for fallback in status.get("fallbacks", ()):
        yield (
            f"{fallback['address']}: not {status['policy']} but {fallback['by']}, since"
            f" {fallback['reason']}"
        )


def _shadow_lines(shadow: dict[str, Any]) -> str:
    name = f"shadow {shadow['policy']}" + (" (model)" if shadow["model"] else "")
    if "connections" not in shadow:
        return f"{name}: nothing to compare, since no connection is handed over"
    asked = shadow["connections"] + shadow["unanswered"]
    failed = f"; no answer for {shadow['unanswered']}" if shadow["unanswered"] else ""
    if not shadow["connections"]:
        return f"{name}: no connection was counted yet{failed}"
    share = shadow["agreed"] / shadow["connections"]
    balance, found = shadow["balance"], shadow["found"]
    return (
        f"{name}: the same worker for {share:.0%} of {asked} connections{failed};"
        f" {shadow['microseconds']:.0f} µs for each\n"
        f"against the policy in force: balance {balance['shadow']:.3f} against"
        f" {balance['dispatched']:.3f}, tasks found {found['shadow']:.2f} against"
        f" {found['dispatched']:.2f}"
    )


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.2f}"
