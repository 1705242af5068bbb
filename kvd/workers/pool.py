"""
The supervisor's pool of workers: starts them, replaces those that die, and drains them.

`kvd.workers.record` has the states of a worker. The wanted number may change
(`kvd.workers.changes`). The pool learns that a worker has ended when its control socket
closes, whichever process reaps it. A `Distribution` brings connections to the ready
workers.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from io import FileIO
from itertools import count
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger, LogLevel

from kvd.ipc.channel import Channel
from kvd.ipc.messages import (
    Acknowledged,
    Drain,
    Failed,
    Leaving,
    LogLine,
    Message,
    Ready,
    Refused,
    Rights,
    Unplaced,
)
from kvd.ipc.texts import in_memory
from kvd.log.limiting import PASSES
from kvd.settings import RightsFile, Settings
from kvd.workers.distribution import Distribution
from kvd.workers.endings import END_SECONDS, Endings, kill, pidfd_of
from kvd.workers.record import State, WorkerRecord

LEAVE_SECONDS: Final = 0.25
"""
A worker that gets SIGTERM from another process keeps serving for this time: a service
manager that ends the whole service signals one process after the other.
"""

START_SECONDS: Final = 30.0
"""
The pool kills a worker that is not ready after this time. The time in which what forks
it starts itself does not count: it imports first, and the machine may be busy.
"""

RETRY_SECONDS: Final = 1.0
"""
Pause before the next attempt to start a worker, if the supervisor itself is out of
descriptors.
"""


class Forks(Protocol):
    """
    Starts worker processes.
    """

    def fork(self, worker: int, request: int, control: socket.socket) -> None:
        """
        Start a worker process.

        Args:
            worker: The worker's number.
            request: Identifies this request in the answer, which may come late.
            control: The worker's end of its control socket; owned by this from here on.
        """

    @property
    def is_starting(self) -> bool:
        """
        Whether this starts itself, and computes, so that workers come later.
        """


class Pool:
    """
    Keeps the wanted number of workers running.
    """

    _log = Logger()

    def __init__(
        self,
        settings: Settings,
        distribution: Distribution,
        forks: Forks,
        reactor: Any,
        serving: Callable[[], None] = lambda: None,
        ended: Callable[[int], None] = lambda worker: None,
        for_rights: Sequence[int] = (),
    ) -> None:
        """
        Args:
            settings: All settings.
            distribution: Brings connections to workers.
            forks: Starts worker processes.
            reactor: Watches control sockets and provides the time.
            serving: Called once, when every worker is ready.
            ended: Called with the number of a worker whose process has ended, before
                another one is started for it, if there will be one.
            for_rights: Descriptors of what workers need for a rights file
                (`kvd.ipc.messages.Rights`); owned by the caller.
        """
        self.drain_seconds = settings.drain_seconds
        """How long a worker may take to finish its requests; may change."""
        self._distribution = distribution
        self._forks = forks
        self._reactor = reactor
        self._serving: Callable[[], None] | None = serving
        self._ended = ended
        self._for_rights = for_rights
        self._rights: tuple[Rights, FileIO | None] | None = None
        """Those that have changed since the pool began, and a file with their text, if
        there are any."""
        self.hangs = 0
        """How many workers were killed because they hung."""
        self.stopping = False
        """Whether all workers are ending."""
        self._stopped: Deferred[None] | None = None
        self._last_call: Any = None
        self._endings = Endings(reactor)
        self._requests = count(1)
        self.workers = [WorkerRecord(number) for number in range(settings.procs)]

    def distribute_by(self, distribution: Distribution) -> None:
        """
        Bring connections to the workers by another object from now on.
        """
        self._distribution = distribution
        for record in self.workers:
            if record.state is State.READY:
                assert record.channel is not None
                distribution.joined(record.number, record.channel)

    @property
    def failure(self) -> str:
        """
        Why a worker that is wanted cannot serve, in a sentence; empty: nothing is
        known.
        """
        for record in self.workers:
            if record.wanted and record.failure:
                return f"worker {record.number}: {record.failure}"
        return ""

    @property
    def is_starting(self) -> bool:
        """
        Whether what forks workers starts itself; see `Forks`.
        """
        return self._forks.is_starting

    def start(self) -> None:
        """
        Start all workers at once.
        """
        for record in self.workers:
            self._start(record)

    def scale_up(self, number: int) -> None:
        """
        Keep a worker with this number from now on, and replace it if it leaves. Numbers
        are consecutive.
        """
        if number == len(self.workers):
            self.workers.append(WorkerRecord(number, wanted=False, state=State.ENDED))
        record = self.workers[number]
        record.wanted = True
        if record.state is State.ENDED and not self.stopping:
            # The new process may succeed where the last one failed.
            record.failure = ""
            self._start(record)

    def scale_down(self, number: int) -> None:
        """
        Let the worker with this number finish its requests, and do not replace it.
        """
        record = self.workers[number]
        record.wanted = False
        if record.state is State.READY:
            self._cancel(record)
            self._leave(record)
        elif record.state is State.WAITING:
            self._give_up(record)
        # A starting worker leaves as soon as it is ready.
        self._report_once_serving()

    def _give_up(self, record: WorkerRecord) -> None:
        self._cancel(record)
        if record.channel is not None:
            record.channel.close()
            record.channel = None
        self._endings.lost(record, expected=True)
        record.state = State.ENDED

    def _start(self, record: WorkerRecord) -> None:
        record.state = State.STARTING
        record.started = self._reactor.seconds()
        try:
            record.channel, far = self._connect(record)
        except OSError as error:
            self._log.error(
                "worker {worker} cannot be started for now: {error}",
                worker=record.number,
                error=error.strerror,
                happened="failure",
            )
            record.state = State.WAITING
            record.timer = self._reactor.callLater(RETRY_SECONDS, self._start, record)
            return
        record.request = next(self._requests)
        self._forks.fork(record.number, record.request, far)
        record.timer = self._reactor.callLater(START_SECONDS, self._too_slow, record)

    def _connect(self, record: WorkerRecord) -> tuple[Channel, socket.socket]:
        """
        Returns:
            Our end of a control socket, and the worker's.
        """
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            channel = Channel(
                near,
                lambda message, descriptors: self._received(
                    record, message, descriptors
                ),
                lambda: self._lost(record),
                self._reactor,
            )
        except OSError:
            # The kernel watches no more descriptors (epoll_ctl(2)).
            near.close()
            far.close()
            raise
        return channel, far

    def _too_slow(self, record: WorkerRecord) -> None:
        record.timer = None
        if self.is_starting:
            record.timer = self._reactor.callLater(
                START_SECONDS, self._too_slow, record
            )
            return
        self._log.warn(
            "worker {worker} was not ready after {seconds:g} seconds and is killed",
            worker=record.number,
            seconds=START_SECONDS,
            happened="kill",
        )
        self._retire(record)

    def _still_there(self, record: WorkerRecord) -> None:
        record.timer = None
        self._endings.log_slow(record)
        self._retire(record)

    def _retire(self, record: WorkerRecord, explained: bool = False) -> None:
        assert record.channel is not None
        record.channel.close()
        self._lost(record, explained)

    def replace_hung(self, worker: int, seconds: float) -> None:
        """
        Kill a worker that makes no turn of its reactor, and replace it. What it serves
        is lost.

        Args:
            worker: The worker's number.
            seconds: How long it has made none.
        """
        record = self.workers[worker]
        if record.state is not State.READY:
            # The others have their own deadlines.
            return
        self.hangs += 1
        self._log.error(
            "worker {worker} (process {pid}) has not responded for {seconds:.1f}"
            " seconds (--hang-timeout) and is killed; it is replaced, and what it"
            " served is lost",
            worker=worker,
            pid=record.pid,
            seconds=seconds,
            happened="hang",
        )
        kill(record)
        self._retire(record, explained=True)

    # -- reports from processes --------------------------------------------------------

    def forked(self, worker: int, pid: int, pidfd: int, request: int) -> None:
        """
        The fork server has started a worker process.

        Args:
            worker: The worker's number.
            pid: Of the process.
            pidfd: Of the process; owned by the pool. If it is -1, only closing the
                control socket can end the process.
            request: The request that this answers.
        """
        record = self.workers[worker]
        if record.channel is None or request != record.request:
            # The pool gave it up before this report came. The process ends when it
            # finds its control socket closed, if it gets that far.
            self._endings.kill_later(pidfd)
        elif not record.pid:
            record.pid, record.pidfd = pid, pidfd
        elif pidfd != -1:
            # The worker's own report came first.
            os.close(pidfd)

    def exited(self, worker: int, pid: int, reason: str) -> None:
        """
        The fork server has seen a worker end.
        """
        if pid == 0:
            self._log.error(
                "worker {worker} {reason}",
                worker=worker,
                reason=reason,
                happened="failure",
            )
            return
        if self._endings.explain(pid, reason):
            return
        record = self.workers[worker]
        if record.pid == pid:
            record.reason = reason

    def _received(
        self, record: WorkerRecord, message: Message, descriptors: list[int]
    ) -> None:
        for descriptor in descriptors:
            os.close(descriptor)
        if isinstance(message, LogLine):
            self._log.emit(
                LogLevel.levelWithName(message.level),
                "worker {worker}: {text}",
                worker=record.number,
                text=message.text,
                # The worker has limited it already.
                **{PASSES: True},
            )
        elif isinstance(message, Failed):
            # Logged again only if the reason changes: there will be many attempts.
            if message.sentence != record.failure:
                self._log.error(
                    "worker {worker} cannot serve: {reason}",
                    worker=record.number,
                    reason=message.sentence,
                    happened="failure",
                )
            record.failure = message.sentence
        elif isinstance(message, Ready):
            self._cancel(record)
            record.state = State.READY
            record.failure = ""
            if record.pidfd == -1 and message.pid and record.pid in {0, message.pid}:
                # The fork server died between starting the process and reporting it, or
                # there was no room for a descriptor. The worker is alive, so no other
                # process has its pid.
                record.pid, record.pidfd = message.pid, pidfd_of(message.pid)
            if not record.wanted:
                self._leave(record)
                return
            assert record.channel is not None
            # First: it may have been forked with those of before.
            self._give_rights(record)
            self._distribution.joined(record.number, record.channel)
            self._report_once_serving()
        elif isinstance(message, Leaving) and record.state is State.READY:
            if record.timer is None and not self.stopping:
                record.timer = self._reactor.callLater(
                    LEAVE_SECONDS, self._leave, record
                )
        elif isinstance(message, Acknowledged | Refused | Unplaced):
            self._distribution.received(record.number, message)

    def adopt_rights(self, users: RightsFile | None) -> None:
        """
        Have all workers decide by another rights file, or by none, also those that
        drain and those that get ready later.

        Raises:
            OSError: There is no room for its text. No worker hears of it.
        """
        path, text = "", None
        if users is not None:
            path, text = users.path, in_memory("kvd-rights", users.text)
        self._forget_rights()
        self._rights = Rights(path), text
        for record in self.workers:
            if record.state in {State.READY, State.DRAINING}:
                self._give_rights(record)

    def _give_rights(self, record: WorkerRecord) -> None:
        if self._rights is not None:
            rights, text = self._rights
            assert record.channel is not None
            sent = () if text is None else (text.fileno(), *self._for_rights)
            record.channel.send(rights, sent)

    def _forget_rights(self) -> None:
        if self._rights is not None:
            _, text = self._rights
            if text is not None:
                text.close()
            self._rights = None

    def _leave(self, record: WorkerRecord) -> None:
        record.state = State.DRAINING
        self._distribution.leaving(record.number)
        assert record.channel is not None
        seconds = self.drain_seconds
        record.channel.send(Drain(seconds, others_serve=True))
        # A worker that does not respond would never end, nor would a change that waits
        # for its end.
        record.timer = self._reactor.callLater(
            seconds + END_SECONDS, self._still_there, record
        )

    def _report_once_serving(self) -> None:
        if self._serving is not None and all(
            record.state is State.READY for record in self.workers if record.wanted
        ):
            serving, self._serving = self._serving, None
            serving()

    def _lost(self, record: WorkerRecord, explained: bool = False) -> None:
        """
        A worker's control socket has closed: its process has ended, or will soon.

        Args:
            record: The worker.
            explained: Whether the log says why already.
        """
        self._cancel(record)
        record.channel = None
        self._distribution.left(record.number)
        self._ended(record.number)
        worked = record.state is not State.STARTING and not record.failure
        reported = bool(record.failure) and not worked
        drained = record.state is State.DRAINING
        expected = reported or explained or self.stopping or drained
        self._endings.lost(record, expected=expected)
        if self.stopping:
            record.state = State.ENDED
            self._end_when_all_ended()
            return
        if not record.wanted:
            record.state = State.ENDED
            return
        record.state = State.WAITING
        lived_seconds = self._reactor.seconds() - record.started
        pause = record.backoff.pause_after(lived_seconds, worked)
        if pause:
            record.timer = self._reactor.callLater(pause, self._start, record)
        else:
            self._start(record)

    def _cancel(self, record: WorkerRecord) -> None:
        if record.timer is not None:
            record.timer.cancel()
            record.timer = None

    # -- the end --------------------------------------------------------------

    def stop(self) -> Deferred[None]:
        """
        Drain all workers.

        Returns:
            Fires when every process has ended.
        """
        self.stopping = True
        stopped = self._stopped = Deferred()
        for record in self.workers:
            self._cancel(record)
            # Workers that drain already have their own deadline.
            if record.state in {State.WAITING, State.STARTING}:
                self._give_up(record)
        end = self._reactor.seconds() + self.drain_seconds
        self._last_call = self._reactor.callLater(
            self.drain_seconds + END_SECONDS, self._kill_all
        )
        # Deliver first: a worker that has drained takes nothing more.
        delivered = self._distribution.finish()
        delivered.addCallback(lambda _: self._drain_until(end))
        self._end_when_all_ended()
        return stopped

    def _drain_until(self, end: float) -> None:
        seconds = max(0.0, end - self._reactor.seconds())
        for record in self.workers:
            if record.state is State.READY:
                assert record.channel is not None
                record.state = State.DRAINING
                record.channel.send(Drain(seconds))

    def _kill_all(self) -> None:
        self._last_call = None
        for record in self.workers:
            if record.pidfd != -1:
                self._endings.log_slow(record)
                kill(record)

    def _end_when_all_ended(self) -> None:
        if self._stopped is None or any(
            record.state is not State.ENDED for record in self.workers
        ):
            return
        if self._last_call is not None:
            self._last_call.cancel()
            self._last_call = None
        self._endings.forget()
        self._forget_rights()
        self._distribution.close()
        stopped, self._stopped = self._stopped, None
        stopped.callback(None)
