"""
The workers of a daemon, seen from the supervisor.

======== =================================== ==================================
state    means                               next
======== =================================== ==================================
WAITING  no process; a pause runs            STARTING
STARTING forked, or about to be              READY, or WAITING if it ends
READY    polls the sockets it was given      DRAINING, or WAITING if it ends
DRAINING finishes and exits                  ENDED
ENDED    no process, none wanted             never left
======== =================================== ==================================

That a worker has ended is learnt from its control socket, whoever reaps it. A
socket whose own workers are not ready is polled by another until they are.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger, LogLevel

from kvd.interfaces import IDispatchPolicy
from kvd.listening import ListenerGroup
from kvd.settings import Settings
from kvd.workers.backoff import Backoff
from kvd.workers.channel import Channel
from kvd.workers.messages import (
    Drain,
    Failed,
    Listen,
    Message,
    Ready,
    Told,
    Unlisten,
)

START_SECONDS: Final = 30.0
"""
A worker that is not ready after so long is killed.
"""

END_SECONDS: Final = 2.0
"""
A process whose control socket has closed is killed after so long; and so long
beyond the time for draining is everybody's end awaited.
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

    def fork(self, worker: int, control: socket.socket) -> None:
        """
        Make a worker that owns this end of its control socket; the caller
        closes its copy.
        """


Member = tuple[int, int]
"""
A listening socket: the number of its group, and its own in the group.
"""


@dataclass
class Slot:
    """
    One worker's place; processes come and go in it.
    """

    number: int
    state: State = State.WAITING
    pid: int = 0
    pidfd: int = -1
    channel: Channel | None = None
    started: float = 0.0
    polls: set[Member] = field(default_factory=set)
    backoff: Backoff = field(default_factory=Backoff)
    timer: Any = None
    reason: str = ""
    """Why its process ended, where the fork server said so already."""
    failure: str = ""
    """What its process could not do, the last time it said so."""


