"""
Writes the log in a thread, wherever twistd writes it.

twistd's observers write at once: to standard output, a file, syslog(3), or what
``--logger`` names. A pipe that nobody reads, or a stalled disk, would stop the reactor
at the next line, and with it connections, timeouts and the response to SIGTERM. So each
event is formatted at once, and a thread passes it to the observers. The text that waits
for the thread is bounded; events beyond the bound are counted, and the count is written
where they are missing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    LogEvent,
    Logger,
    LogPublisher,
    formatEvent,
    globalLogPublisher,
)
from twisted.python.logfile import LogFile
from zope.interface import implementer

from kvd.errors import NoThread
from kvd.log.formats import set_format
from kvd.log.limiting import Limited, in_reactor
from kvd.log.writer import Writer
from kvd.settings import LogFormat

_log = Logger()

MAX_WAITING_CHARACTERS: Final = 1024 * 1024
"""
How much text may wait; the thread may hold as much again.
"""

LEAST_CHARACTERS: Final = 256
"""
The least that an event counts for, so that no more than 4,096 events wait.
"""

FAILURE_CHARACTERS: Final = 64 * 1024
"""
What a failure counts for: its traceback, and what that holds.
"""

END_SECONDS: Final = 1.0
"""
How long the end of the process may wait for the log.
"""


@implementer(ILogObserver)
class WrittenLater:
    """
    Passes events to other observers, in a thread.
    """

    def __init__(self, *observers: ILogObserver) -> None:
        """
        Args:
            observers: May block.
        """
        self._publish = LogPublisher(*observers)
        self._writer = Writer("log")
        # Reentrant: a signal's handler may log while this thread logs.
        self._lock = threading.RLock()
        self._waiting: list[LogEvent] = []
        self._characters = 0
        self._left_out = 0
        self._called = False
        self._end: float | None = None

    def __call__(self, event: LogEvent) -> None:
        text = formatEvent(event)
        characters = max(LEAST_CHARACTERS, len(text))
        if "log_failure" in event:
            characters += FAILURE_CHARACTERS
        with self._lock:
            if self._characters + characters > MAX_WAITING_CHARACTERS:
                self._left_out += 1
            else:
                self._characters += characters
                # Formatted now: its fields may change before the thread gets to it.
                formatted = {"log_format": "{log_text}", "log_text": text}
                self._waiting.append(event | formatted)
            if not self._called:
                # If there is no thread for it, the next event tries again.
                with suppress(NoThread):
                    self._writer.call(self._write)
                    self._called = True
        if self._end is not None:
            self._writer.wait(max(0.0, self._end - time.monotonic()))

    def _write(self) -> None:
        while True:
            with self._lock:
                events, self._waiting = self._waiting, []
                left_out, self._left_out = self._left_out, 0
                self._characters = 0
                if not (events or left_out):
                    self._called = False
                    return
            for event in events:
                self._publish(event)
            if left_out:
                Logger(__name__, observer=self._publish).warn(
                    "{count} lines of the log are missing here: it was not read or"
                    " written as fast as they came",
                    count=left_out,
                )

    def call(self, function: Callable[[], object]) -> None:
        """
        Call a function, which must not raise, in the thread: between two events.
        """
        # If there is no thread for it, nothing is written either.
        with suppress(NoThread):
            self._writer.call(function)

    def end(self) -> None:
        """
        Wait for the thread with each event from now on, `END_SECONDS` in all: the
        process may end after any line.
        """
        self._end = time.monotonic() + END_SECONDS
        self._writer.wait(END_SECONDS)


def write_log_later(
    reactor: Any, log_format: LogFormat = "plain"
) -> Callable[[], None]:
    """
    Write the log in a thread, and limit it, until this process ends.

    Args:
        reactor: The reactor of this process, which runs or is about to.
        log_format: What it looks like, where twistd writes it to a file or to standard
            output.

    Returns:
        Has the thread open the file of the log again, by its name.
    """
    publisher = globalLogPublisher
    # twistd has made them; there is no public way to get at them.
    observers = list(publisher._observers)
    files = [each for each in observers if isinstance(each, FileLogObserver)]
    for file in files:
        set_format(file, log_format)
    later = WrittenLater(*observers)
    limited = Limited(later, in_reactor(reactor))
    publisher.addObserver(limited)
    for observer in observers:
        publisher.removeObserver(observer)
    if log_format != "plain" and not files:
        _log.warn(
            "the log is not written as {name}: that is only possible where twistd"
            " writes it to a file or to standard output",
            name=log_format,
        )

    def reopen() -> None:
        for file in files:
            if isinstance(file._outFile, LogFile):
                later.call(file._outFile.reopen)

    def end() -> None:
        limited.finish()
        later.end()

    reactor.addSystemEventTrigger("after", "shutdown", end)
    return reopen
