"""
Runs every workload against every server, in turn.

All servers of a workload are up during its rounds, and all but the one that is measured
are idle. What is compared are runs of one round (`kvd.lab.measuring.figures`).

Where each value is to be read for the first time, a server is started anew once the
values are stored, and each turn has values of its own. Only the kernel has seen them:
the page cache is warm, and the server has nothing in memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final

from bench.building import Programs
from bench.loads import Load, Report, Running, Traffic, Turn, sending
from bench.medium import TMPFS, Medium, write_back
from bench.servers import CServer
from bench.workloads import Contender, Workload
from kvd.lab.measuring.errors import BenchFailed
from kvd.lab.measuring.figures import rotated
from kvd.lab.measuring.processes import cpu_seconds

WARM_UP_SECONDS: Final = 0.2
_SETTLE_SECONDS: Final = 0.5
# More than the last requests of a run can take after its end.
_BACKGROUND_SECONDS: Final = 60


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
    """The time over which the server's CPU time was counted."""

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
    ceiling: Run | None
    """The same load against the leanest server there is; None of client programs."""


@dataclass(frozen=True)
class Bench:
    """
    Where values live, and how long a run takes.
    """

    programs: Programs
    disk: Medium
    """What stands for the disk."""
    seconds: float
    """Of each run of a server."""

    def measure(
        self, workload: Workload, rounds: int, progress: Callable[[str], object]
    ) -> Outcome:
        """
        Measure one workload.

        Args:
            progress: Gets a few words about what is measured now.
        """
        turns = self._turns(workload, rounds)
        self.disk.prepare()
        with ExitStack() as stack:
            running = {
                contender.name: stack.enter_context(
                    self._ready(workload, contender, turns)
                )
                for contender in workload.contenders
            }
            runs = []
            for number in range(rounds):
                for contender in rotated(workload.contenders, number):
                    progress(f"{workload.name}, round {number + 1}: {contender.name}")
                    server = running[contender.name]
                    if workload.medium == "disk":
                        # No server pays for the pages that another one left to be
                        # written.
                        write_back(server.folder for server in running.values())
                    runs.append(
                        self._run(workload, contender, server, turns[number], number)
                    )
        progress(f"{workload.name}: the ceiling of the load")
        return Outcome(workload, runs, self._ceiling(workload))

    def _turns(self, workload: Workload, rounds: int) -> Sequence[tuple[Turn, Turn]]:
        """
        The warm-up and the turn of each round.
        """
        seconds = self.seconds * workload.share
        return [
            (Turn(f"{number}-warm", WARM_UP_SECONDS), Turn(f"{number}", seconds))
            for number in range(rounds)
        ]

    @contextmanager
    def _ready(
        self,
        workload: Workload,
        contender: Contender,
        turns: Sequence[tuple[Turn, Turn]],
    ) -> Iterator[Running]:
        """
        A server with the values that the load will read or overwrite. (The keys of a
        background load are new when it first sends them.)
        """
        medium = self.disk if workload.medium == "disk" else Medium(TMPFS)
        traffic = contender.load or workload.load
        with medium.place() as folder, ExitStack() as stack:
            start = contender.server.start
            running = stack.enter_context(start(self.programs, folder))
            try:
                traffic.store(self.programs, running, [*chain(*turns)])
            except BenchFailed as error:
                raise BenchFailed(f"{contender.name}: {error}") from error
            if traffic.cold:
                stack.close()
                running = stack.enter_context(start(self.programs, folder))
            yield running

    def _run(
        self,
        workload: Workload,
        contender: Contender,
        server: Running,
        turns: tuple[Turn, Turn],
        number: int,
    ) -> Run:
        traffic = contender.load or workload.load
        with ExitStack() as stack:
            if workload.background is not None:
                limit = self.seconds + _BACKGROUND_SECONDS
                stack.enter_context(
                    sending(self.programs, server.port, workload.background, limit)
                )
                time.sleep(_SETTLE_SECONDS)
            return self._measured(contender.name, traffic, server, turns, number)

    def _measured(
        self,
        name: str,
        traffic: Traffic,
        server: Running,
        turns: tuple[Turn, Turn],
        number: int,
    ) -> Run:
        """
        Load a server, and read its CPU time before and after.
        """
        warm_up, turn = turns
        traffic.run(self.programs, server, warm_up)
        began, before = time.monotonic(), cpu_seconds(server.pids)
        report = traffic.run(self.programs, server, turn)
        spent = cpu_seconds(server.pids) - before
        if not report.requests:
            raise BenchFailed(f"{name} answered nothing: {report.first_error}")
        return Run(name, number, report, spent, time.monotonic() - began)

    def _ceiling(self, workload: Workload) -> Run | None:
        """
        The same load to a server that opens no file for PUT, and for GET only sends
        files of tmpfs.
        """
        load = workload.load
        if not isinstance(load, Load):
            return None
        contender = Contender("ceiling", CServer("splice", null=load.method == "PUT"))
        ceiling = replace(workload, medium="tmpfs", background=None)
        turns = self._turns(workload, 1)
        with self._ready(ceiling, contender, turns) as server:
            return self._measured(contender.name, load, server, turns[0], 0)


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
