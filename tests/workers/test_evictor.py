"""
The tests of `kvd.workers.evictor`: how the process is kept running.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from kvd.ipc.messages import Alive, Load, LogLine, receive, send
from kvd.settings import Settings
from kvd.workers.evictor import EvictorProcess


class WatchingClock(Clock):
    """
    A reactor with a clock that lets a test say when a socket is readable.
    """

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.remove(reader)

    def removeWriter(self, writer: Any) -> None:
        pass

    def read(self) -> None:
        """
        What is being watched is readable.
        """
        for reader in list(self.readers):
            reader.doRead()


class EvictorProcessTests(SynchronousTestCase):
    """
    The supervisor keeps one process running.
    """

    def setUp(self) -> None:
        self.clock = WatchingClock()
        self.theirs: list[socket.socket] = []
        self.fails = False
        self.memory = os.memfd_create("memory")
        self.addCleanup(os.close, self.memory)
        self.settings = Settings(max_size=1)
        self.evictor = EvictorProcess(
            self.settings, [self.memory], self.clock, self.spawn
        )
        self.addCleanup(self.evictor.stop)

    def spawn(self, control: socket.socket) -> subprocess.Popen[bytes]:
        """
        A process that ends at once; the test has its end of the socket.
        """
        if self.fails:
            raise OSError(11, "no process left")
        self.theirs.append(control.dup())
        self.addCleanup(self.theirs[-1].close)
        return subprocess.Popen([sys.executable, "-S", "-c", ""])

    def test_process_gets_what_it_needs(self) -> None:
        """
        The settings and the descriptors.
        """
        self.evictor.start()
        came = receive(self.theirs[0])

        assert came is not None
        message, (descriptor,) = came
        assert Load(self.settings) == message
        assert os.path.sameopenfile(descriptor, self.memory)
        os.close(descriptor)

    def test_its_lines_are_logged(self) -> None:
        """
        At their level.
        """
        self.evictor.start()
        with capturedLogs() as logs:
            send(self.theirs[0], LogLine("warn", "a disk fails"))
            self.clock.read()

        assert [("warn", "a disk fails")] == [
            (event["log_level"].name, event["text"]) for event in logs
        ]

    def test_process_that_ended_is_replaced(self) -> None:
        """
        At once; after a pause if it ends again. The log says what that means.
        """
        self.evictor.start()
        with capturedLogs() as logs:
            self.theirs[0].close()
            self.clock.read()
        assert "nothing is removed from the store" in logs[0]["log_format"]
        self.clock.advance(0)
        assert 2 == len(self.theirs)
        with capturedLogs():
            self.theirs[1].close()
            self.clock.read()
        self.clock.advance(0)
        assert 2 == len(self.theirs)
        self.clock.advance(60)
        assert 3 == len(self.theirs)

    def test_process_that_hangs_is_killed_and_replaced(self) -> None:
        """
        The log and its state name it.
        """
        self.evictor.watch(3)
        self.evictor.start()
        with capturedLogs() as logs:
            self.clock.advance(1)
            send(self.theirs[0], Alive())
            self.clock.read()
            for state in ("ready", "ready", "stalled", "starting"):
                self.clock.advance(1)
                assert state == self.evictor.state().state
        assert ["hang"] == [event["happened"] for event in logs]
        assert 2 == len(self.theirs)
        assert 1 == self.evictor.state().hangs

    def test_start_that_fails_is_tried_again(self) -> None:
        """
        The reason is logged, and nothing stays open.
        """
        self.fails = True
        with capturedLogs() as logs:
            self.evictor.start()
        assert "no process left" == logs[0]["reason"]
        assert [] == self.clock.readers
        self.fails = False
        self.clock.advance(60)
        assert 1 == len(self.theirs)

    def test_end_closes_its_socket(self) -> None:
        """
        Which is how it learns of it. No other one is started.
        """
        self.evictor.start()
        came = receive(self.theirs[0])
        assert came is not None
        os.close(came[1][0])
        self.evictor.stop()

        assert receive(self.theirs[0]) is None
        self.clock.advance(100)
        assert 1 == len(self.theirs)
