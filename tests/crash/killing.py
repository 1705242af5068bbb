"""
Killing workers at random while clients check what they were promised.
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any, Final

from kvd.control.asking import ControlSocket
from tests.crash.load import Load, Report
from tests.integration.twistd import Twistd

CLIENTS: Final = 12
WORKERS: Final = 4
STOPPED_SECONDS: Final = 0.002
"""
Between the stop of a worker, so that its connections can be counted, and its
end.
"""


def kill_workers(
    policy: str, kills: int, folder: Path, seed: int = 1, spare: bool = False
) -> Report:
    """
    Serve under load and kill workers.

    Args:
        policy: Under which they serve.
        kills: How many die.
        folder: Empty.
        seed: Of chance.
        spare: Kill none of them, to compare with.

    Returns:
        What the clients saw; more broken requests than there were connections
        on the killed workers is among the wrong.
    """
    chance = random.Random(seed)
    control = folder / "control"
    options = [
        *["--policy", policy, "--procs", str(WORKERS)],
        *["--store", f"file:{folder}/values", "--durability", "process"],
        *["--control", str(control)],
    ]
    open_on_killed = 0
    with Twistd(options, folder) as daemon, Load(daemon.port, CLIENTS) as load:
        asked = ControlSocket(str(control))
        for _ in range(kills):
            time.sleep(chance.uniform(0.02, 0.12))
            if not spare:
                open_on_killed += _kill_one(asked, chance)
        asked.close()
        time.sleep(0.1)
        # The clients read everything once more while the daemon still serves.
        load.__exit__()
    report = load.report
    if report.broken > open_on_killed:
        report.wrong.append(
            f"{report.broken} requests broke, but the killed workers had only"
            f" {open_on_killed} connections"
        )
    return report


def _kill_one(asked: ControlSocket, chance: random.Random) -> int:
    """
    Stop a ready worker, count its connections, and end it.
    """
    ready = [w for w in asked.status()["workers"] if w["state"] == "ready"]
    worker: dict[str, Any] = chance.choice(ready)
    pidfd = os.pidfd_open(worker["pid"])
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
        time.sleep(STOPPED_SECONDS)
        row = asked.status()["workers"][worker["worker"]]
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)
    assert worker["pid"] == row["pid"]
    return int(row["open"])
