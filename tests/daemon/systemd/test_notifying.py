"""
Tests for `kvd.daemon.systemd.notifying`, with a socket that stands for systemd's.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from kvd.daemon.systemd import notifying
from kvd.daemon.systemd.notifying import Notifier, take_notifier
from tests.no_threads import no_more_threads


class NotifierTests(SynchronousTestCase):
    """
    `Notifier` notifies systemd, and needs nobody to listen.
    """

    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.place = str(Path(folder.name) / "notify")
        self.systemd = self.bound(self.place)
        self.clock = Clock()

    def bound(self, place: str) -> socket.socket:
        """
        systemd's end.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(sock.close)
        sock.bind(place)
        sock.setblocking(False)
        return sock

    def received(self) -> list[str]:
        """
        What has been sent since.
        """
        states = []
        while True:
            try:
                states.append(self.systemd.recv(4096).decode())
            except BlockingIOError:
                return states

    def notifier(self, **variables: str) -> Notifier:
        """
        As the environment has it.
        """
        environ = {"NOTIFY_SOCKET": self.place, **variables}
        notifier = take_notifier(environ)
        self.addCleanup(notifier.close)
        assert {} == environ
        return notifier

    def test_a_life_is_reported(self) -> None:
        """
        Ready with a line for people, reading the settings again and ready again, and
        stopping.
        """
        notifier = self.notifier()
        before = time.monotonic_ns() // 1000
        notifier.ready("serves", self.clock)
        notifier.reloading()
        notifier.ready("serves more", self.clock)
        notifier.stopping()
        after = time.monotonic_ns() // 1000
        ready, reloading, again, stopping = self.received()

        assert "READY=1\nSTATUS=serves" == ready
        assert "READY=1\nSTATUS=serves more" == again
        assert stopping.startswith("STOPPING=1\nSTATUS=")
        first, moment, _ = reloading.split("\n")
        assert "RELOADING=1" == first
        assert before <= int(moment.removeprefix("MONOTONIC_USEC=")) <= after

    def test_another_process_becomes_the_main_one(self) -> None:
        """
        It notifies the same service manager, of the same watchdog; this one no more.
        """
        notifier = self.notifier(WATCHDOG_USEC="3000000")
        notifier.ready("serves", self.clock)
        self.received()
        notifier.hand_on(123)
        notifier.stopping()
        self.clock.advance(10)

        assert ["MAINPID=123"] == self.received()
        assert {
            "NOTIFY_SOCKET": self.place,
            "WATCHDOG_USEC": "3000000",
        } == notifier.environment
        assert {} == Notifier("").environment

    def test_an_abstract_name_is_no_path(self) -> None:
        """
        It is written with an ``@``.
        """
        name = f"kvd-test-{os.getpid()}"
        self.systemd = self.bound(f"\0{name}")
        self.notifier(NOTIFY_SOCKET=f"@{name}").ready("serves", self.clock)

        assert ["READY=1\nSTATUS=serves"] == self.received()

    def test_the_watchdog_hears_twice_in_its_time(self) -> None:
        """
        From when kvd serves until its end, however often it is ready.
        """
        notifier = self.notifier(WATCHDOG_USEC="3000000", WATCHDOG_PID=f"{os.getpid()}")
        self.clock.advance(10)
        assert [] == self.received()
        notifier.ready("serves", self.clock)
        notifier.ready("serves", self.clock)
        self.received()
        self.clock.pump([1.5, 1.5])
        assert ["WATCHDOG=1"] * 2 == self.received()
        notifier.close()

        assert [] == self.clock.getDelayedCalls()

    def test_the_watchdog_hears_where_there_are_no_descriptors_left(self) -> None:
        """
        Clients may have taken them all; the daemon lives all the same.
        """
        notifier = self.notifier(WATCHDOG_USEC="3000000")
        none_left = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        with mock.patch("socket.socket", side_effect=none_left):
            notifier.ready("serves", self.clock)
            self.clock.advance(1.5)

        assert ["READY=1\nSTATUS=serves", *["WATCHDOG=1"] * 2] == self.received()

    def test_the_end_comes_behind_what_waits(self) -> None:
        """
        Nothing can be sent after it.
        """
        self.patch(notifying, "SEND_SECONDS", 60.0)
        count = self.fill()
        notifier = self.notifier()
        notifier.stopping()
        notifier.close()
        notifier.close()
        notifier.stopping()
        self.systemd.setblocking(True)
        states = [self.systemd.recv(4096).decode() for _ in range(count + 1)]
        self.systemd.setblocking(False)
        assert states[-1].startswith("STOPPING=1\n")
        assert notifier._writer.wait(60.0)

        assert [] == self.received()

    def test_the_watchdog_of_another_process_receives_nothing(self) -> None:
        """
        Nor one that waits for no time, or for none that can be read.
        """
        for variables in (
            {"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"},
            {"WATCHDOG_USEC": "0"},
            {"WATCHDOG_USEC": "soon"},
        ):
            self.notifier(**variables).ready("serves", self.clock)

        assert [] == self.clock.getDelayedCalls()

    def test_a_watchdog_without_a_process_is_meant_for_us(self) -> None:
        """
        sd_watchdog_enabled(3).
        """
        self.notifier(WATCHDOG_USEC="3000000").ready("serves", self.clock)

        assert 1.5 == self.clock.getDelayedCalls()[0].getTime()

    def test_without_systemd_nothing_is_reported(self) -> None:
        """
        And no watchdog runs.
        """
        notifier = take_notifier({"WATCHDOG_USEC": "3000000"})
        notifier.ready("serves", self.clock)
        notifier.stopping()

        assert [] == self.clock.getDelayedCalls()

    def fill(self) -> int:
        """
        Leave no room for a state; how many there are then.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(self.place)
            for count in range(100_000):
                try:
                    sock.send(b"STATUS=full")
                except BlockingIOError:
                    return count
        raise AssertionError("the queue has no end")

    def test_kvd_goes_on_where_there_is_no_room(self) -> None:
        """
        systemd may hang. When it goes on, it gets all notifications, in
        order.
        """
        self.patch(notifying, "SEND_SECONDS", 60.0)
        count = self.fill()
        notifier = self.notifier(WATCHDOG_USEC="3000000")
        notifier.ready("serves", self.clock)
        self.clock.pump([1.5] * 100)
        notifier.stopping()
        self.systemd.setblocking(True)
        states = [self.systemd.recv(4096).decode() for _ in range(count + 2)]
        self.systemd.setblocking(False)

        assert ["STATUS=full"] * count == states[:count]
        ready, stopping = states[count:]
        assert "READY=1\nSTATUS=serves" == ready
        assert stopping.startswith("STOPPING=1\n")
        assert notifier._writer.wait(60.0)
        self.clock.advance(1.5)
        assert ["WATCHDOG=1"] == self.received()

    def test_the_watchdog_goes_on_where_no_thread_can_wait_for_room(self) -> None:
        """
        What finds no room then is dropped.
        """
        count = self.fill()
        notifier = self.notifier(WATCHDOG_USEC="3000000")
        with no_more_threads():
            notifier.ready("serves", self.clock)
            self.clock.advance(1.5)
        for _ in range(count):
            self.systemd.recv(4096)
        self.clock.advance(1.5)

        assert ["WATCHDOG=1"] == self.received()

    def test_what_waits_for_room_is_bounded(self) -> None:
        """
        However often kvd is to read its settings again.
        """
        self.patch(notifying, "SEND_SECONDS", 60.0)
        count = self.fill()
        notifier = self.notifier()
        for _ in range(100):
            notifier.reloading()
        assert notifying.MOST_WAITING == notifier._writer.waiting
        self.systemd.setblocking(True)
        for _ in range(count + notifying.MOST_WAITING):
            self.systemd.recv(4096)
        self.systemd.setblocking(False)

        assert notifier._writer.wait(60.0)
        assert [] == self.received()

    def test_systemd_that_hangs_is_given_up(self) -> None:
        """
        With one line for developers.
        """
        self.patch(notifying, "SEND_SECONDS", 0.01)
        self.fill()
        with capturedLogs() as events:
            notifier = self.notifier()
            notifier.ready("serves", self.clock)
            assert notifier._writer.wait(60.0)

        assert 1 == len(events)

    def test_kvd_goes_on_where_nobody_hears(self) -> None:
        """
        With one line for developers.
        """
        os.unlink(self.place)
        with capturedLogs() as events:
            self.notifier().ready("serves", self.clock)

        (event,) = events
        assert LogLevel.debug == event["log_level"]
        assert "READY=1" == event["state"]
