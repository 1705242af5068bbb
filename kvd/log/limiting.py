"""
A limit for how often the log says the same.

Clients can cause lines, as many as they like: a value that is too large for the disk,
say, is one line for each request. The first few of a kind are what an operator needs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from twisted.logger import ILogObserver, LogEvent, Logger, formatEvent
from zope.interface import implementer

PERIOD_SECONDS: Final = 10.0
MOST_LINES: Final = 10
"""
Of a kind in a period.
"""

MOST_KINDS: Final = 500
"""
Of which count is kept; the others are counted as one.
"""

PASSES: Final = "log_limited"
"""
The field of an event that somebody else has limited already.
"""

# Of what has no format of its own, so many characters tell the kind.
_KIND_CHARACTERS: Final = 60


@dataclass(slots=True)
class _Kind:
    """
    One kind's period.
    """

    lines: int = 0
    left_out: int = 0
    last: str = ""
    """The text of the last one that was left out."""


@implementer(ILogObserver)
class Limited:
    """
    Passes on `MOST_LINES` of a kind in `PERIOD_SECONDS`, and tells at the end of the
    period how many more there were.

    Of a kind are events with the same format from the same place; where one format
    tells of several things, the field ``kind`` sets them apart.
    """

    def __init__(
        self,
        observer: ILogObserver,
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        """
        Args:
            observer: Gets what passes, from whichever thread logs.
            call_later: Calls a function after some seconds; called from any thread.
        """
        self._observer = observer
        self._call_later = call_later
        # Reentrant: a signal's handler may log while this thread logs.
        self._lock = threading.RLock()
        self._kinds: dict[object, _Kind] = {}

    def __call__(self, event: LogEvent) -> None:
        if event.get(PASSES) or self._passes(event):
            self._observer(event)

    def _passes(self, event: LogEvent) -> bool:
        name = _kind_of(event)
        with self._lock:
            if name not in self._kinds and len(self._kinds) >= MOST_KINDS:
                name = None
            kind = self._kinds.get(name)
            if kind is None:
                kind = self._kinds[name] = _Kind()
                self._call_later(PERIOD_SECONDS, lambda: self._end(name))
            if kind.lines < MOST_LINES:
                kind.lines += 1
                return True
            kind.left_out += 1
            kind.last = formatEvent(event)
            return False

    def _end(self, name: object) -> None:
        with self._lock:
            kind = self._kinds.pop(name, None)
        if kind is not None and kind.left_out:
            Logger(__name__, observer=self._observer).warn(
                "{count} more lines of this kind were left out: {last}",
                count=kind.left_out,
                last=kind.last,
                # Each worker limits its own.
                **{PASSES: True},
            )

    def finish(self) -> None:
        """
        Tell now how many lines were left out. Their periods end.
        """
        with self._lock:
            names = list(self._kinds)
        for name in names:
            self._end(name)


def _kind_of(event: LogEvent) -> object:
    form = event.get("log_format")
    if form in (None, "{log_text}", "{log_io}"):
        # Twisted's old logging system, or what was printed.
        form = formatEvent(event)[:_KIND_CHARACTERS]
    return event.get("log_namespace"), form, event.get("kind")


def in_reactor(reactor: Any) -> Callable[[float, Callable[[], None]], object]:
    """
    Calls a function in a reactor after some seconds, from whichever thread it is asked.
    """

    def call_later(seconds: float, function: Callable[[], None]) -> None:
        reactor.callFromThread(reactor.callLater, seconds, function)

    return call_later
