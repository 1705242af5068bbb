"""
A rate limit for lines of the log.

Clients can cause as many lines as they like: each PUT of a value that is too large for
the disk, for example, is a warning. An operator needs the first few of a kind, and the
number of the others.
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
Of one kind, in one period.
"""

MOST_KINDS: Final = 500
"""
How many kinds are counted; all further ones are counted as one.
"""

PASSES: Final = "log_limited"
"""
The field of an event that has passed a limit already.
"""

# The kind of an event without a format is this many characters of its text.
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
    Passes on `MOST_LINES` events of a kind in `PERIOD_SECONDS`, and reports at the end
    of the period how many more there were.

    Events are of one kind if they have the same format and come from the same module;
    where one format serves several conditions, the field ``kind`` sets them apart.
    """

    def __init__(
        self,
        observer: ILogObserver,
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        """
        Args:
            observer: Gets the events that pass, in the thread that logs.
            call_later: Calls a function after some seconds; may be called from any
                thread.
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
        Report now how many lines were left out, and end all periods.
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
    A ``call_later`` that can be called from any thread and calls in the reactor.
    """

    def call_later(seconds: float, function: Callable[[], None]) -> None:
        reactor.callFromThread(reactor.callLater, seconds, function)

    return call_later
