"""
Tests for `kvd.workers.process` and the words of `kvd.workers.forkserver`.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
from typing import IO, Any, cast
from unittest import mock

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from kvd.access.counting import create_counting
from kvd.ipc.messages import (
    Alive,
    Exited,
    Fork,
    Forked,
    Load,
    Message,
    receive,
    send,
)
from kvd.ipc.scoreboard import create_scoreboard
from kvd.net.credentials import unpack
from kvd.settings import Settings
from kvd.workers.forkserver import describe
from kvd.workers.printed import Printed
from kvd.workers.process import ForkServerProcess
from kvd.workers.reaping import END_SECONDS, REAP_SECONDS
from tests.certificates import credentials
from tests.descriptors import Descriptors
from tests.stepped import SteppedReactor


def test_ends_of_processes_have_words() -> None:
    """
    A status, or a signal by its name.
    """
    assert "exited with status 3" == describe(3 << 8)
    assert "was killed by SIGKILL (9)" == describe(signal.SIGKILL)
    assert "was killed by a signal (63)" == describe(63)


class PlayedProcess:
    """
    What a Popen is to whoever reaps it.
    """

    # No process has it.
    pid = 1 << 22 | 1

    def __init__(self, stubborn: bool, stderr: IO[bytes] | None) -> None:
        self.stubborn = stubborn
        self.stderr = stderr
        self.killed = False

    def wait(self, timeout: float | None = None) -> int:
        """
        A stubborn process ends only when killed.
        """
        if self.stubborn and not self.killed:
            assert timeout is not None
            raise subprocess.TimeoutExpired("kvd", timeout)
        return 0

    def poll(self) -> int | None:
        """
        The same, now.
        """
        return None if self.stubborn and not self.killed else 0

    def kill(self) -> None:
        """
        End it.
        """
        self.killed = True


class ForkServerProcessTests(SynchronousTestCase):
    """
    `ForkServerProcess` keeps one fork server alive.
    """

    def setUp(self) -> None:
        self.reactor = SteppedReactor()
        self.addCleanup(self.reactor.dispose)
        self.stubborn = False
        self.short = False
        self.stderr: IO[bytes] | None = None
        self.controls: list[socket.socket] = []
        self.processes: list[PlayedProcess] = []
        self.received: list[tuple[Any, ...]] = []
        shared = create_scoreboard(1), create_counting(1), os.eventfd(0)
        for descriptor in shared:
            self.addCleanup(os.close, descriptor)
        self.forks = ForkServerProcess(Settings(), *shared, self.reactor, self.spawn)
        self.addCleanup(self.end_all)
        self.forks.start(self)

    def end_all(self) -> None:
        """
        No descriptor is left to the garbage collector.
        """
        self.forks.stop()
        for control in self.controls:
            control.close()

    def spawn(self, control: socket.socket) -> subprocess.Popen[bytes]:
        """
        A fork server that the test plays.
        """
        if self.short:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        self.controls.append(control.dup())
        self.processes.append(PlayedProcess(self.stubborn, self.stderr))
        return cast("subprocess.Popen[bytes]", self.processes[-1])

    def forked(self, worker: int, pid: int, pidfd: int, request: int) -> None:
        """
        See `kvd.workers.process.WorkerObserver`.
        """
        if pidfd != -1:
            os.close(pidfd)
        self.received.append(("forked", worker, pid, request))

    def exited(self, worker: int, pid: int, reason: str) -> None:
        """
        See `kvd.workers.process.WorkerObserver`.
        """
        self.received.append(("exited", worker, pid, reason))

    def sent(self) -> Message:
        """
        The next message to the newest fork server, beside the question whether it
        lives.
        """
        message: Message = Alive()
        while isinstance(message, Alive):
            came = receive(self.controls[-1])
            assert came is not None
            message, descriptors = came
            for descriptor in descriptors:
                os.close(descriptor)
        return message

    def fork(self, worker: int) -> socket.socket:
        """
        Ask for a worker; the end that the supervisor keeps.
        """
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(near.close)
        self.forks.fork(worker, 10 + worker, far)
        return near

    def test_it_gets_the_settings_first(self) -> None:
        """
        Then what to fork.
        """
        self.fork(2)

        assert [Load(Settings()), Fork(2, 12)] == [self.sent(), self.sent()]

    def test_credentials_are_not_in_the_message(self) -> None:
        """
        But in a file in memory, behind those of all workers.
        """
        self.sent()
        used = (credentials(),)
        self.forks.load(Settings(credentials=used))
        came = receive(self.controls[-1])
        assert came is not None
        message, (*memories, file) = came
        for memory in memories:
            os.close(memory)

        assert Load(Settings(), credentials=True) == message
        assert used == unpack(file)

    def test_what_it_says_is_passed_on(self) -> None:
        """
        Workers made, and workers ended.
        """
        with open(os.devnull) as file:
            send(self.controls[0], Forked(2, 100, 12), [file.fileno()])
        send(self.controls[0], Exited(2, 100, "was killed"))
        self.reactor.settle()

        assert [
            ("forked", 2, 100, 12),
            ("exited", 2, 100, "was killed"),
        ] == self.received

    def test_other_settings_are_another_ones(self) -> None:
        """
        The present one hears that it is left, and may take its time to end.
        """
        self.sent()
        new = Settings(splice=False)
        self.forks.load(new)
        assert Load(new) == self.sent()
        assert b"" == self.controls[0].recv(1)

        self.reactor.advance(3600)
        assert not self.processes[0].killed
        self.fork(0)
        assert Fork(0, 10) == self.sent()

    def test_it_starts_until_it_has_answered(self) -> None:
        """
        One that is not there does not, nor one that does not compute.
        """
        seen = [self.forks.is_starting]
        self.reactor.advance(1)
        send(self.controls[0], Alive())
        self.reactor.settle()
        seen.append(self.forks.is_starting)

        self.forks.load(Settings(splice=False))
        seen.append(self.forks.is_starting)
        for _ in range(2):
            self.reactor.advance(1)
        seen.append(self.forks.is_starting)

        self.forks.load(Settings(splice=False))
        self.short = True
        self.controls[-1].close()
        self.reactor.settle()
        seen.append(self.forks.is_starting)
        assert [True, False, True, False, False] == seen

    def test_its_end_is_followed_by_another(self) -> None:
        """
        At once, then after growing pauses; requests wait for it.
        """
        with capturedLogs() as events:
            for expected in (2, 2):
                self.controls[-1].close()
                self.reactor.settle()
                assert expected == len(self.controls)
        assert 2 == len(events)

        self.fork(1)
        self.reactor.advance(0.1)
        assert 3 == len(self.controls)
        assert [Load(Settings()), Fork(1, 11)] == [self.sent(), self.sent()]

    def test_a_supervisor_that_cannot_start_one_tries_again(self) -> None:
        """
        Out of descriptors or of processes: in growing pauses, and nothing that
        was asked for is lost.
        """
        sockets = Descriptors("socket:")
        self.short = True
        with capturedLogs() as events:
            self.controls[-1].close()
            self.reactor.settle()
            self.reactor.advance(0.1)
        assert 1 == len(self.controls)
        assert -2 == sockets.more
        assert 2 == sum("cannot be started" in e["log_format"] for e in events)

        self.fork(1)
        self.short = False
        self.reactor.advance(0.2)
        assert 2 == len(self.controls)
        assert [Load(Settings()), Fork(1, 11)] == [self.sent(), self.sent()]

    def test_a_supervisor_without_room_for_a_control_socket_tries_again(self) -> None:
        """
        The same, one step earlier.
        """
        short = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        with (
            mock.patch("socket.socketpair", side_effect=short),
            capturedLogs() as events,
        ):
            self.controls[-1].close()
            self.reactor.settle()
        assert any("cannot be started" in event["log_format"] for event in events)

        self.reactor.advance(0.1)
        assert 2 == len(self.controls)

    def test_a_worker_that_cannot_be_watched_is_tried_again(self) -> None:
        """
        The kernel watches no more for this user, for the moment.
        """
        short = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with (
            mock.patch.object(self.reactor, "addReader", side_effect=short),
            capturedLogs() as events,
        ):
            self.controls[-1].close()
            self.reactor.settle()
        assert any("cannot be started" in event["log_format"] for event in events)
        assert 1 == len(self.controls)

        self.reactor.advance(0.1)
        assert 2 == len(self.controls)

    def test_one_whose_output_cannot_be_watched_is_not_left_behind(self) -> None:
        """
        It gets SIGTERM, and its end is not taken for that of the next one.
        """
        end, pipe = os.pipe()
        self.addCleanup(os.close, pipe)
        self.stderr = os.fdopen(end, "rb", buffering=0)
        self.stubborn = True
        watch = self.reactor.addReader

        def watch_no_output(reader: Any) -> None:
            if isinstance(reader, Printed):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            watch(reader)

        with (
            mock.patch.object(self.reactor, "addReader", watch_no_output),
            capturedLogs() as events,
        ):
            self.controls[-1].close()
            self.reactor.settle()
        assert any("cannot be started" in event["log_format"] for event in events)
        assert self.stderr.closed
        assert None is receive(self.controls[1])

        self.stderr, self.stubborn = None, False
        self.reactor.advance(END_SECONDS)
        assert [False, True, False] == [process.killed for process in self.processes]
        self.controls[1].close()
        self.reactor.settle()
        self.fork(0)
        assert [Load(Settings()), Fork(0, 10)] == [self.sent(), self.sent()]

    def test_a_worker_without_its_pidfd_is_made_all_the_same(self) -> None:
        """
        There was no room for that here.
        """
        send(self.controls[0], Forked(2, 100, 12))
        self.reactor.settle()

        assert [("forked", 2, 100, 12)] == self.received

    def test_a_worker_that_does_not_end_is_killed(self) -> None:
        """
        Its control socket is closed: it has nothing left to do.
        """
        self.processes[0].stubborn = True
        self.forks.stop()

        assert self.processes[0].killed

    def test_a_worker_that_takes_long_to_end_holds_nobody_up(self) -> None:
        """
        The next is started meanwhile; it is killed only after its time.
        """
        self.processes[0].stubborn = True
        self.controls[0].close()
        self.reactor.settle()
        assert 2 == len(self.processes)
        assert self.processes[0].poll() is None

        self.reactor.advance(END_SECONDS)
        assert 0 == self.processes[0].poll()
        self.reactor.advance(REAP_SECONDS)
        assert not self.forks._reaper._ending

    def test_one_that_hangs_is_killed_and_replaced(self) -> None:
        """
        Its state and the log name it. Who waits to be forked is let go.
        """
        self.processes[0].stubborn = True
        self.reactor.advance(1)
        send(self.controls[0], Alive())
        self.reactor.settle()
        assert "ready" == self.forks.state().state
        self.sent()
        waiting = self.fork(1)
        with capturedLogs() as events:
            for _ in range(31):
                assert not self.processes[0].killed
                self.reactor.advance(1)
        assert ["hang"] == [event["happened"] for event in events]
        assert self.processes[0].killed
        self.controls[0].close()
        assert receive(waiting) is None
        assert 2 == len(self.controls)
        assert Load(Settings()) == self.sent()
        assert ("starting", 1) == (self.forks.state().state, self.forks.state().hangs)

    def test_stop_ends_it_for_good(self) -> None:
        """
        Also while another is awaited, with requests that wait.
        """
        for _ in range(2):
            self.controls[-1].close()
            self.reactor.settle()
        waiting = self.fork(1)
        self.forks.stop()
        self.reactor.advance(60)

        assert 2 == len(self.controls)
        assert receive(waiting) is None
