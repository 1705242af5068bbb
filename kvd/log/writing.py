"""
Writing the log in a thread, whatever twistd was told to write it to.

twistd's observers write at once: to standard output, a file, syslog(3), or what
``--logger`` names. A pipe that nobody reads, or a disk that is stalled, would stop the
reactor at the next line, and with it connections, timeouts and the answer to SIGTERM.
So each event is given its text at once, and a thread hands it to the observers. What
waits for the thread is bounded; what comes beyond is counted, and that is written where
it is missing.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Final

from twisted.logger import (
    ILogObserver,
    LogEvent,
    Logger,
    LogPublisher,
    formatEvent,
    globalLogPublisher,
)
from zope.interface import implementer

from kvd.log.limiting import Limited, in_reactor
from kvd.log.writer import Writer

MAX_WAITING_CHARACTERS: Final = 1024 * 1024
"""
Of the text that waits; as much again may be with the thread.
"""

LEAST_CHARACTERS: Final = 256
"""
What an event counts for at least. What waits is then no more than 4,096 of them.
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
    Hands events to other observers, in a thread.
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
                # What it is about may have changed when the thread gets to it.
                told = {"log_format": "{log_text}", "log_text": text}
                self._waiting.append(event | told)
            if not self._called:
                self._called = True
                self._writer.call(self._write)
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
                    "{count} lines of the log are missing here: nobody took it as fast"
                    " as it came",
                    count=left_out,
                )

    def end(self) -> None:
        """
        Wait for the thread from now on, with each event, `END_SECONDS` in all: nothing
        else is left to do, and the process may end behind any line.
        """
        self._end = time.monotonic() + END_SECONDS
        self._writer.wait(END_SECONDS)


def write_log_later(reactor: Any) -> None:
    """
    Have the log written in a thread, and limited, until this process ends.

    Args:
        reactor: This process's, which runs or is about to.
    """
    publisher = globalLogPublisher
    # twistd has made them, and nobody else knows them.
    observers = list(publisher._observers)
    later = WrittenLater(*observers)
    limited = Limited(later, in_reactor(reactor))
    publisher.addObserver(limited)
    for observer in observers:
        publisher.removeObserver(observer)

    def end() -> None:
        limited.finish()
        later.end()

    reactor.addSystemEventTrigger("after", "shutdown", end)
