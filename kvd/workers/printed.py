"""
Logs what the fork server and its workers print to standard error.

That is little, since a worker sends its log over its control socket: mostly what Python
or a library prints before the process ends. The supervisor reads it, so that a worker
never blocks on a full pipe.
"""

from __future__ import annotations

import os
from typing import IO, Any, Final

from twisted.internet.abstract import FileDescriptor
from twisted.logger import Logger

READ_BYTES: Final = 64 * 1024
"""
How much to read per event.
"""

MAX_LINE_BYTES: Final = 8192
"""
Longer lines are logged in pieces.
"""

TOGETHER_SECONDS: Final = 0.1
"""
Lines that follow the first one within this time are logged with it. Python prints where
a process crashed in many small writes, and the log limits how many events pass.
"""

MAX_TOGETHER_BYTES: Final = 64 * 1024
"""
With this much, the lines are logged at once.
"""


class Printed(FileDescriptor):
    """
    Reads a pipe until every process that can write to it has ended.
    """

    _log = Logger()

    def __init__(self, pipe: IO[bytes], reactor: Any) -> None:
        """
        Args:
            pipe: Owned by this.
            reactor: Watches it.
        """
        super().__init__(reactor)
        self._clock = reactor
        self._pipe = pipe
        os.set_blocking(pipe.fileno(), False)
        self._rest = b""
        self._lines: list[bytes] = []
        self._bytes = 0
        self._due: Any = None
        self.startReading()

    def fileno(self) -> int:
        return -1 if self._pipe.closed else self._pipe.fileno()

    def logPrefix(self) -> str:
        return "kvd"

    def doRead(self) -> None:
        try:
            data = os.read(self._pipe.fileno(), READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._end()
            return
        *lines, rest = (self._rest + data).split(b"\n")
        while len(rest) >= MAX_LINE_BYTES:
            lines.append(rest[:MAX_LINE_BYTES])
            rest = rest[MAX_LINE_BYTES:]
        self._rest = rest
        self._lines += lines
        self._bytes += len(data)
        if self._bytes >= MAX_TOGETHER_BYTES:
            self._report()
        elif self._lines and self._due is None:
            self._due = self._clock.callLater(TOGETHER_SECONDS, self._report)

    def _report(self) -> None:
        if self._due is not None and self._due.active():
            self._due.cancel()
        lines, self._lines, self._bytes, self._due = self._lines, [], 0, None
        # As one event, like a traceback.
        text = b"\n".join(lines).decode("utf-8", "backslashreplace")
        if text.strip():
            self._log.error("printed by the fork server or a worker: {text}", text=text)

    def connectionLost(self, reason: Any) -> None:
        self._end()

    def _end(self) -> None:
        if self._pipe.closed:
            return
        self.stopReading()
        self._pipe.close()
        self._lines.append(self._rest)
        self._report()