class Pool:
    """
    Keeps the wanted number of workers alive and gives them sockets.
    """

    _log = Logger()

    def __init__(
        self,
        settings: Settings,
        policy: IDispatchPolicy,
        groups: Sequence[ListenerGroup],
        forks: Forks,
        reactor: Any,
        serving: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            settings: The whole of them.
            policy: Says who polls which socket.
            groups: The sockets; closed when the pool stops.
            forks: Makes workers.
            reactor: Watches control sockets and tells the time.
            serving: Called once, when every worker is ready.
        """
        self._settings = settings
        self._policy = policy
        self._groups = groups
        self._forks = forks
        self._reactor = reactor
        self._serving: Callable[[], None] | None = serving
        self._stopping = False
        self._stopped: Deferred[None] | None = None
        self._last_call: Any = None
        self._unexplained: dict[int, tuple[int, Any]] = {}
        self.slots = [Slot(number) for number in range(settings.procs)]

    def start(self) -> None:
        """
        Start all workers at once.
        """
        for slot in self.slots:
            self._start(slot)

    def _start(self, slot: Slot) -> None:
        slot.state = State.STARTING
        slot.started = self._reactor.seconds()
        slot.pid = 0
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        slot.channel = Channel(
            near,
            lambda message, descriptors: self._received(slot, message, descriptors),
            lambda: self._lost(slot),
            self._reactor,
        )
        with far:
            self._forks.fork(slot.number, far)
        slot.timer = self._reactor.callLater(START_SECONDS, self._too_slow, slot)

    def _too_slow(self, slot: Slot) -> None:
        slot.timer = None
        self._log.warn(
            "worker {worker} was not ready after {seconds:g} seconds and is killed",
            worker=slot.number,
            seconds=START_SECONDS,
        )
        assert slot.channel is not None
        slot.channel.close()
        self._lost(slot)

    # -- what is heard --------------------------------------------------------

    def forked(self, worker: int, pid: int, pidfd: int) -> None:
        """
        The fork server has made a worker.

        Args:
            pidfd: Of its process; the pool's to close.
        """
        slot = self.slots[worker]
        if slot.channel is None or slot.pidfd != -1:
            # Given up before it was heard of; its control socket is closed.
            os.close(pidfd)
            return
        slot.pid, slot.pidfd = pid, pidfd

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
        if isinstance(message, Told):
            self._log.emit(
                LogLevel.levelWithName(message.level),
                "worker {worker}: {text}",
                worker=slot.number,
                text=message.text,
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
        elif isinstance(message, Ready) and slot.state is State.STARTING:
            self._cancel(slot)
            slot.state = State.READY
            slot.failure = ""
            self._assign()
            self._tell_once_serving()

    def _tell_once_serving(self) -> None:
        if self._serving is not None and all(
            slot.state is State.READY for slot in self.slots
        ):
            serving, self._serving = self._serving, None
            serving()

    def _lost(self, slot: Slot) -> None:
        """
        A worker's control socket has closed: its process has ended, or will.
        """
        self._cancel(slot)
        slot.channel = None
        slot.polls.clear()
        told = bool(slot.failure) and slot.state is State.STARTING
        self._bury(slot, expected=told or slot.state is State.DRAINING)
        if self._stopping:
            slot.state = State.ENDED
            self._end_when_all_ended()
            return
        slot.state = State.WAITING
        pause = slot.backoff.pause_after(self._reactor.seconds() - slot.started)
        self._assign()
        if pause:
            slot.timer = self._reactor.callLater(pause, self._restart, slot)
        else:
            self._start(slot)

    def _restart(self, slot: Slot) -> None:
        slot.timer = None
        self._start(slot)

    def _bury(self, slot: Slot, expected: bool) -> None:
        """
        See to it that the process ends, and say why it did.
        """
        pid, pidfd, reason = slot.pid, slot.pidfd, slot.reason
        slot.pid, slot.pidfd, slot.reason = 0, -1, ""
        if pidfd != -1:
            self._reactor.callLater(END_SECONDS, _kill_and_close, pidfd)
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

    # -- who polls what -------------------------------------------------------

    def _assign(self) -> None:
        """
        Give each socket to the workers that the policy names, or to a ready
        one in their stead while none of them is.
        """
        ready = [slot for slot in self.slots if slot.state is State.READY]
        if not ready:
            return
        wanted: dict[int, set[Member]] = {slot.number: set() for slot in ready}
        for group, sockets in enumerate(self._groups):
            for member in range(len(sockets.members)):
                for number in self._pollers((group, member), ready):
                    wanted[number].add((group, member))
        for slot in ready:
            assert slot.channel is not None
            for polled in sorted(slot.polls - wanted[slot.number]):
                slot.channel.send(Unlisten(_name(polled)))
            for polled in sorted(wanted[slot.number] - slot.polls):
                sock = self._groups[polled[0]].members[polled[1]]
                slot.channel.send(Listen(_name(polled)), [sock.fileno()])
            slot.polls = wanted[slot.number]

    def _pollers(self, polled: Member, ready: Sequence[Slot]) -> list[int]:
        size = len(self._groups[polled[0]].members)
        workers = len(self.slots)
        own = [
            slot.number
            for slot in ready
            if polled[1]
            in {m % size for m in self._policy.members_of(slot.number, workers)}
        ]
        if own:
            return own
        # Who took it over keeps it, so that a wave of starts moves it once.
        keeper = next((slot for slot in ready if polled in slot.polls), None)
        return [(keeper or ready[polled[1] % len(ready)]).number]

    # -- the end --------------------------------------------------------------

    def stop(self) -> Deferred[None]:
        """
        Drain all workers. They hold the only copies of the sockets then: each
        empties its queues before it closes them.

        Returns:
            Fires when every process has ended.
        """
        self._stopping = True
        stopped = self._stopped = Deferred()
        for slot in self.slots:
            self._cancel(slot)
            if slot.state is State.READY:
                assert slot.channel is not None
                slot.state = State.DRAINING
                slot.channel.send(Drain(self._settings.drain_seconds))
            else:
                if slot.channel is not None:
                    slot.channel.close()
                    slot.channel = None
                self._bury(slot, expected=True)
                slot.state = State.ENDED
        for group in self._groups:
            group.close()
        self._last_call = self._reactor.callLater(
            self._settings.drain_seconds + END_SECONDS, self._kill_all
        )
        self._end_when_all_ended()
        return stopped

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
        stopped, self._stopped = self._stopped, None
        stopped.callback(None)


def _name(polled: Member) -> str:
    return f"{polled[0]}/{polled[1]}"


def _kill(pidfd: int) -> None:
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        # It has ended: what a control socket's close announces.
        pass


def _kill_and_close(pidfd: int) -> None:
    _kill(pidfd)
    os.close(pidfd)
