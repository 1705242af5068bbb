"""
``python -m tests.crash [KILLS]``: kills under load, and a worker that is stopped, for
every policy, in figures.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from kvd.plugins import IPolicyDeclaration, declared
from kvd.settings import Durability
from tests.crash.killing import kill_workers
from tests.crash.stopping import stop_a_worker

STOP_REQUESTS = 2000


def main() -> int:
    """
    Print a line for each policy; fail if anything was wrong.
    """
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    wrong = 0
    runs: list[tuple[str, Durability]]
    runs = [(policy, "process") for policy in declared(IPolicyDeclaration)]
    for policy, durability in (*runs, ("reuseport", "disk")):
        reports = []
        for spare in (False, True):
            with tempfile.TemporaryDirectory(prefix="kvd-crash-") as folder:
                reports.append(
                    kill_workers(
                        policy,
                        kills,
                        Path(folder),
                        spare=spare,
                        durability=durability,
                    )
                )
        report, spared = reports
        print(
            f"{policy}, {durability}: {kills} workers killed, {report.requests}"
            f" requests, {report.broken} broken, {len(report.wrong)} wrong; the longest"
            f" that succeeded took {report.longest_seconds * 1000:.0f} ms, and"
            f" {spared.longest_seconds * 1000:.0f} ms where nobody was killed; a worker"
            f" was stopped for {report.stopped_seconds * 1000:.0f} ms at most before",
            flush=True,
        )
        for sentence in report.wrong:
            print(f"  {sentence}")
        wrong += len(report.wrong)
    for policy in declared(IPolicyDeclaration):
        with tempfile.TemporaryDirectory(prefix="kvd-crash-") as folder:
            stop = stop_a_worker(policy, Path(folder), STOP_REQUESTS)
        print(
            f"{policy}: {STOP_REQUESTS} new connections while a worker was stopped,"
            f" statuses {sorted(stop.statuses)}; the longest request took"
            f" {stop.longest_seconds * 1000:.0f} ms",
            flush=True,
        )
        wrong += {200} != stop.statuses
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
