"""
The supervisor's side of the fork server: starts it, sends it requests, and restarts it.
"""

from __future__ import annotations

import math
import os
import socket
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Protocol

from twisted.logger import Logger

from kvd.ipc.channel import Channel
from kvd.ipc.messages import Alive, Exited, Fork, Forked, Load, Message
from kvd.net.credentials import pack
from kvd.settings import Settings
from kvd.workers.backoff import Backoff
from kvd.workers.forkserver import spawn
from kvd.workers.heartbeat import Heartbeat, ProcessState
from kvd.workers.printed import Printed
from kvd.workers.reaping import Reaper


class WorkerObserver(Protocol):
    """
    Is notified when workers start and end.
    """

    def forked(self, worker: int, pid: int, pidfd: int, request: int) -> None:
        """
        A worker has started, as this request asked. The observer owns the pidfd, which
        is -1 if there was no room for it.
        """

    def exited(self, worker: int, pid: int, reason: str) -> None:
        """
        A worker has ended.
        """


class ForkServerProcess:
    """
    Keeps one fork server running. Workers survive its end, since their control sockets
    are connected to the supervisor.

    Provides `kvd.workers.pool.Forks`.
    """

    _log = Logger()

    def __init__(
        self,
        settings: Settings,
        scoreboard: int,
        counting: int,
        verifying: int,
        reactor: Any,
        spawn: Callable[[socket.socket], subprocess.Popen[bytes]] = spawn,
        held: int | None = None,
        usage: int | None = None,
    ) -> None:
        """
        Args:
            settings: The workers' settings.
            scoreboard: A descriptor of the scoreboard's memory; owned by the caller.
            counting: A descriptor of the memory of `kvd.access.counting`; owned by the
                caller.
            verifying: A descriptor of the socket to the process that verifies
                passwords; owned by the caller.
            reactor: Watches the control socket.
            spawn: Starts a fork server process.
            held: A descriptor of what the store is in (`IHeldStoreMaker`); owned by the
                caller. None: the store has no such descriptor.
            usage: A descriptor of the memory in which workers count what the store
                takes; owned by the caller. None: it has no limits.
        """
        self._settings = settings
        self._reactor = reactor
        self._spawn = spawn
        self._shared = scoreboard, counting, verifying
        self._of_store = [
            descriptor for descriptor in (usage, held) if descriptor is not None
        ]
        self._channel: Channel | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._reaper = Reaper(reactor)
        self._heartbeat = Heartbeat(
            "fork server", settings.hang_seconds, self._ask, self._hung, reactor
        )
        self._started = 0.0
        self._worked = False
        self._backoff = Backoff()
        self._timer: Any = None
        self._waiting: list[tuple[Fork, socket.socket]] = []
        self._observer: WorkerObserver

    def start(self, observer: WorkerObserver) -> None:
        """
        Start the fork server.
        """
        self._observer = observer
        self._begin()

    def _begin(self) -> None:
        self._timer = None
        self._started = self._reactor.seconds()
        self._worked = False
        try:
            channel = self._channel = self._spawn_one()
        except OSError as error:
            pause = self._backoff.pause_after(0.0, worked=False)
            self._log.error(
                "the fork server cannot be started for now: {error}; the next try is"
                " in {pause:g} seconds",
                error=error.strerror,
                pause=pause,
                happened="failure",
            )
            self._timer = self._reactor.callLater(pause, self._begin)
            return
        self._load_into(channel)
        assert self._process is not None
        self._heartbeat.start(self._process.pid)
        waiting, self._waiting = self._waiting, []
        for fork, control in waiting:
            with control:
                channel.send(fork, [control.fileno()])

    def _load_into(self, channel: Channel) -> None:
        settings = self._settings
        with ExitStack() as given:
            descriptors = [*self._shared]
            # In memory, since they may be too long for a message; and the files may
            # have changed since they were checked.
            if settings.users is not None:
                text = given.enter_context(open(os.memfd_create("kvd-rights"), "w+b"))
                text.write(settings.users.text.encode("utf-8"))
                text.flush()
                descriptors.append(text.fileno())
            if settings.credentials:
                packed = pack(settings.credentials)
                given.callback(os.close, packed)
                descriptors.append(packed)
            load = Load(
                replace(settings, credentials=()),
                credentials=bool(settings.credentials),
            )
            channel.send(load, [*descriptors, *self._of_store])

    def _spawn_one(self) -> Channel:
        """
        Returns:
            The channel to a new fork server.
        """
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with far:
            try:
                # First, since the kernel may watch no more descriptors (epoll_ctl(2)).
                channel = Channel(near, self._received, self._lost, self._reactor)
            except OSError:
                near.close()
                raise
            try:
                process = self._process = self._spawn(far)
            except OSError:
                channel.close()
                raise
        if process.stderr is None:
            return channel
        try:
            Printed(process.stderr, self._reactor)
        except OSError:
            process.stderr.close()
            # The fork server ends when its channel closes.
            channel.close()
            self._reaper.reap(process)
            raise
        return channel

    def fork(self, worker: int, request: int, control: socket.socket) -> None:
        """
        See `kvd.workers.pool.Forks`. The request waits while there is no fork server.
        """
        fork = Fork(worker, request)
        if self._channel is None:
            self._waiting.append((fork, control))
            return
        with control:
            self._channel.send(fork, [control.fileno()])

    @property
    def is_starting(self) -> bool:
        """
        See `kvd.workers.pool.Forks`.
        """
        return self._channel is not None and self._heartbeat.is_starting

    def load(self, settings: Settings) -> None:
        """
        Start workers with other settings from now on. The present fork server ends
        with the last worker that it has started.
        """
        self._settings = settings
        self._heartbeat.hang_seconds = settings.hang_seconds
        if self._channel is not None:
            self._reaper.reap(self._close(), math.inf)
            self._begin()

    def state(self) -> ProcessState:
        """
        What is known of the present fork server.
        """
        running = None if self._channel is None else self._process
        return self._heartbeat.state(None if running is None else running.pid)

    def _close(self) -> subprocess.Popen[bytes]:
        """
        Close the channel to the fork server.

        Returns:
            It, which ends.
        """
        assert self._channel is not None
        assert self._process is not None
        self._heartbeat.stop()
        self._channel.close()
        self._channel = None
        return self._process

    def _ask(self) -> None:
        assert self._channel is not None
        self._channel.send(Alive())

    def _hung(self, seconds: float) -> None:
        assert self._process is not None
        self._log.error(
            "the fork server (process {pid}) has not answered for {seconds:.1f} seconds"
            " (--hang-timeout) and is killed; workers go on, and another is started",
            pid=self._process.pid,
            seconds=seconds,
            happened="hang",
        )
        process = self._close()
        process.kill()
        self._reaper.reap(process)
        # A worker that waits to be forked is in the queue of the one that is killed:
        # the pool sees that control socket close, and asks again.
        self._begin()

    def _received(self, message: Message, descriptors: list[int]) -> None:
        if isinstance(message, Forked):
            # The kernel drops the pidfd if this process has no room for it.
            (pidfd,) = descriptors or (-1,)
            self._worked = True
            self._observer.forked(message.worker, message.pid, pidfd, message.request)
            return
        for descriptor in descriptors:
            os.close(descriptor)
        if isinstance(message, Alive):
            self._heartbeat.answered()
        elif isinstance(message, Exited):
            self._observer.exited(message.worker, message.pid, message.reason)

    def _lost(self) -> None:
        self._reaper.reap(self._close())
        lived_seconds = self._reactor.seconds() - self._started
        pause = self._backoff.pause_after(lived_seconds, self._worked)
        self._log.warn(
            "the fork server has ended; workers go on, and another is started in"
            " {pause:g} seconds",
            pause=pause,
            happened="restart",
        )
        self._timer = self._reactor.callLater(pause, self._begin)

    def stop(self) -> None:
        """
        End the fork server, and wait until it has ended. Call this when no worker is
        wanted and no client is served any more.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for _, control in self._waiting:
            control.close()
        self._waiting.clear()
        if self._channel is not None:
            self._reaper.reap(self._close())
        self._reaper.stop()
