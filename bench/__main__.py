"""
kvd and its baselines: ``python -m bench``, or ``make bench``.
"""

from __future__ import annotations

import fnmatch
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import click
from rich.console import Console

from bench.building import build
from bench.machine import describe, file_system
from bench.measuring import Bench
from bench.medium import IMAGES, TMPFS, Medium, take_own_mounts
from bench.record import Record, summarize
from bench.report import write_report
from bench.showing import show_curves, show_ratios, show_summary
from bench.workloads import WORKLOADS, Workload
from kvd.lab.measuring.errors import BenchFailed
from kvd.lab.measuring.processes import ended_by_signals
from kvd.lab.measuring.record import write_record
from kvd.lab.measuring.table import wide_console


@click.command()
@click.argument("names", nargs=-1, metavar="[WORKLOAD]...")
@click.option("--rounds", default=5, show_default=True, help="Runs of each server.")
@click.option("--seconds", default=1.2, show_default=True, help="Length of a run.")
@click.option("--quick", is_flag=True, help="One round of 0.2 s: does it work at all?")
@click.option(
    "--disk",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder for workloads on a disk.  [default: a temporary one]",
)
@click.option(
    "--image",
    type=click.Choice([*IMAGES]),
    help="Give each server of these workloads a file system of its own, made anew in an"
    " image in that folder. Needs root.",
)
@click.option("--list", "listing", is_flag=True, help="Show the workloads and end.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Folder for the results.  [default: build/bench/<date>]",
)
def main(
    names: Sequence[str],
    rounds: int,
    seconds: float,
    quick: bool,
    disk: Path | None,
    image: str | None,
    listing: bool,
    output: Path | None,
) -> None:
    """
    Compare kvd with nginx and a server in C, under the named workloads or all. A
    name may be a pattern: 'get-once*'.

    Nothing else should run on the machine meanwhile.
    """
    if listing:
        width = max(len(workload.name) for workload in WORKLOADS)
        for workload in WORKLOADS:
            click.echo(f"{workload.name:{width}}  {workload.title}")
        return
    if quick:
        rounds, seconds = 1, 0.2
    output = output or Path("build", "bench", f"{datetime.now():%Y-%m-%d-%H%M%S}")
    try:
        chosen = choose(names)
        if image is not None:
            take_own_mounts()
        with ended_by_signals(), _folder(disk) as folder:
            medium = Medium(folder, image)
            record = run(chosen, medium, rounds, seconds, output)
    except BenchFailed as error:
        click.echo(error.output, err=True)
        raise click.ClickException(str(error)) from error
    if record.errors:
        sys.exit(1)


def choose(names: Sequence[str]) -> Sequence[Workload]:
    """
    The workloads with these names, in their own order; all if there are none.
    """
    known = [workload.name for workload in WORKLOADS]
    for name in names:
        if not fnmatch.filter(known, name):
            raise click.UsageError(
                f"no workload named {name!r}; there are: {', '.join(known)}"
            )
    return [
        workload
        for workload in WORKLOADS
        if any(fnmatch.fnmatch(workload.name, name) for name in names or ["*"])
    ]


@contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    """
    The folder that was given, or a temporary one.
    """
    if given is not None:
        yield given.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="kvd-bench-") as folder:
        yield Path(folder)


def run(
    workloads: Sequence[Workload],
    disk: Medium,
    rounds: int,
    seconds: float,
    output: Path,
) -> Record:
    """
    Measure workloads, show the figures after each, and keep them in a folder.
    """
    console, progress = wide_console(), Console(stderr=True)
    output.mkdir(parents=True, exist_ok=True)
    programs = build(Path("build", "bench", "programs").absolute())
    bench = Bench(programs, disk, seconds)
    machine = describe(programs, disk.describe(), file_system(TMPFS))
    record = Record(rounds, seconds, machine, [])
    for workload in workloads:
        with progress.status(workload.name) as status:
            outcome = bench.measure(workload, rounds, status.update)
        record.workloads.append(summarize(outcome))
        show_summary(record.workloads[-1], console)
        # Each time, so that a run which is interrupted leaves what it has.
        write_record(str(output / "result.json"), record)
    show_ratios(record.workloads, console)
    show_curves(record.workloads, console)
    write_report(output / "report.html", record)
    console.print(f"\nKept in {output}: result.json, report.html", highlight=False)
    return record


if __name__ == "__main__":
    main()
