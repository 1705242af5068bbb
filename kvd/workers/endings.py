"""
The ends of worker processes: each does end, and the log says why it did.

The pool learns that a worker is lost when its control socket closes. The fork server
reports why its process ended, before that or after; if it never does, the log says that
nobody knows.
"""

from __future__ import annotations

import os
import signal
from typing import Any, Final

from twisted.logger import Logger

from kvd.workers.record import WorkerRecord

END_SECONDS: Final = 2.0
"""
A process is killed this long after its control socket has closed. A draining worker has
this much beyond its time for draining.
"""

EXPLAIN_SECONDS: Final = 2.0
"""
How long the fork server may take to say why a worker ended.
"""


class Endings:
    """
    Ends the processes of lost workers, and logs why they ended.
    """

    _log = Logger()

    def __init__(self, reactor: Any) -> None:
        """
        Args:
            reactor: Provides the time.
        """
        self._reactor = reactor
        self._unexplained: dict[int, tuple[int, Any]] = {}

    def lost(self, record: WorkerRecord, *, expected: bool) -> None:
        """
        A worker is lost: make sure that its process ends, and log why it ended.

        Args:
            record: The worker. It has no process any more.
            expected: Whether nothing has to be logged.
        """
        pid, pidfd, reason = record.pid, record.pidfd, record.reason
        record.pid, record.pidfd, record.reason = 0, -1, ""
        self.kill_later(pidfd)
        if expected or not pid:
            return
        if reason:
            self._log_end(record.number, pid, reason)
            return
        timer = self._reactor.callLater(EXPLAIN_SECONDS, self._unexplain, pid)
        self._unexplained[pid] = (record.number, timer)

    def kill_later(self, pidfd: int) -> None:
        """
        Kill a process if it does not end by itself.

        Args:
            pidfd: Of the process; owned by this. -1: it cannot be killed.
        """
        if pidfd != -1:
            self._reactor.callLater(END_SECONDS, _kill_and_close, pidfd)

    def explain(self, pid: int, reason: str) -> bool:
        """
        Log why the process of a lost worker ended.

        Returns:
            Whether there is such a process of which this is not known yet.
        """
        if pid not in self._unexplained:
            return False
        worker, timer = self._unexplained.pop(pid)
        timer.cancel()
        self._log_end(worker, pid, reason)
        return True

    def _log_end(self, worker: int, pid: int, reason: str) -> None:
        self._log.warn(
            "worker {worker} (process {pid}) {reason}; it is replaced",
            worker=worker,
            pid=pid,
            reason=reason,
            happened="restart",
        )

    def _unexplain(self, pid: int) -> None:
        worker, _ = self._unexplained.pop(pid)
        self._log.warn(
            "worker {worker} (process {pid}) has ended for an unknown reason; it is"
            " replaced",
            worker=worker,
            pid=pid,
            happened="restart",
        )

    def log_slow(self, record: WorkerRecord) -> None:
        """
        Log that a worker has had its time to end, and that its process is killed.
        """
        self._log.warn(
            "worker {worker} (process {pid}) did not end and is killed",
            worker=record.number,
            pid=record.pid,
            happened="kill",
        )

    def forget(self) -> None:
        """
        Log nothing more.
        """
        for _, timer in self._unexplained.values():
            timer.cancel()
        self._unexplained.clear()


def pidfd_of(pid: int) -> int:
    """
    A descriptor of a process; -1 if there is room for none, so that only closing its
    control socket can end it.
    """
    try:
        return os.pidfd_open(pid)
    except OSError:
        return -1


def kill(record: WorkerRecord) -> None:
    """
    Kill a worker's process, if that can be done.
    """
    if record.pidfd != -1:
        _kill(record.pidfd)


def _kill(pidfd: int) -> None:
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        # It has ended already, as the close of its control socket shows.
        pass


def _kill_and_close(pidfd: int) -> None:
    _kill(pidfd)
    os.close(pidfd)
