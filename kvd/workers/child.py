"""
A worker: a fork that gets a reactor and serves.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.logger import (
    ILogObserver,
    LogEvent,
    eventAsText,
    globalLogBeginner,
)
from twisted.python.threadable import isInIOThread

from kvd.dispatch.adopting import Adopting
from kvd.dispatch.gate import Gate, policy_of_gates
from kvd.dispatch.scoreboard import Row, Scoreboard
from kvd.errors import OperatorError
from kvd.ipc.channel import Channel
from kvd.ipc.messages import (
    Batch,
    Credits,
    Drain,
    Failed,
    Gated,
    Leaving,
    Listen,
    LogLine,
    Message,
    Ready,
    Unlisten,
    Unplaced,
    shortened,
)
from kvd.log.limiting import Limited, in_reactor
from kvd.net.reactor import install
from kvd.settings import Settings
from kvd.system.descriptors import raise_descriptor_limit
from kvd.workers.serving import LoadedPlugins, Serving


def run(
    control: socket.socket,
    settings: Settings,
    worker: int,
    scoreboard: Scoreboard,
    parts: LoadedPlugins,
) -> int:
    """
    Be a worker, until drained or left.

    Args:
        control: The worker's end of its control socket.
        settings: The whole of them.
        worker: Its number.
        scoreboard: Where it counts, and sees what others do.
        parts: Of the settings, loaded before the fork.

    Returns:
        The status to exit with.
    """
    raise_descriptor_limit()
    # In a fork, and only now: a reactor never crosses one.
    row = scoreboard.own_row(worker)
    reactor = install(row)
    child = Worker(control, settings, worker, reactor, row, scoreboard, parts)
    reactor.callWhenRunning(child.start)
    reactor.run(installSignalHandlers=False)
    return child.status


class Worker:
    """
    Does what the supervisor says.
    """

    def __init__(
        self,
        control: socket.socket,
        settings: Settings,
        worker: int,
        reactor: Any,
        row: Row,
        scoreboard: Scoreboard,
        parts: LoadedPlugins,
    ) -> None:
        self._worker = worker
        self._scoreboard = scoreboard
        self._settings = settings
        self._reactor = reactor
        self._channel = Channel(
            control, self._received, self._left, reactor, self._heard
        )
        self._serving = Serving(settings, worker, reactor, row, parts)
        self._serving.share_of = self._share_of
        self._adopting = Adopting(self._channel, self._serving.factory, reactor)
        self._limited = Limited(cast(ILogObserver, self._tell), in_reactor(reactor))
        self._draining = False
        self.status = 0

    def start(self) -> None:
        """
        Open the store and tell that sockets can come.
        """
        # What is printed too: standard error may be a pipe that nobody reads.
        globalLogBeginner.beginLoggingTo([self._limited], discardBuffer=True)
        # ^C reaches the whole group of a terminal; the supervisor answers it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._terminated)
        try:
            self._serving.start()
        except OperatorError as error:
            self._fail(error.sentence)
            return
        self._reactor.serve_idle = self._serving.serve_idle()
        self._channel.send(Ready(os.getpid()))

    def _fail(self, sentence: str) -> None:
        self.status = 1
        self._channel.send(Failed(shortened(sentence)))
        self._reactor.stop()

    def _tell(self, event: LogEvent) -> None:
        level = event.get("log_level")
        name = level.name if level is not None else "info"
        if name == "debug" or "log_namespace" not in event:
            return
        text = eventAsText(event, includeTimestamp=False, includeSystem=False)
        told = LogLine(name, shortened(text))
        if isInIOThread():
            self._channel.send(told)
        else:
            self._reactor.callFromThread(self._channel.send, told)

    def _terminated(self, number: int, frame: object) -> None:
        # The supervisor decides: it may have been told the same, and then there
        # would be nobody to take what still comes.
        self._reactor.callFromThread(self._channel.send, Leaving())

    def _received(self, message: Message, descriptors: list[int]) -> None:
        if isinstance(message, Listen):
            self._listen(message, descriptors)
        elif isinstance(message, Unlisten):
            self._serving.unlisten(message.name)
        elif isinstance(message, Gated):
            self._serving.may_accept = self._gate(message.policy)
        elif isinstance(message, Credits):
            self._credits_came(descriptors)
        elif isinstance(message, Batch):
            self._adopting.batch_came(message, descriptors)
        elif isinstance(message, Drain):
            self._drain(message.seconds, message.others_serve)
        else:
            raise AssertionError(f"no message for a worker: {message}")

    def _share_of(self, waiting: int) -> int:
        return -(-waiting // max(1, self._scoreboard.takers()))

    def _gate(self, policy: str) -> Callable[[int], bool]:
        if not policy:
            return lambda waiting: True
        gated: Any = policy_of_gates(policy)
        return Gate(gated, self._worker, self._scoreboard).is_open

    def _listen(self, message: Listen, descriptors: Sequence[int]) -> None:
        if not descriptors:
            # No room for it (unix(7)); who it was meant for serves on.
            self._channel.send(Unplaced(message.name))
            return
        (descriptor,) = descriptors
        with socket.socket(fileno=descriptor) as sock:
            if self._draining:
                return
            try:
                self._serving.listen(message.name, sock, exclusive=message.exclusive)
            except OSError:
                self._channel.send(Unplaced(message.name))

    def _credits_came(self, descriptors: Sequence[int]) -> None:
        if not descriptors:
            # The first thing that it is sent: there is room for nothing at all.
            self._fail("the limit of open files leaves no room for a connection")
            self._channel.close()
            return
        (descriptor,) = descriptors
        self._adopting.credits_came(descriptor)

    def _heard(self) -> None:
        self._adopting.acknowledge()

    def _drain(self, seconds: float, others_serve: bool) -> None:
        if self._draining:
            return
        self._draining = True
        drained = self._serving.drain(seconds, others_serve)
        drained.addCallback(self._drained)
        drained.addBoth(lambda _: self._reactor.stop())

    def _drained(self, _: None) -> Deferred[None]:
        self._limited.finish()
        # What is still to be read would be dropped.
        self._adopting.leaving = True
        return self._serving.stop()

    def _left(self) -> None:
        """
        The supervisor is gone. Nobody would replace this worker or end it:
        better none than one that nobody knows of. What it was writing is swept
        by whoever opens the store next.
        """
        os._exit(0)
