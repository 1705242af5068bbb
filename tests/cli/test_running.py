"""
Tests for `kvd.cli.running`.
"""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kvd.cli.running import each
from tests.patience import PATIENCE_SECONDS

STUCK = """
import time
from kvd.cli.running import run

async def work():
    print("begun", flush=True)
    time.sleep(3600)

run(work{stop})
"""


@pytest.mark.parametrize("stop", ["", ", lambda: None"])
def test_a_second_signal_ends_what_is_stuck_whichever_it_is(stop: str) -> None:
    """
    As where somebody presses Ctrl-C, and whoever started it ends it then.
    """
    with subprocess.Popen(
        [sys.executable, "-c", STUCK.format(stop=stop)], stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert b"begun\n" == process.stdout.readline()
            process.send_signal(signal.SIGINT)
            while catches(process.pid, signal.SIGINT):
                time.sleep(0.001)
            process.send_signal(signal.SIGTERM)
            assert -signal.SIGTERM == process.wait(PATIENCE_SECONDS)
        finally:
            process.kill()


def catches(pid: int, number: int) -> bool:
    """
    Whether a process has a handler for a signal, as in proc_pid_status(5).
    """
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (caught,) = [line for line in lines if line.startswith("SigCgt:")]
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


class EachTests(SynchronousTestCase):
    """
    `each` works on several things at once.
    """

    def test_what_is_closed_may_still_get_what_it_waited_for(self) -> None:
        """
        It cleans up, works no more, and nothing is logged.
        """
        waits: list[Deferred[None]] = []
        done: list[str] = []

        async def work(thing: str) -> None:
            waits.append(Deferred())
            try:
                await waits[-1]
                done.append(thing)
            except GeneratorExit:
                done.append(f"not {thing}")
                raise

        working = each("abc", work, lambda thing, error: thing, jobs=2)
        waiting = working.send(None)
        assert isinstance(waiting, Deferred)

        working.close()
        assert ["not a", "not b"] == done
        while waits:
            waits.pop().callback(None)

        assert ["not a", "not b"] == done
        # An error that nobody handled is logged as its Deferred is freed.
        del waiting, working
        gc.collect()
        assert [] == self.flushLoggedErrors()
