"""
The workers of a daemon, seen from the supervisor.

======== =================================== ==================================
state    means                               next
======== =================================== ==================================
WAITING  no process; a pause runs            STARTING
STARTING forked, or about to be              READY, or WAITING if it ends
READY    serves                              DRAINING, or WAITING if it ends
DRAINING takes no more, finishes and exits   ENDED, or WAITING if it was not
                                             told to by the supervisor
ENDED    no process, none wanted             STARTING, if one is wanted again
======== =================================== ==================================

How many are wanted may change (`kvd.workers.changes`). That a worker has ended is
learnt from its control socket, whoever reaps it.
Which connections the ready ones get is a `Distribution`'s to see to.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
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
    Unplaced,
)
from kvd.log.limiting import PASSES
from kvd.settings import Settings
from kvd.workers.backoff import Backoff

LEAVE_SECONDS: Final = 0.25
"""
A worker that gets SIGTERM from another process goes on for this time: a service manager
that ends the whole service signals one process after the other.
"""

START_SECONDS: Final = 30.0
"""
A worker that is not ready after this time is killed.
"""

RETRY_SECONDS: Final = 1.0
"""
Before the next try, if the supervisor itself is out of descriptors.
"""

END_SECONDS: Final = 2.0
"""
A process whose control socket has closed is killed after this time. Workers that drain
get this much beyond the time for draining.
"""

EXPLAIN_SECONDS: Final = 2.0
"""
How long the fork server may take to say why a worker ended.
"""


class State(Enum):
    """
    Where a worker is in its life; the module's docstring has the table.
    """

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    ENDED = "ended"


class Forks(Protocol):
    """
    What makes workers.
    """

    def fork(self, worker: int, request: int, control: socket.socket) -> None:
        """
        Make a worker that gets this end of its control socket; owned by this
        from here on.

        Args:
            request: LogLine with the answer, which may come late.
        """


class Distribution(Protocol):
    """
    Brings connections to workers.
    """

    def joined(self, worker: int, channel: Channel) -> None:
        """
        A worker is ready for connections.
        """

    def leaving(self, worker: int) -> None:
        """
        A worker is about to be told to drain. What it has not taken yet goes to others
        at once.
        """

    def left(self, worker: int) -> None:
        """
        A worker is gone, whether or not it had joined or was leaving. Whatever was on
        its way to it goes to others at once.
        """

    def heard(self, worker: int, message: Message) -> None:
        """
        A message about connections came from a worker.
        """

    def handing_over(self, worker: int) -> int:
        """
        How many connections are on their way to a worker.
        """

    def finish(self) -> Deferred[None]:
        """
        Stop listening, and deliver the connections there are. Workers may still leave.

        Returns:
            Fires when workers may be told to drain; soon, even if something
            could not be delivered.
        """

    def close(self) -> None:
        """
        The last worker has ended: let go of everything.
        """


@dataclass
class Slot:
    """
    One worker's place; processes come and go in it.
    """

    number: int
    wanted: bool = True
    """Whether there should be a process; else the last one is on its way out."""
    state: State = State.WAITING
    pid: int = 0
    pidfd: int = -1
    channel: Channel | None = None
    request: int = 0
    """Of the fork server, for the present process."""
    started: float = 0.0
    backoff: Backoff = field(default_factory=Backoff)
    timer: Any = None
    reason: str = ""
    """Why its process ended, where the fork server said so already."""
    failure: str = ""
    """What its process could not do, the last time it said so."""


class Pool:
    """
    Keeps the wanted number of workers alive.
    """

    _log = Logger()

    def __init__(
        self,
        settings: Settings,
        distribution: Distribution,
        forks: Forks,
        reactor: Any,
        serving: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            settings: The whole of them.
            distribution: Brings connections to workers.
            forks: Makes workers.
            reactor: Watches control sockets and tells the time.
            serving: Called once, when every worker is ready.
        """
        self.drain_seconds = settings.drain_seconds
        """How long a worker may take to finish; may change."""
        self._distribution = distribution
        self._forks = forks
        self._reactor = reactor
        self._serving: Callable[[], None] | None = serving
        self.stopping = False
        """Whether all are to end."""
        self._stopped: Deferred[None] | None = None
        self._last_call: Any = None
        self._unexplained: dict[int, tuple[int, Any]] = {}
        self._requests = count(1)
        self.slots = [Slot(number) for number in range(settings.procs)]

    def start(self) -> None:
        """
        Start all workers at once.
        """
        for slot in self.slots:
            self._start(slot)

    def scale_up(self, number: int) -> None:
        """
        Keep a worker of this number from now on, also if the present one leaves.
        Numbers follow each other.
        """
        if number == len(self.slots):
            self.slots.append(Slot(number, wanted=False, state=State.ENDED))
        slot = self.slots[number]
        slot.wanted = True
        if slot.state is State.ENDED and not self.stopping:
            # What the last process could not do, this one may.
            slot.failure = ""
            self._start(slot)

    def scale_down(self, number: int) -> None:
        """
        Let the worker of this number finish its requests, and keep none afterwards.
        """
        slot = self.slots[number]
        slot.wanted = False
        if slot.state is State.READY:
            self._cancel(slot)
            self._leave(slot)
        elif slot.state is State.WAITING:
            self._give_up(slot)
        # One that starts leaves when it is ready.
        self._tell_once_serving()

    def _give_up(self, slot: Slot) -> None:
        self._cancel(slot)
        if slot.channel is not None:
            slot.channel.close()
            slot.channel = None
        self._reap(slot, expected=True)
        slot.state = State.ENDED

    def _start(self, slot: Slot) -> None:
        slot.state = State.STARTING
        slot.started = self._reactor.seconds()
        try:
            slot.channel, far = self._connect(slot)
        except OSError as error:
            self._log.error(
                "worker {worker} cannot be started for now: {error}",
                worker=slot.number,
                error=error.strerror,
            )
            slot.state = State.WAITING
            slot.timer = self._reactor.callLater(RETRY_SECONDS, self._start, slot)
            return
        slot.request = next(self._requests)
        self._forks.fork(slot.number, slot.request, far)
        slot.timer = self._reactor.callLater(START_SECONDS, self._too_slow, slot)

    def _connect(self, slot: Slot) -> tuple[Channel, socket.socket]:
        """
        Returns:
            Our end of a control socket, and the worker's.
        """
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            channel = Channel(
                near,
                lambda message, descriptors: self._received(slot, message, descriptors),
                lambda: self._lost(slot),
                self._reactor,
            )
        except OSError:
            # The kernel watches no more (epoll_ctl(2)).
            near.close()
            far.close()
            raise
        return channel, far

    def _too_slow(self, slot: Slot) -> None:
        slot.timer = None
        self._log.warn(
            "worker {worker} was not ready after {seconds:g} seconds and is killed",
            worker=slot.number,
            seconds=START_SECONDS,
        )
        self._retire(slot)

    def _still_there(self, slot: Slot) -> None:
        slot.timer = None
        self._log.warn(
            "worker {worker} (process {pid}) did not end and is killed",
            worker=slot.number,
            pid=slot.pid,
        )
        self._retire(slot)

    def _retire(self, slot: Slot) -> None:
        assert slot.channel is not None
        slot.channel.close()
        self._lost(slot)

    # -- what is heard --------------------------------------------------------

    def forked(self, worker: int, pid: int, pidfd: int, request: int) -> None:
        """
        The fork server has made a worker.

        Args:
            pidfd: Of its process; the pool's to close. Or -1: then the close of
                its control socket alone can end it.
            request: Which one this answers.
        """
        slot = self.slots[worker]
        if slot.channel is None or request != slot.request:
            # Given up before it was heard of. It ends when it finds its control socket
            # closed, if it gets as far as that.
            self._kill_later(pidfd)
        elif not slot.pid:
            slot.pid, slot.pidfd = pid, pidfd
        elif pidfd != -1:
            # The worker itself was faster to tell.
            os.close(pidfd)

    def exited(self, worker: int, pid: int, reason: str) -> None:
        """
        The fork server has seen a worker end.
        """
        if pid == 0:
            self._log.error("worker {worker} {reason}", worker=worker, reason=reason)
            return
        number, timer = self._unexplained.pop(pid, (worker, None))
        if timer is not None:
            timer.cancel()
            self._log.warn(
                "worker {worker} (process {pid}) {reason}; it is replaced",
                worker=number,
                pid=pid,
                reason=reason,
            )
            return
        slot = self.slots[worker]
        if slot.pid == pid:
            slot.reason = reason

    def _received(self, slot: Slot, message: Message, descriptors: list[int]) -> None:
        for descriptor in descriptors:
            os.close(descriptor)
        if isinstance(message, LogLine):
            self._log.emit(
                LogLevel.levelWithName(message.level),
                "worker {worker}: {text}",
                worker=slot.number,
                text=message.text,
                # The worker has done so.
                **{PASSES: True},
            )
        elif isinstance(message, Failed):
            # Said again only if it is something else: it will be tried often.
            if message.sentence != slot.failure:
                self._log.error(
                    "worker {worker} cannot serve: {reason}",
                    worker=slot.number,
                    reason=message.sentence,
                )
            slot.failure = message.sentence
        elif isinstance(message, Ready):
            self._cancel(slot)
            slot.state = State.READY
            slot.failure = ""
            if slot.pidfd == -1 and message.pid and slot.pid in {0, message.pid}:
                # The fork server died between making it and saying so, or there was
                # no room for a descriptor. The worker is there, so its number is no
                # other process's.
                slot.pid, slot.pidfd = message.pid, _pidfd_of(message.pid)
            if not slot.wanted:
                self._leave(slot)
                return
            assert slot.channel is not None
            self._distribution.joined(slot.number, slot.channel)
            self._tell_once_serving()
        elif isinstance(message, Leaving) and slot.state is State.READY:
            if slot.timer is None and not self.stopping:
                slot.timer = self._reactor.callLater(LEAVE_SECONDS, self._leave, slot)
        elif isinstance(message, Acknowledged | Refused | Unplaced):
            self._distribution.heard(slot.number, message)

    def _leave(self, slot: Slot) -> None:
        slot.state = State.DRAINING
        self._distribution.leaving(slot.number)
        assert slot.channel is not None
        seconds = self.drain_seconds
        slot.channel.send(Drain(seconds, others_serve=True))
        # One that hears nothing would never end, nor what waits for its end.
        slot.timer = self._reactor.callLater(
            seconds + END_SECONDS, self._still_there, slot
        )

    def _tell_once_serving(self) -> None:
        if self._serving is not None and all(
            slot.state is State.READY for slot in self.slots if slot.wanted
        ):
            serving, self._serving = self._serving, None
            serving()

    def _lost(self, slot: Slot) -> None:
        """
        A worker's control socket has closed: its process has ended, or will.
        """
        self._cancel(slot)
        slot.channel = None
        self._distribution.left(slot.number)
        worked = slot.state is not State.STARTING and not slot.failure
        told = bool(slot.failure) and not worked
        expected = told or self.stopping or slot.state is State.DRAINING
        self._reap(slot, expected)
        if self.stopping:
            slot.state = State.ENDED
            self._end_when_all_ended()
            return
        if not slot.wanted:
            slot.state = State.ENDED
            return
        slot.state = State.WAITING
        lived_seconds = self._reactor.seconds() - slot.started
        pause = slot.backoff.pause_after(lived_seconds, worked)
        if pause:
            slot.timer = self._reactor.callLater(pause, self._start, slot)
        else:
            self._start(slot)

    def _reap(self, slot: Slot, expected: bool) -> None:
        """
        Have the process end, and log why it did.
        """
        pid, pidfd, reason = slot.pid, slot.pidfd, slot.reason
        slot.pid, slot.pidfd, slot.reason = 0, -1, ""
        self._kill_later(pidfd)
        if expected or not pid:
            return
        if reason:
            self._log.warn(
                "worker {worker} (process {pid}) {reason}; it is replaced",
                worker=slot.number,
                pid=pid,
                reason=reason,
            )
            return
        timer = self._reactor.callLater(EXPLAIN_SECONDS, self._unexplain, pid)
        self._unexplained[pid] = (slot.number, timer)

    def _kill_later(self, pidfd: int) -> None:
        if pidfd != -1:
            self._reactor.callLater(END_SECONDS, _kill_and_close, pidfd)

    def _unexplain(self, pid: int) -> None:
        worker, _ = self._unexplained.pop(pid)
        self._log.warn(
            "worker {worker} (process {pid}) has ended, nobody saw why; it is replaced",
            worker=worker,
            pid=pid,
        )

    def _cancel(self, slot: Slot) -> None:
        if slot.timer is not None:
            slot.timer.cancel()
            slot.timer = None

    # -- the end --------------------------------------------------------------

    def stop(self) -> Deferred[None]:
        """
        Drain all workers.

        Returns:
            Fires when every process has ended.
        """
        self.stopping = True
        stopped = self._stopped = Deferred()
        for slot in self.slots:
            self._cancel(slot)
            # Who is draining already does so by its own clock.
            if slot.state in {State.WAITING, State.STARTING}:
                self._give_up(slot)
        end = self._reactor.seconds() + self.drain_seconds
        self._last_call = self._reactor.callLater(
            self.drain_seconds + END_SECONDS, self._kill_all
        )
        # First: who has drained takes nothing more.
        delivered = self._distribution.finish()
        delivered.addCallback(lambda _: self._drain_until(end))
        self._end_when_all_ended()
        return stopped

    def _drain_until(self, end: float) -> None:
        seconds = max(0.0, end - self._reactor.seconds())
        for slot in self.slots:
            if slot.state is State.READY:
                assert slot.channel is not None
                slot.state = State.DRAINING
                slot.channel.send(Drain(seconds))

    def _kill_all(self) -> None:
        self._last_call = None
        for slot in self.slots:
            if slot.pidfd != -1:
                self._log.warn(
                    "worker {worker} (process {pid}) did not end and is killed",
                    worker=slot.number,
                    pid=slot.pid,
                )
                _kill(slot.pidfd)

    def _end_when_all_ended(self) -> None:
        if self._stopped is None or any(
            slot.state is not State.ENDED for slot in self.slots
        ):
            return
        if self._last_call is not None:
            self._last_call.cancel()
            self._last_call = None
        for _, timer in self._unexplained.values():
            timer.cancel()
        self._unexplained.clear()
        self._distribution.close()
        stopped, self._stopped = self._stopped, None
        stopped.callback(None)


def _pidfd_of(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except OSError:
        # Then the close of its control socket alone can end it.
        return -1


def _kill(pidfd: int) -> None:
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        # It has ended: what a control socket's close announces.
        pass


def _kill_and_close(pidfd: int) -> None:
    _kill(pidfd)
    os.close(pidfd)
