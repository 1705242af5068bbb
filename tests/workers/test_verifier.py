"""
The tests of `kvd.workers.verifier`: when the process is started, and how it ends.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
from argon2 import PasswordHasher
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from kvd.access.verifying import Verifier
from kvd.workers import verifier
from kvd.workers.verification import NICE
from kvd.workers.verifier import VerifierProcess
from tests.descriptors import Descriptors


@contextmanager
def real_time() -> Iterator[None]:
    """
    This thread has a real-time priority, as what it starts.
    """
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def may_be_real_time() -> bool:
    """
    Whether this process may have one.
    """
    try:
        with real_time():
            return True
    except PermissionError:
        return False


class PollingClock(Clock):
    """
    A reactor with a clock, which watches descriptors when it is told to.
    """

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        if reader not in self.readers:
            self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        if reader in self.readers:
            self.readers.remove(reader)

    def poll(self, seconds: float = 0) -> bool:
        """
        Whether something could be read within this time; its readers are called.
        """
        readable, _, _ = select.select(self.readers, [], [], seconds)
        for reader in readable:
            reader.doRead()
        return bool(readable)


class VerifierProcessTests(SynchronousTestCase):
    """
    A process runs when there are passwords to verify.
    """

    def setUp(self) -> None:
        self.clock = PollingClock()
        self.processes: list[subprocess.Popen[bytes]] = []
        self.fails = False
        self.kept = VerifierProcess(self.clock, self.spawn)
        self.addCleanup(self.kept.stop)

    def spawn(self, requests: socket.socket) -> subprocess.Popen[bytes]:
        """
        A process that waits until it is killed, or its input ends.
        """
        if self.fails:
            raise OSError(11, "no process left")
        waiting = [sys.executable, "-S", "-c", "input()"]
        self.processes.append(subprocess.Popen(waiting, stdin=subprocess.PIPE))
        return self.processes[-1]

    def ask(self) -> None:
        """
        A password is to be verified.
        """
        self.kept.asking.send(b"hash\0password")

    def end(self) -> None:
        """
        The newest process ends, and the supervisor sees that.
        """
        process = self.processes[-1]
        process.kill()
        assert process.stdin is not None
        process.stdin.close()
        assert self.clock.poll(60)

    def test_it_is_started_when_it_is_needed(self) -> None:
        """
        Once, however much waits for it.
        """
        assert not self.clock.poll()
        self.ask()
        assert self.clock.poll()
        self.ask()
        assert not self.clock.poll()
        assert 1 == len(self.processes)
        with capturedLogs():
            self.end()

    def test_it_is_replaced_when_it_is_needed(self) -> None:
        """
        With a pause, if it ends again and again; the log says what that means. What it
        has not answered is refused.
        """
        self.kept.start()
        self.kept.start()
        assert 1 == len(self.processes)
        answers, answer = os.pipe()
        socket.send_fds(self.kept.asking, [b"hash\0password"], [answer])
        os.close(answer)
        with capturedLogs() as logs:
            self.end()
        assert "no password is verified" in logs[0]["log_format"]
        assert b"" == os.read(answers, 1)
        os.close(answers)
        self.clock.advance(0)
        assert not self.clock.poll()
        self.ask()
        assert self.clock.poll()
        assert 2 == len(self.processes)
        with capturedLogs() as logs:
            self.end()
        self.ask()
        assert not self.clock.poll()
        self.clock.advance(logs[0]["pause"])
        assert self.clock.poll()
        assert 3 == len(self.processes)
        with capturedLogs() as logs:
            self.end()
        assert 0.1 <= logs[0]["pause"]

    def test_one_that_hangs_is_killed(self) -> None:
        """
        It neither answers nor computes. The log names it, and who waits is refused.
        """
        self.kept.watch(3)
        assert self.kept.state() is None
        self.kept.start()
        (process,) = self.processes
        answers, answer = os.pipe()
        socket.send_fds(self.kept.asking, [b"hash\0password"], [answer])
        os.close(answer)
        with capturedLogs() as logs:
            # Until it computes no more: it waits for its input.
            while not logs:
                self.clock.advance(1)
            assert self.clock.poll(60)
        assert process.stdin is not None
        process.stdin.close()
        assert "hang" == logs[0]["happened"]
        assert b"" == os.read(answers, 1)
        os.close(answers)
        state = self.kept.state()
        assert state is not None
        assert ("waiting", 1) == (state.state, state.hangs)

    def test_question_that_cannot_be_sent_leaves_nothing_open(self) -> None:
        """
        As when too many descriptors are on their way (unix(7)).
        """
        opened = Descriptors("pipe:")
        self.kept.start()
        pipes = opened.more
        with mock.patch(
            "socket.send_fds", side_effect=OSError(errno.ETOOMANYREFS, "too many")
        ):
            for _ in range(2):
                with pytest.raises(OSError, match="too many"):
                    self.clock.advance(1)

        assert pipes == opened.more
        with capturedLogs():
            self.end()

    def test_start_that_fails_is_tried_again(self) -> None:
        """
        When there is something to verify. The reason is logged.
        """
        self.fails = True
        self.ask()
        with capturedLogs() as logs:
            self.clock.poll()
        assert "no process left" == logs[0]["reason"]
        assert [] == self.clock.readers
        self.fails = False
        self.clock.advance(60)
        self.ask()
        self.clock.poll()
        with capturedLogs():
            self.end()

    @pytest.mark.skipif(not may_be_real_time(), reason="it takes CAP_SYS_NICE")
    def test_a_daemon_at_a_real_time_priority(self) -> None:
        """
        Does not pass it on: a password would hold up all who are served for tens of
        milliseconds, and nice(2) means nothing there.
        """
        clock = PollingClock()
        processes = []

        def spawn(requests: socket.socket) -> subprocess.Popen[bytes]:
            with real_time():
                processes.append(verifier.spawn(requests))
            return processes[-1]

        kept = VerifierProcess(clock, spawn)
        kept.asking.send(b"no descriptor")
        clock.poll()
        cheap = PasswordHasher(1, 8, 1).hash("secret")

        assert Verifier(kept.asking).has_password(cheap, "secret")
        assert os.SCHED_OTHER == os.sched_getscheduler(processes[0].pid)
        assert NICE == os.getpriority(os.PRIO_PROCESS, processes[0].pid)
        kept.stop()

    def test_the_true_process(self) -> None:
        """
        Verifies at a low priority, and ends with the daemon, also where others
        have its socket open.
        """
        before = len(os.listdir("/proc/self/fd"))
        clock = PollingClock()
        processes = []

        def spawn(requests: socket.socket) -> subprocess.Popen[bytes]:
            processes.append(verifier.spawn(requests))
            return processes[-1]

        kept = VerifierProcess(clock, spawn)
        other = kept.asking.dup()
        kept.asking.send(b"no descriptor")
        clock.poll()
        cheap = PasswordHasher(1, 8, 1).hash("secret")

        assert Verifier(other).has_password(cheap, "secret")
        assert not Verifier(other).has_password(cheap, "guess")
        assert NICE == os.getpriority(os.PRIO_PROCESS, processes[0].pid)
        kept.stop()
        assert 0 == processes[0].returncode
        other.close()
        assert before == len(os.listdir("/proc/self/fd"))
