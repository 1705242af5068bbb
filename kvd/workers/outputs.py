"""
The files that a process writes beside its store: the access log and the record of
connections, each in a thread of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from kvd.http.access_formats import FORMATS
from kvd.http.access_log import AccessLog, append_to
from kvd.http.recorder import Recorder, record_to
from kvd.log.writer import Writer
from kvd.settings import Settings


class Outputs:
    """
    Opens what the settings ask for, and ends it in order.
    """

    def __init__(
        self, settings: Settings, worker: int, reactor: Any, epoch_ns: int
    ) -> None:
        """
        Args:
            settings: All settings.
            worker: The number of this worker, which each line has.
            reactor: Is never blocked by a write.
            epoch_ns: See `kvd.ipc.scoreboard.Scoreboard.epoch_ns`.

        Raises:
            OperatorError: A file cannot be opened.
        """
        self._reactor = reactor
        self._writers: list[Writer] = []
        self.access_log: AccessLog | None = None
        self.recorder: Recorder | None = None
        path = settings.access_log
        if path is not None:
            self.access_log = AccessLog(
                worker,
                FORMATS[settings.access_log_format],
                append_to(path),
                reactor,
                self.thread_for(path),
            )
        path = settings.record
        if path is not None:
            self.recorder = Recorder(
                worker, record_to(path), reactor, self.thread_for(path), epoch_ns
            )

    def thread_for(self, name: str) -> Callable[[Callable[[], None]], Deferred[None]]:
        """
        Returns a function that defers work to a thread of its own: a write to a file
        may block for ever.
        """
        writer = Writer(name)
        self._writers.append(writer)
        return lambda function: writer.defer(function, self._reactor)

    def flush(self) -> list[Deferred[None]]:
        """
        Begin to write what is buffered, and take no more.

        Returns:
            Fire when it is written; they never fail.
        """
        return [log.stop() for log in (self.access_log, self.recorder) if log]

    def end(self) -> None:
        """
        End the threads, once everything is written.
        """
        for writer in self._writers:
            writer.end()
