"""
Runs every workload against every server, in turn.

All servers of a workload are up during its rounds, and idle but for the one that
is measured. A round has one run of each; the order changes from round to round,
so that no server always comes after the same other one. What is compared later
are runs of one round, which are seconds apart: a machine's mood is longer.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bench.building import Programs
from bench.errors import BenchFailed
from bench.loads import Load, Report, send, sending
from bench.processes import cpu_seconds
from bench.servers import CServer, Running
from bench.workloads import Contender, Workload

WARM_UP_SECONDS: Final = 0.2
_SETTLE_SECONDS: Final = 0.5
TMPFS: Final = Path("/dev/shm")  # noqa: S108  # a folder of an unused name in it


@dataclass(frozen=True)
class Run:
    """
    One server under one load.
    """

    contender: str
    round: int
    report: Report
    server_cpu_seconds: float
    wall_seconds: float
    """For which the server's CPU time was counted."""

    @property
    def rate(self) -> float:
        """
        Requests per second.
        """
        return self.report.requests / self.report.seconds

    @property
    def work(self) -> float:
        """
        Requests per second of the server's CPU time.
        """
        return self.report.requests / self.server_cpu_seconds


@dataclass(frozen=True)
class Outcome:
    """
    All runs of a workload.
    """

    workload: Workload
    runs: Sequence[Run]
    ceiling: Run
    """The same load against the leanest server there is."""


def measure(
    workload: Workload,
    programs: Programs,
    disk: Path,
    rounds: int,
    seconds: float,
    progress: Callable[[str], None],
) -> Outcome:
    """
    Measure one workload.

    Args:
        disk: A folder on the file system that stands for the disk.
        seconds: How long a run takes.
        progress: Told what is done now, in a few words.
    """
    with ExitStack() as stack:
        running = {
            contender.name: stack.enter_context(
                _prepared(workload, contender, programs, disk, seconds)
            )
            for contender in workload.contenders
        }
        runs = []
        for number in range(rounds):
            for contender in _in_turn(workload.contenders, number):
                progress(f"{workload.name}, round {number + 1}: {contender.name}")
                server = running[contender.name]
                runs.append(
                    _run(workload, contender, server, programs, number, seconds, disk)
                )
    progress(f"{workload.name}: the load alone")
    return Outcome(workload, runs, _ceiling(workload, programs, seconds))


def _in_turn(contenders: Sequence[Contender], number: int) -> Sequence[Contender]:
    first = number % len(contenders)
    return [*contenders[first:], *contenders[:first]]


@contextmanager
def _prepared(
    workload: Workload,
    contender: Contender,
    programs: Programs,
    disk: Path,
    seconds: float,
) -> Iterator[Running]:
    """
    A server with what the load will read.
    """
    parent = disk if workload.medium == "disk" else TMPFS
    folder = Path(tempfile.mkdtemp(prefix="kvd-bench-", dir=parent))
    try:
        with contender.server.start(programs, folder) as running:
            load = contender.load or workload.load
            # All is there before: the first PUT of a key is another request than
            # those that overwrite it. One client reaches each key.
            fill = replace(load, method="PUT", connections=1, new_connections=False)
            filled = send(programs, running.port, fill, requests=load.keys)
            if filled.errors:
                raise BenchFailed(
                    f"{contender.name} does not take values: {filled.first_error}"
                )
            yield running
    finally:
        shutil.rmtree(folder)


def _run(
    workload: Workload,
    contender: Contender,
    server: Running,
    programs: Programs,
    number: int,
    seconds: float,
    disk: Path,
) -> Run:
    load = contender.load or workload.load
    with ExitStack() as stack:
        if workload.medium == "disk":
            # Nobody is to pay for what another one left to be written.
            subprocess.run(["sync", "--file-system", disk], check=True)  # noqa: S603, S607
        if workload.background is not None:
            limit = seconds + WARM_UP_SECONDS + _SETTLE_SECONDS + 60
            stack.enter_context(
                sending(programs, server.port, workload.background, limit)
            )
            time.sleep(_SETTLE_SECONDS)
        send(programs, server.port, load, seconds=WARM_UP_SECONDS)
        return measured(contender.name, load, server, programs, number, seconds)


def measured(
    name: str,
    load: Load,
    server: Running,
    programs: Programs,
    number: int,
    seconds: float,
) -> Run:
    """
    Send a load, and look at the server's clock before and after.
    """
    began, before = time.monotonic(), cpu_seconds(server.pids)
    report = send(programs, server.port, load, seconds=seconds)
    spent = cpu_seconds(server.pids) - before
    if not report.requests:
        raise BenchFailed(f"{name} answered nothing: {report.first_error}")
    return Run(name, number, report, spent, time.monotonic() - began)


def _ceiling(workload: Workload, programs: Programs, seconds: float) -> Run:
    """
    A server that opens no file for PUT, and only sends files of tmpfs for GET.
    """
    leanest = CServer(put="splice", null=workload.load.method == "PUT")
    contender = Contender("the load alone", leanest)
    alone = replace(workload, medium="tmpfs", background=None)
    with _prepared(alone, contender, programs, TMPFS, seconds) as server:
        send(programs, server.port, workload.load, seconds=WARM_UP_SECONDS)
        return measured(contender.name, workload.load, server, programs, 0, seconds)


def by_contender(runs: Sequence[Run]) -> Mapping[str, Sequence[Run]]:
    """
    The runs of each server, in the order of their rounds.
    """
    names = dict.fromkeys(run.contender for run in runs)
    return {
        name: sorted(
            (run for run in runs if run.contender == name), key=lambda run: run.round
        )
        for name in names
    }
