"""
The last events of the daemon: what the log says of restarts, switches, drains and
stalls.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from twisted.logger import ILogObserver, LogEvent, LogPublisher, formatEvent
from zope.interface import implementer

KEPT_EVENTS: Final = 100


@implementer(ILogObserver)
class Events:
    """
    Keeps log events that have a field ``happened``, which names their kind. Those are
    events of the daemon as a whole: no client can cause one at will.
    """

    def __init__(self, publisher: LogPublisher) -> None:
        self._publisher = publisher
        self.kept: deque[dict[str, Any]] = deque(maxlen=KEPT_EVENTS)
        """The oldest first, as plain data."""
        publisher.addObserver(self)

    def __call__(self, event: LogEvent) -> None:
        """
        See `ILogObserver`.
        """
        kind = event.get("happened")
        if kind is not None:
            self.kept.append(
                {
                    "at": round(event["log_time"], 3),
                    "kind": kind,
                    "level": event["log_level"].name,
                    "text": formatEvent(event),
                }
            )

    def close(self) -> None:
        """
        Keep no more.
        """
        self._publisher.removeObserver(self)
