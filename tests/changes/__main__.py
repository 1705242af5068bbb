"""
``python -m tests.changes [SWITCHES [RESIZES [UPGRADES]]]``: changes under load.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from kvd.plugins import IPolicyDeclaration, declared
from tests.changes.changing import (
    FURTHER_POLICIES,
    Act,
    restart_under,
    switch_and_resize,
    under_load,
    upgrade_under,
)
from tests.integration.twistd import EXEC

CLIENTS: Final = 64


def main() -> int:
    """
    Print a line for each run; fail if anything was wrong.
    """
    switches = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    resizes = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    upgrades = int(sys.argv[3]) if len(sys.argv) > 3 else 10
    acts: dict[str, Act] = {
        f"{switches} switches of policy, {resizes} changes of the number of workers": (
            switch_and_resize(switches, resizes)
        )
    }
    for policy in (*declared(IPolicyDeclaration), *FURTHER_POLICIES):
        acts[f"a rolling restart, {policy}"] = restart_under(policy)
        acts[f"{upgrades} upgrades, {policy}"] = upgrade_under(policy, upgrades)
    wrong = 0
    for name, act in acts.items():
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="kvd-changes-") as folder:
            # As another program, which an upgrade starts again.
            report = under_load(CLIENTS, Path(folder), act, EXEC)
        print(
            f"{name}: {time.monotonic() - began:.0f} s, {CLIENTS} clients,"
            f" {report.requests} requests, {report.broken + report.refused} without a"
            f" reply, {len(report.wrong)} wrong; the longest took"
            f" {report.longest_seconds * 1000:.0f} ms",
            flush=True,
        )
        for sentence in report.wrong:
            print(f"  {sentence}")
        wrong += len(report.wrong)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
