"""
The worker process: a fork of the fork server that installs a reactor and serves.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Final, cast

from twisted.internet.defer import Deferred
from twisted.logger import (
    ILogObserver,
    LogEvent,
    Logger,
    eventAsText,
    globalLogBeginner,
)
from twisted.python.threadable import isInIOThread

from kvd.dispatch.adopting import Adopting
from kvd.dispatch.gate import Gate, policy_of_gates
from kvd.errors import OperatorError
from kvd.ipc.channel import Channel
from kvd.ipc.messages import (
    Alive,
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
    Rights,
    Unlisten,
    Unplaced,
    shortened,
)
from kvd.ipc.row import Row
from kvd.ipc.scoreboard import Scoreboard
from kvd.ipc.texts import read_text
from kvd.log.limiting import Limited, in_reactor
from kvd.net.reactor import install
from kvd.settings import Settings
from kvd.workers.http_server import HttpServer
from kvd.workers.loading import LoadedPlugins

RIGHTS_DESCRIPTORS: Final = 3
"""
That come with `Rights`.
"""


def run(
    control: socket.socket,
    settings: Settings,
    worker: int,
    scoreboard: Scoreboard,
    parts: LoadedPlugins,
) -> int:
    """
    Run a worker until it has drained, or the supervisor is gone.

    Args:
        control: The worker's end of its control socket.
        settings: All settings.
        worker: The worker's number.
        scoreboard: Has the worker's own counters, and those of the other workers.
        parts: The plugins that the settings choose, loaded before the fork.

    Returns:
        The exit status.
    """
    # Only after the fork: a reactor must not be inherited.
    row = scoreboard.own_row(worker)
    reactor = install(row.turns)
    child = Worker(control, settings, worker, reactor, row, scoreboard, parts)
    reactor.callWhenRunning(child.start)
    reactor.run(installSignalHandlers=False)
    return child.status


class Worker:
    """
    Carries out the supervisor's messages.
    """

    _log = Logger()

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
        self._channel = Channel(control, self._received, self._left, reactor)
        self._server = HttpServer(settings, worker, reactor, row, parts)
        self._server.share_of = self._share_of
        self._adopting = Adopting(self._channel, self._server.source, reactor, row)
        self._limited = Limited(cast(ILogObserver, self._report), in_reactor(reactor))
        users = settings.users
        self._rights = None if users is None else users.text
        self._draining = False
        self.status = 0

    def start(self) -> None:
        """
        Open the store, and report that the worker is ready for sockets.
        """
        # This captures prints too: standard error may be a pipe that nobody reads.
        globalLogBeginner.beginLoggingTo([self._limited], discardBuffer=True)
        signal.signal(signal.SIGTERM, self._terminated)
        try:
            self._server.start()
        except OperatorError as error:
            self._fail(error.sentence)
            return
        self._reactor.serve_readable = self._server.serve_idle()
        self._channel.send(Ready(os.getpid()))

    def _fail(self, sentence: str) -> None:
        self.status = 1
        self._channel.send(Failed(shortened(sentence)))
        self._reactor.stop()

    def _report(self, event: LogEvent) -> None:
        level = event.get("log_level")
        name = level.name if level is not None else "info"
        if name == "debug" or "log_namespace" not in event:
            return
        text = eventAsText(event, includeTimestamp=False, includeSystem=False)
        reported = LogLine(name, shortened(text))
        if isInIOThread():
            self._channel.send(reported)
        else:
            self._reactor.callFromThread(self._channel.send, reported)

    def _terminated(self, number: int, frame: object) -> None:
        # The supervisor decides: it may have got the same signal, and then no other
        # worker would take the connections that still arrive.
        self._reactor.callFromThread(self._channel.send, Leaving())

    def _received(self, message: Message, descriptors: list[int]) -> None:
        if isinstance(message, Listen):
            self._listen(message, descriptors)
        elif isinstance(message, Unlisten):
            self._server.unlisten(message.name)
        elif isinstance(message, Gated):
            self._server.may_accept = self._gate(message.policy)
        elif isinstance(message, Credits):
            self._credits_came(descriptors)
        elif isinstance(message, Batch):
            self._adopting.batch_came(message, descriptors)
        elif isinstance(message, Rights):
            self._rights_came(message.path, descriptors)
        elif isinstance(message, Drain):
            self._drain(message.seconds, message.others_serve)
        elif isinstance(message, Alive):
            # The reactor wrote a time stamp when it woke for this.
            pass
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
            # This process has no descriptor left, so the kernel dropped the socket
            # (unix(7)). Report it, and keep serving.
            self._channel.send(Unplaced(message.name))
            return
        descriptor, *bells = descriptors
        with ExitStack() as stack:
            sock = stack.enter_context(socket.socket(fileno=descriptor))
            for bell in bells:
                stack.callback(os.close, bell)
            if self._draining:
                return
            if not (message.exclusive or bells):
                # There was room for the socket alone.
                self._channel.send(Unplaced(message.name))
                return
            try:
                self._server.listen(message.name, sock, *bells)
            except OSError:
                self._channel.send(Unplaced(message.name))

    def _credits_came(self, descriptors: Sequence[int]) -> None:
        if not descriptors:
            # This is the first descriptor that a worker gets: there is room for none.
            self._fail("the limit of open files leaves no room for a connection")
            self._channel.close()
            return
        (descriptor,) = descriptors
        self._adopting.credits_came(descriptor)
        self._server.take_batches(
            self._channel.fileno(),
            descriptor,
            self._adopting.adopt,
            self._channel.came,
        )

    def _rights_came(self, path: str, descriptors: Sequence[int]) -> None:
        try:
            self._adopt_rights(path, descriptors)
        except Exception:
            self._log.failure(
                "this worker cannot apply the rights file that was read again: it"
                " refuses all requests, and makes room for one that can"
            )
            self._rights = None
            self._server.close_to_all()
            self._channel.send(Leaving())
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _adopt_rights(self, path: str, descriptors: Sequence[int]) -> None:
        if not path:
            self._server.adopt_no_rules()
            self._rights = None
            return
        if len(descriptors) < RIGHTS_DESCRIPTORS:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        file, counting, verifying = descriptors
        text = read_text(file)
        if text == self._rights:
            return
        # Loaded before the fork, if there was a rights file.
        from kvd.access.rights_file import parse_rights

        self._server.adopt_rules(parse_rights(text, path), counting, verifying)
        self._rights = text

    def _drain(self, seconds: float, others_serve: bool) -> None:
        if self._draining:
            return
        self._draining = True
        drained = self._server.drain(seconds, others_serve)
        drained.addCallback(self._drained)
        drained.addBoth(lambda _: self._reactor.stop())

    def _drained(self, _: None) -> Deferred[None]:
        self._limited.finish()
        # Refuse batches that are still unread: they would be lost.
        self._adopting.leaving = True
        return self._server.stop()

    def _left(self) -> None:
        """
        Exit at once: the supervisor is gone, and no process could replace or end this
        worker. The next process that opens the store removes unfinished uploads.
        """
        os._exit(0)
