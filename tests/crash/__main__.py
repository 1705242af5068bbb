"""
``python -m tests.crash [KILLS]``: kills under load, for every policy, in figures.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from kvd.plugins import IPolicyDeclaration, declared
from tests.crash.killing import kill_workers


def main() -> int:
    """
    Print a line for each policy; fail if anything was wrong.
    """
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    wrong = 0
    for policy in declared(IPolicyDeclaration):
        with tempfile.TemporaryDirectory(prefix="kvd-crash-") as folder:
            report = kill_workers(policy, kills, Path(folder))
        with tempfile.TemporaryDirectory(prefix="kvd-crash-") as folder:
            spared = kill_workers(policy, kills, Path(folder), spare=True)
        print(
            f"{policy}: {kills} workers killed, {report.requests} requests,"
            f" {report.broken} broken, {len(report.wrong)} wrong; the longest that"
            f" succeeded took {report.longest_seconds * 1000:.0f} ms, and"
            f" {spared.longest_seconds * 1000:.0f} ms where nobody was killed; a worker"
            f" was stopped for {report.stopped_seconds * 1000:.0f} ms at most before",
            flush=True,
        )
        for sentence in report.wrong:
            print(f"  {sentence}")
        wrong += len(report.wrong)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
