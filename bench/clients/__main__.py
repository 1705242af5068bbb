"""
``python -m bench.clients [CLIENT...]``, or ``make bench-clients``: how long the work of
users takes with kvd, and with what they could use instead.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Final

import click

from bench.building import build
from bench.clients.project import unpacked
from bench.clients.work import WORKS, Step, Work, small_files
from kvd.lab.measuring.errors import BenchFailed
from kvd.lab.measuring.figures import median, ratios, rotated
from kvd.lab.measuring.processes import ended_by_signals

FOLDER: Final = Path("build") / "bench"


@click.command()
@click.option("--rounds", default=3, show_default=True, help="Of each client.")
@click.option("--files", default=5000, show_default=True, help="Small ones.")
@click.argument("clients", nargs=-1, type=click.Choice(list(WORKS)))
def main(rounds: int, files: int, clients: tuple[str, ...]) -> None:
    """
    Print for each step of each CLIENT the seconds of each server, and the ratio.
    """
    try:
        with ended_by_signals():
            chosen = clients or tuple(WORKS)
            # It takes long: what is missing for the last is told before the first.
            for name in chosen:
                WORKS[name].check()
            for name in chosen:
                _measure(name, WORKS[name], rounds, files)
    except BenchFailed as error:
        sys.exit(str(error))


def _measure(name: str, work: Work, rounds: int, files: int) -> None:
    programs = build(FOLDER.absolute())
    found: dict[str, list[list[Step]]] = {server: [] for server in work.servers}
    with tempfile.TemporaryDirectory(prefix="kvd-bench-clients-") as parent:
        if work.builds:
            given = unpacked(FOLDER.absolute() / "project")
        else:
            given = Path(parent) / "files"
            small_files(given, files)
        for number in range(rounds):
            for server in rotated(list(work.servers), number):
                with tempfile.TemporaryDirectory(dir=parent) as folder:
                    start = work.servers[server].start
                    with start(programs, Path(folder)) as running:
                        found[server].append(list(work.steps(running, given)))
    _show(name, found)


def _show(name: str, found: dict[str, list[list[Step]]]) -> None:
    (ours, our_rounds), (other, other_rounds) = found.items()
    for steps, others in zip(
        zip(*our_rounds, strict=True), zip(*other_rounds, strict=True), strict=True
    ):
        mine, theirs = [s.seconds for s in steps], [s.seconds for s in others]
        click.echo(
            f"{name}, {steps[0].name}: {ours} {median(mine):.2f} s,"
            f" {other} {median(theirs):.2f} s,"
            f" ratio {median(ratios(mine, theirs)):.2f};"
            f" CPU of the server {median([s.server_cpu_seconds for s in steps]):.2f} s"
            f" and {median([s.server_cpu_seconds for s in others]):.2f} s;"
            f" {steps[0].said} and {others[0].said}"
        )


if __name__ == "__main__":
    main()
