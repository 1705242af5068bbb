"""
Keeps the process that verifies passwords (`kvd.workers.verification`). It is started
when the first password is to be verified, or before, and ends with the daemon.
"""

from __future__ import annotations

import json
import math
import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from twisted.internet.abstract import FileDescriptor
from twisted.logger import Logger

from kvd.access.verifying import ASKED_WHETHER_ALIVE, MOST_BYTES
from kvd.system.code import LOADED
from kvd.workers.backoff import Backoff
from kvd.workers.forkserver import MODULE_PATH
from kvd.workers.heartbeat import Heartbeat, ProcessState, cpu_seconds
from kvd.workers.reaping import Reaper

LIVED_SECONDS: Final = 10.0
"""
A process that has lived for so long has worked.
"""

# A real-time priority, which the daemon may have, would be inherited (sched(7)).
_BOOT: Final = (
    "import json, os, sys;"
    " os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR)"
    " and os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0));"
    " sys.path[:] = json.loads(sys.argv[1]);"
    " from kvd.workers.verification import main; main(int(sys.argv[2]), sys.argv[3])"
)


def spawn(requests: socket.socket) -> subprocess.Popen[bytes]:
    """
    Start the process.

    Args:
        requests: On which requests come.
    """
    return subprocess.Popen(  # noqa: S603  # all of it is ours
        [
            *[sys.executable, "-c", _BOOT],
            *[json.dumps(MODULE_PATH), str(requests.fileno()), LOADED],
        ],
        pass_fds=[requests.fileno()],
        stdin=subprocess.DEVNULL,
        process_group=0,
    )


class _Watched(FileDescriptor):
    """
    A descriptor that somebody else reads.
    """

    def __init__(
        self, descriptor: int, readable: Callable[[], None], reactor: Any
    ) -> None:
        super().__init__(reactor)
        self._descriptor = descriptor
        self._readable = readable
        self.startReading()

    def doRead(self) -> None:
        self._readable()

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return "kvd"


class VerifierProcess:
    """
    Starts the process when there is something for it to do, and again if it ends. Who
    waits when it cannot be started, or has ended, hears that.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        spawn: Callable[[socket.socket], subprocess.Popen[bytes]] = spawn,
        hang_seconds: float = math.inf,
    ) -> None:
        """
        Args:
            reactor: Waits for requests, and for the end of the process.
            spawn: Starts a process.
            hang_seconds: How long it may neither answer nor compute.
        """
        self._reactor = reactor
        self._spawn = spawn
        self.asking, self._requests = socket.socketpair(
            socket.AF_UNIX, socket.SOCK_SEQPACKET
        )
        """To what `kvd.access.verifying.Verifier` sends; owned by this."""
        self._backoff = Backoff()
        self._process: subprocess.Popen[bytes] | None = None
        self._end = -1  # A pidfd.
        self._timer: Any = None
        self._reaper = Reaper(reactor)
        self._heartbeat = Heartbeat(
            *("verifier", hang_seconds, self._ask, self._hung, reactor),
            is_working=self._is_working,
        )
        self._answers = -1  # A pipe, if it is asked whether it lives.
        self._cpu_seconds = 0.0
        self._await_requests()

    def _await_requests(self) -> None:
        self._timer = None
        self._watched = _Watched(self._requests.fileno(), self.start, self._reactor)

    def start(self) -> None:
        """
        Start it now, if it is not running: later the files of kvd may have been
        replaced, and then it would not start.
        """
        if self._process is not None or self._timer is not None:
            return
        self._watched.stopReading()
        self._started = self._reactor.seconds()
        try:
            process = self._process = self._spawn(self._requests)
        except OSError as error:
            self._again(str(error.strerror))
            return
        try:
            self._end = os.pidfd_open(process.pid)
        except OSError as error:
            process.kill()
            self._reap()
            self._again(str(error.strerror))
            return
        self._watched = _Watched(self._end, self._ended, self._reactor)
        self._heartbeat.start(process.pid)

    def watch(self, hang_seconds: float) -> None:
        """
        Set how long it may neither answer nor compute.
        """
        self._heartbeat.hang_seconds = hang_seconds

    def state(self) -> ProcessState | None:
        """
        What is known of the present process; None: nobody has needed one.
        """
        if self._process is None and self._timer is None:
            return None
        pid = None if self._process is None else self._process.pid
        return self._heartbeat.state(pid)

    def _ask(self) -> None:
        answers, answer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            socket.send_fds(
                self.asking, [ASKED_WHETHER_ALIVE], [answer], socket.MSG_DONTWAIT
            )
            self._answers, answers = answers, -1
        except BlockingIOError:
            # So many passwords wait that there is no room: it is asked again.
            pass
        finally:
            os.close(answer)
            if answers != -1:
                os.close(answers)

    def _is_working(self) -> bool:
        """
        Whether it has answered, or verifies passwords that others asked for before:
        many may wait, and it has the lowest priority.
        """
        assert self._process is not None
        before, self._cpu_seconds = self._cpu_seconds, cpu_seconds(self._process.pid)
        if self._answers == -1:
            self._ask()
        else:
            with suppress(BlockingIOError):
                os.read(self._answers, 1)
                self._forget_answer()
                self._heartbeat.answered()
        return self._cpu_seconds > before

    def _forget_answer(self) -> None:
        if self._answers != -1:
            os.close(self._answers)
            self._answers = -1

    def _hung(self, seconds: float) -> None:
        assert self._process is not None
        self._log.error(
            "the process that verifies passwords ({pid}) has not answered for"
            " {seconds:.1f} seconds (--hang-timeout) and is killed",
            pid=self._process.pid,
            seconds=seconds,
            happened="hang",
        )
        # Its end is seen as any other.
        self._process.kill()

    def _ended(self) -> None:
        self._reap()
        self._again("it has ended")

    def _reap(self) -> None:
        self._heartbeat.stop()
        self._forget_answer()
        process, self._process = self._process, None
        if process is not None:
            self._reaper.reap(process)
        if self._end != -1:
            self._watched.stopReading()
            os.close(self._end)
            self._end = -1

    def _refuse_all(self) -> None:
        while select.select([self._requests], [], [], 0)[0]:
            _, descriptors, _, _ = socket.recv_fds(self._requests, MOST_BYTES, 1)
            for descriptor in descriptors:
                os.close(descriptor)

    def _again(self, reason: str) -> None:
        self._refuse_all()
        lived_seconds = self._reactor.seconds() - self._started
        pause = self._backoff.pause_after(lived_seconds, lived_seconds >= LIVED_SECONDS)
        self._log.error(
            "no password is verified, as the process for it does not run: {reason};"
            " another may start in {pause:g} seconds",
            reason=reason,
            pause=pause,
        )
        self._timer = self._reactor.callLater(pause, self._await_requests)

    def stop(self) -> None:
        """
        End the process, and wait until it has ended. Call this when no worker runs any
        more.
        """
        if self._timer is not None:
            self._timer.cancel()
        self._watched.stopReading()
        # For other processes that have it open.
        self.asking.shutdown(socket.SHUT_RDWR)
        self.asking.close()
        self._reap()
        self._reaper.stop()
        self._requests.close()
