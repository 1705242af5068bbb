"""
Tests for `tests.processes`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

from tests.patience import PATIENCE_SECONDS
from tests.processes import has_ended, state_of, states_of_threads, stop_all

SPAWNS = """
import os, sys, threading
held = [(os.POSIX_SPAWN_OPEN, 0, sys.argv[1], os.O_RDONLY, 0)]
def spawn():
    os.posix_spawn("/bin/true", ["true"], {}, file_actions=held)
threading.Thread(target=spawn).start()
"""
"""
A thread that starts a program, which takes until somebody opens a pipe: meanwhile it is
in a call of the kernel's that no stop interrupts (vfork(2)).
"""


def test_process_that_is_stopped_stands_still_in_all_threads(tmp_path: Path) -> None:
    """
    One may be in a call of the kernel when the first stands already.
    """
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    sleep, opened = time.sleep, list[int]()

    def pause(seconds: float) -> None:
        if state_of(process.pid) == "T" and not opened:
            opened.append(os.open(pipe, os.O_WRONLY))
        sleep(seconds)

    with subprocess.Popen([sys.executable, "-c", SPAWNS, pipe]) as process:
        end = time.monotonic() + PATIENCE_SECONDS
        while "D" not in states_of_threads(process.pid):
            assert time.monotonic() < end
            sleep(0.001)
        try:
            with mock.patch("time.sleep", pause):
                stop_all([process.pid])
            assert {"T"} == states_of_threads(process.pid)
        finally:
            opened = opened or [os.open(pipe, os.O_WRONLY)]
            process.kill()
            os.close(opened[0])


def test_process_that_has_ended_is_not_waited_for() -> None:
    """
    Whether somebody has reaped it or not.
    """
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert has_ended(process.pid)
        stop_all([process.pid])
    with mock.patch("os.kill", side_effect=ProcessLookupError) as kill:
        stop_all([process.pid])

    kill.assert_called_once_with(process.pid, signal.SIGSTOP)
