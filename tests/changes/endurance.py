"""
``python -m tests.changes.endurance [UPGRADES [RELOADS [HANGS [MINUTES]]]]``: daemons
that are upgraded, read other settings, and have workers that hang, so many times under
load, side by side; no longer than so many minutes.

Each daemon has a process for its clients: threads of one would wait for each other.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import cycle
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Final

from kvd.admin.control.asking import ControlSocket
from kvd.plugins import IPolicyDeclaration, declared
from tests.changes.changing import FURTHER_POLICIES, under_load
from tests.changes.hanging import Hung, await_others, hang, hang_until, workers_of
from tests.crash.load import Cut, Report
from tests.integration.twistd import EXEC

CLIENTS: Final = 8
PAUSE_SECONDS: Final = {"upgrades": 0.2, "reloads": 0.2, "hangs": 0.05}
"""
Of each client, on average. Most of the processors is left to what is started anew: an
upgrade takes two seconds of one.
"""

HANG_SECONDS: Final = 3
OPTIONS: Final = {
    "hangs": ("--procs=8", f"--hang-timeout={HANG_SECONDS}s"),
    # A worker that hangs as its daemon is upgraded is killed when its time to drain is
    # over, which is to be before its clients give up.
    "upgrades": (f"--hang-timeout={HANG_SECONDS}s", f"--drain-timeout={HANG_SECONDS}s"),
}
LOGS: Final = Path("build", "endurance")
"""
Where the log of a daemon is kept if something was wrong.
"""

HANGING_SHARE: Final = 0.25
"""
Of the upgrades: so many are of a daemon of which half of the workers hang.
"""

WORKERS_THAT_HANG: Final = 6
"""
At once.
"""


def policies() -> Iterator[str]:
    """
    All of them, again and again.
    """
    return cycle([*declared(IPolicyDeclaration), *FURTHER_POLICIES])


@dataclass
class Run:
    """
    One daemon, and what is done to it until the end.
    """

    folder: Path
    wanted: int
    until: float
    done: int = 0
    hung: list[Hung] = field(default_factory=list)
    """The workers that were stopped."""
    switched: list[tuple[float, str]] = field(default_factory=list)
    """When each policy was put in force."""
    found: int = 0
    """How many workers were found to hang."""
    loads: list[float] = field(default_factory=list)
    """The load averages of the machine: what waits for a processor tells little of
    kvd."""

    @property
    def settings(self) -> Path:
        """
        The file, which is there once it has been written.
        """
        return self.folder / "kvd.toml"

    def write_settings(self) -> None:
        """
        Other ones each time.
        """
        self.settings.write_text(f"[limits]\nmax-connections = {1000 + self.done}\n")

    def steps(self) -> Iterator[str]:
        """
        A policy for each time, as long as there is time.
        """
        for policy in policies():
            if self.done >= self.wanted or time.monotonic() >= self.until:
                return
            self.done += 1
            self.loads.append(os.getloadavg()[0])
            yield policy

    def upgrade(self, asked: ControlSocket, chance: random.Random) -> None:
        """
        New code takes over, whatever policy is in force; sometimes from a daemon of
        which some workers have just stopped.
        """
        for policy in self.steps():
            asked.change("policy", {"policy": policy})
            if chance.random() >= HANGING_SHARE:
                asked.upgrade()
                continue
            workers = sorted(workers_of(asked.status()).items())
            chosen = dict(chance.sample(workers, len(workers) // 2))

            def replaced_at(of: dict[int, int] = chosen) -> dict[int, float]:
                asked.upgrade()
                return dict.fromkeys(of, time.monotonic())

            self.hung += hang_until(replaced_at, chosen)

    def reload(self, asked: ControlSocket, chance: random.Random) -> None:
        """
        SIGHUP: all workers are replaced, one after the other.
        """
        for policy in self.steps():
            asked.change("policy", {"policy": policy})
            status = asked.status()
            self.write_settings()
            os.kill(status["pid"], signal.SIGHUP)
            await_others(asked, workers_of(status))

    def hang(self, asked: ControlSocket, chance: random.Random) -> None:
        """
        Most workers are stopped, and kvd replaces them.
        """
        # Beside the threads of the clients, a look that takes milliseconds took longer
        # than kvd leaves a worker that hangs.
        with ProcessPoolExecutor(1, get_context("spawn")) as beside:
            for policy in self.steps():
                asked.change("policy", {"policy": policy})
                self.switched.append((time.monotonic(), policy))
                workers = sorted(workers_of(asked.status()).items())
                chosen = dict(chance.sample(workers, WORKERS_THAT_HANG))
                control = str(self.folder / "control")
                self.hung += beside.submit(hang, control, chosen).result()
                self.done += WORKERS_THAT_HANG - 1
        self.found = asked.status()["hangs"]

    def longest_under(self, slow: Collection[tuple[float, float]]) -> dict[str, float]:
        """
        How long the longest request took under each policy, in seconds.

        Args:
            slow: When each began that may be the longest, and how long it took.
        """
        longest = {policy: 0.0 for _, policy in self.switched}
        for began, seconds in slow:
            before = [policy for at, policy in self.switched if at <= began]
            if before:
                longest[before[-1]] = max(longest[before[-1]], seconds)
        return longest

    def was_hung(self, cut: Cut) -> bool:
        """
        Whether a worker that hung had this connection, for certain.
        """
        return any(hung.had(cut) for hung in self.hung)

    def sentences(self, report: Report) -> Iterator[str]:
        """
        What became of the workers that were stopped, and of what they served.
        """
        if not self.switched:
            excused = sum(map(self.was_hung, report.cut))
            yield (
                f"{len(self.hung)} workers hung as their daemons were upgraded, and"
                f" {excused} requests failed that they had"
            )
            return
        seconds = [hung.replaced - hung.began for hung in self.hung]
        late = sum(each > HANG_SECONDS + 1 for each in seconds)
        yield (
            f"hung workers were replaced after {max(seconds):.2f} s at most,"
            f" {fmean(seconds):.2f} on average, {late} of them later than a second"
            f" after --hang-timeout ({HANG_SECONDS} s)"
        )
        lost = [
            (hung, cut) for cut in report.cut for hung in self.hung if hung.had(cut)
        ]
        before = sum(cut.began <= hung.stopped for hung, cut in lost)
        longest = max((cut.ended - hung.stopped for hung, cut in lost), default=0.0)
        yield (
            f"{before} requests were in service on them, and {len(lost) - before} came"
            f" over connections that they kept; the last ended after {longest:.2f} s"
        )
        unseen = sum(hung.ports is None for hung in self.hung)
        yield (
            f"{self.found - len(self.hung)} others were found to hang, as on a machine"
            f" that stands still; of {unseen} nobody saw what they served, which counts"
            " as wrong"
        )
        each = self.longest_under(report.slow).items()
        text = ", ".join(f"{policy} {seconds:.2f} s" for policy, seconds in each)
        yield f"the longest request under each policy: {text}"


def run_one(kind: str, wanted: int, minutes: float) -> int:
    """
    Print what became of the requests to one daemon.

    Args:
        kind: What is done to it.
        wanted: How often.
        minutes: How long at most.

    Returns:
        How much was wrong.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kvd-endurance-") as folder:
        run = Run(Path(folder), wanted, began + 60 * minutes)
        acts = {"upgrades": run.upgrade, "reloads": run.reload, "hangs": run.hang}
        run.write_settings()
        options = [f"--config={run.settings}", *OPTIONS.get(kind, ())]
        report = under_load(
            *(CLIENTS, run.folder, acts[kind], EXEC, PAUSE_SECONDS[kind]),
            options,
            run.was_hung,
        )
    print(
        f"{run.done} {kind}: {time.monotonic() - began:.0f} s, {CLIENTS} clients,"
        f" {report.requests} requests, {report.broken + report.refused} without a"
        f" reply, {len(report.wrong)} wrong; the longest took"
        f" {report.longest_seconds * 1000:.0f} ms,"
        f" {sum(seconds > 1 for _, seconds in report.slow)} more than a second;"
        f" the load average was {fmean(run.loads):.1f},"
        f" and {max(run.loads):.1f} at most",
        flush=True,
    )
    if run.hung:
        for sentence in run.sentences(report):
            print(f"  {sentence}", flush=True)
    for sentence in report.wrong:
        print(f"  {sentence}", flush=True)
    if report.wrong:
        LOGS.mkdir(parents=True, exist_ok=True)
        log = LOGS / f"{kind}-{os.getpid()}.log"
        log.write_text("".join(report.log))
        print(
            f"  the log is in {log}; {time.monotonic():.3f} of the monotonic clock is"
            f" {datetime.now(UTC).isoformat()}",
            flush=True,
        )
    return len(report.wrong)


def main(arguments: Sequence[str]) -> int:
    """
    Run all daemons; fail if anything was wrong.
    """
    given = [float(each) for each in arguments]
    upgrades, reloads, hangs, minutes = given + [20, 20, 20, 15][len(given) :]
    # One daemon for each: two that start processes all the time would take the
    # processors from what replaces a hung worker.
    wanted = {"upgrades": int(upgrades), "reloads": int(reloads), "hangs": int(hangs)}
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", __spec__.name, kind, str(number), str(minutes)]
        )
        for kind, number in wanted.items()
        if number
    ]
    statuses = [run.wait() for run in runs]
    # Below 0 for one that was killed.
    return int(any(statuses))


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1].isalpha():
        kind, wanted, minutes = sys.argv[1:]
        sys.exit(bool(run_one(kind, int(wanted), float(minutes))))
    sys.exit(main(sys.argv[1:]))
