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
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any, Final

from kvd.admin.control.asking import ControlSocket
from kvd.plugins import IPolicyDeclaration, declared
from tests.changes.changing import FURTHER_POLICIES, under_load
from tests.crash.load import Cut
from tests.integration.twistd import EXEC
from tests.patience import PATIENCE_SECONDS
from tests.processes import has_ended, peers_of, state_of

CLIENTS: Final = 8
PAUSE_SECONDS: Final = 0.02
"""
Half of the processors is left to what is started anew.
"""

OPTIONS: Final = {"hangs": ("--procs=8", "--hang-timeout=3s")}
LINES: Final = 100
"""
How many of the last lines of the log are shown where something was wrong.
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
    hung: list[tuple[float, set[int] | None]] = field(default_factory=list)
    """When workers were stopped, and the ports of the clients that they had; None if
    this process got no processor until they were replaced."""
    switched: list[tuple[float, str]] = field(default_factory=list)
    """When each policy was put in force."""
    found: int = 0
    """How many workers were found to hang."""
    replaced_seconds: float = 0.0
    """How long it took at most until others served in their place."""

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
            yield policy

    def upgrade(self, asked: ControlSocket, chance: random.Random) -> None:
        """
        New code takes over, whatever policy is in force.
        """
        for policy in self.steps():
            asked.change("policy", {"policy": policy})
            asked.upgrade()

    def reload(self, asked: ControlSocket, chance: random.Random) -> None:
        """
        SIGHUP: all workers are replaced, one after the other.
        """
        for policy in self.steps():
            asked.change("policy", {"policy": policy})
            status = asked.status()
            self.write_settings()
            os.kill(status["pid"], signal.SIGHUP)
            await_others(asked, pids_of(status))

    def hang(self, asked: ControlSocket, chance: random.Random) -> None:
        """
        Most workers are stopped, and kvd replaces them.
        """
        for policy in self.steps():
            asked.change("policy", {"policy": policy})
            self.switched.append((time.monotonic(), policy))
            pids = chance.sample(pids_of(asked.status()), WORKERS_THAT_HANG)
            began = time.monotonic()
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            # What they have now ends with them, and nothing else may. Nobody knows
            # when it ends: the kernel may close connections of a process that was
            # killed when its replacement serves already.
            ports = peers_of_stopped(pids)
            self.hung.append((time.monotonic(), ports))
            await_others(asked, pids)
            took = time.monotonic() - began
            self.replaced_seconds = max(self.replaced_seconds, took)
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
        Whether a worker that hung had this connection.
        """
        return bool(self._stops_of(cut))

    def _stops_of(self, cut: Cut) -> list[float]:
        """
        When workers were stopped that had this connection.
        """
        return [
            stopped
            for stopped, ports in self.hung
            if cut.connected <= stopped <= cut.ended
            and (ports is None or cut.port in ports)
        ]

    def cut_seconds(self, cut: Cut) -> float:
        """
        How long after its worker was stopped a connection ended.
        """
        return cut.ended - max(self._stops_of(cut))


def pids_of(status: dict[str, Any]) -> list[int]:
    """
    The processes of all workers.
    """
    return [row["pid"] for row in status["workers"] if row["pid"]]


def peers_of_stopped(pids: Collection[int]) -> set[int] | None:
    """
    The ports of the clients of workers that were sent SIGSTOP; None if one of them is
    gone already.
    """
    ports = set()
    for pid in pids:
        # One that is in a call of the kernel finishes that first.
        while (state := state_of(pid)) not in {"T", ""}:
            time.sleep(0.001)
        try:
            ports |= peers_of(pid)
        except FileNotFoundError:
            assert not state or has_ended(pid)
            return None
    return ports


def await_others(asked: ControlSocket, before: Collection[int]) -> None:
    """
    Wait until other processes than these serve.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        status = asked.status()
        states = {row["state"] for row in status["workers"]}
        if states == {"ready"} and not set(pids_of(status)) & set(before):
            return
        assert time.monotonic() < deadline, f"workers are {states}, {before} replaced"
        time.sleep(0.02)


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
            *(CLIENTS, run.folder, acts[kind], EXEC, PAUSE_SECONDS),
            options,
            run.was_hung,
        )
    print(
        f"{run.done} {kind}: {time.monotonic() - began:.0f} s, {CLIENTS} clients,"
        f" {report.requests} requests, {report.broken + report.refused} without a"
        f" reply, {len(report.wrong)} wrong; the longest took"
        f" {report.longest_seconds * 1000:.0f} ms",
        flush=True,
    )
    if run.hung:
        cut = max(map(run.cut_seconds, filter(run.was_hung, report.cut)), default=0.0)
        others = run.found - len(run.hung) * WORKERS_THAT_HANG
        unseen = sum(ports is None for _, ports in run.hung)
        print(
            f"  hung workers were replaced after {run.replaced_seconds:.2f} s at most,"
            f" and what they served was cut after {cut:.2f} s; {others} others were"
            f" found to hang, as on a machine that stands still, and {unseen} times"
            " this process came too late to see what was served",
            flush=True,
        )
        each = run.longest_under(report.slow).items()
        text = ", ".join(f"{policy} {seconds:.2f} s" for policy, seconds in each)
        print(f"  the longest request under each policy: {text}", flush=True)
    for sentence in report.wrong:
        print(f"  {sentence}", flush=True)
    if report.wrong:
        print("".join(f"    {line}" for line in report.log[-LINES:]), flush=True)
    return len(report.wrong)


def main(arguments: Sequence[str]) -> int:
    """
    Run all daemons; fail if anything was wrong.
    """
    given = [float(each) for each in arguments]
    upgrades, reloads, hangs, minutes = given + [20, 20, 20, 15][len(given) :]
    # An upgrade computes on one processor after the other.
    wanted = {
        "upgrades": [int(upgrades) // 2, int(upgrades) - int(upgrades) // 2],
        "reloads": [int(reloads)],
        "hangs": [int(hangs)],
    }
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", __spec__.name, kind, str(number), str(minutes)]
        )
        for kind, numbers in wanted.items()
        for number in numbers
        if number
    ]
    return max(run.wait() for run in runs)


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1].isalpha():
        kind, wanted, minutes = sys.argv[1:]
        sys.exit(bool(run_one(kind, int(wanted), float(minutes))))
    sys.exit(main(sys.argv[1:]))
