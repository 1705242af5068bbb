"""
The process that verifies passwords (`kvd.access.verifying`). `kvd.workers.verifier`
starts it.

It imports little: it is one more process, and whoever waits for it waits for that too.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from typing import Final

from kvd.access.verifying import Answering
from kvd.system.code import REPLACED, fingerprint
from kvd.system.inherited import reset_signals

NICE: Final = 10
"""
While all processors are busy, it gets a tenth of the time of a worker (sched(7)). With
19, it would be a seventieth, and whoever logs in on a machine that compiles beside kvd
would wait for longer than clients do.
"""

MOST_AT_ONCE: Final = 4
"""
Passwords that are verified at the same time, where there are twice as many processors.
"""


def main(descriptor: int, code: str) -> None:
    """
    Run the process until nobody is left who could ask.

    Args:
        descriptor: Of the socket on which requests come.
        code: The fingerprint of the daemon's code; nothing runs if this process has
            loaded other code.
    """
    if fingerprint() != code:
        raise SystemExit(f"kvd: {REPLACED}")
    reset_signals()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    # Not before: to start takes longer than to verify, and happens once.
    os.setpriority(os.PRIO_PROCESS, 0, NICE)
    requests = socket.socket(fileno=descriptor)
    answering = Answering(requests)
    at_once = min(MOST_AT_ONCE, (os.cpu_count() or 1) // 2)
    for _ in range(at_once - 1):
        threading.Thread(target=answering.run).start()
    answering.run()
