"""
How an event of the log becomes text: as an object of JSON, or with the priority by
which journald sorts it.

twistd chooses where the log is written, and its observer for files has an attribute for
what an event looks like there; kvd sets that attribute.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from twisted.logger import FileLogObserver, LogEvent, LogLevel, eventAsText, formatEvent

from kvd.settings import LogFormat

FormatEvent = Callable[[LogEvent], str | None]
"""
Returns the text of an event, with a line end; None: it is not written.
"""

PRIORITIES: Final = {
    LogLevel.debug: 7,
    LogLevel.info: 6,
    LogLevel.warn: 4,
    LogLevel.error: 3,
    LogLevel.critical: 2,
}
"""
The levels of syslog(3) for those of Twisted.
"""

STDOUT: Final = 1


def as_json(event: LogEvent) -> str | None:
    """
    An event as one object in one line of ASCII.
    """
    text = formatEvent(event)
    if not text and "log_failure" not in event:
        return None
    seconds = event.get("log_time")
    fields: dict[str, object] = {
        "time": None if seconds is None else _iso(seconds),
        "level": _level(event).name,
        "logger": event.get("log_namespace"),
        "message": text,
    }
    if "worker" in event:
        # What a worker has logged, or what is about one.
        fields["worker"] = event["worker"]
    if "log_failure" in event:
        # The text of the event comes first, and then the traceback.
        whole = eventAsText(event, includeTimestamp=False, includeSystem=False)
        fields["traceback"] = whole.removeprefix(text).strip("\n")
    return json.dumps(fields) + "\n"


def with_priorities(format_event: FormatEvent) -> FormatEvent:
    """
    The same text with the priority of the event before each of its lines, as journald
    reads it (sd-daemon(3)).
    """

    def format_with_priority(event: LogEvent) -> str | None:
        text = format_event(event)
        if text is None:
            return None
        prefix = f"<{PRIORITIES[_level(event)]}>"
        return "".join(prefix + line for line in text.splitlines(keepends=True))

    return format_with_priority


def set_format(observer: FileLogObserver, log_format: LogFormat) -> None:
    """
    Have an observer write events in a format, and with priorities if journald reads
    them.
    """
    format_event: FormatEvent = observer.formatEvent
    if log_format == "json":
        format_event = as_json
    if _is_journal(STDOUT):
        format_event = with_priorities(format_event)
    observer.formatEvent = format_event


def _is_journal(descriptor: int) -> bool:
    """
    Whether what is written to a descriptor is read by journald (systemd.exec(5)).
    """
    stream = os.environ.get("JOURNAL_STREAM", "")
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return stream == f"{status.st_dev}:{status.st_ino}"


def _level(event: LogEvent) -> LogLevel:
    level: LogLevel | None = event.get("log_level")
    return LogLevel.info if level is None else level


def _iso(seconds: float) -> str:
    at = datetime.fromtimestamp(seconds, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"
