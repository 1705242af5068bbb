"""
``kvd status``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from kvd.cli.control import asking, control_option
from kvd.cli.output import standard_output


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
    from rich.box import SIMPLE_HEAD
    from rich.filesize import decimal
    from rich.table import Table

    from kvd.cli.frame import text_console

    console = text_console()
    table = Table(box=SIMPLE_HEAD, padding=(0, 1))
    for heading in ("worker", "process", "state"):
        table.add_column(heading)
    for heading in (
        *("on the way", "accepted", "open", "requests", "now"),
        *("bytes in", "bytes out", "busy s", "silent s"),
    ):
        table.add_column(heading, justify="right")
    shadow = status.get("shadow")
    chosen = {row["worker"]: row for row in (shadow or {}).get("workers", ())}
    if chosen:
        table.add_column("dispatched", justify="right")
        table.add_column("shadow", justify="right")
    workers = status["workers"]
    for row in workers:
        cells = [row["worker"], row["pid"] or "-", row["state"], row["handing_over"]]
        if "requests" in row:
            cells += [row["accepted"], row["open"], row["requests"]]
            cells += [row["in_progress"]]
            cells += [decimal(row["bytes_in"]), decimal(row["bytes_out"])]
            cells += [_seconds(row.get("busy_seconds"))]
            cells += [_seconds(row.get("silent_seconds"))]
        if row["worker"] in chosen:
            counted = chosen[row["worker"]]
            cells += [counted["dispatched"], counted["shadow"]]
        table.add_row(*map(str, cells))
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
    console.print(table)


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
