"""
The formats of the access log: each makes one line of an entry.

Clients choose some of the values: the target, the user agent, the referer, the name in
a certificate. None of them can end a line or a field, whatever bytes it has.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

from kvd.http.access_log import Entry

_PLAIN: Final = "@!$&'()*+,;:=/"
"""
Of the names of users, beside letters, digits and the characters that `quote` keeps.
"""

_UNSAFE: Final = re.compile(r"[^ !#-\[\]-~]")
"""
What does not stand as it is between double quotes: all but printable ASCII, the quote
itself and the backslash.
"""

_MONTHS: Final = "JanFebMarAprMayJunJulAugSepOctNovDec"

UNREAD: Final = "-"
"""
The method of a request whose head was not understood.
"""


def plain(entry: Entry, worker: int) -> str:
    """
    kvd's own format: blanks separate the fields, and no field contains one.
    """
    return (
        f"{_iso(entry.ended)}"
        f" worker={worker} {entry.peer} {_word(entry.sender.user)}"
        f" {entry.method} {entry.key}"
        f" {entry.status} {entry.body_bytes} {entry.seconds:.6f}"
    )


def combined(entry: Entry, worker: int) -> str:
    """
    The combined log format of Apache and nginx, which most tools read. Bytes that would
    need an escape are written as nginx does it, ``\\x22``.
    """
    ended = datetime.fromtimestamp(entry.ended, UTC)
    # Not by strftime, which would follow a locale.
    month = _MONTHS[3 * ended.month - 3 : 3 * ended.month]
    day = f"{ended.day:02d}/{month}/{ended.year}"
    sender = entry.sender
    line = f"{entry.method} {entry.key} HTTP/1.{sender.minor}"
    return (
        f"{_host_of(entry.peer)} - {_word(sender.user)}"
        f" [{day}:{ended:%H:%M:%S} +0000]"
        f" {_quoted(None if entry.method == UNREAD else line)}"
        f" {entry.status} {entry.body_bytes}"
        f" {_quoted(sender.referer)} {_quoted(sender.agent)}"
    )


def as_json(entry: Entry, worker: int) -> str:
    """
    One object of JSON, in ASCII. What is unknown is ``null``.
    """
    sender, is_read = entry.sender, entry.method != UNREAD
    return json.dumps(
        {
            "time": _iso(entry.ended),
            "worker": worker,
            "client": entry.peer,
            "proxy": entry.proxy,
            "user": sender.user,
            "method": entry.method if is_read else None,
            "target": entry.key if is_read else None,
            "protocol": f"HTTP/1.{sender.minor}" if is_read else None,
            "status": entry.status,
            "bytes": entry.body_bytes,
            "seconds": round(entry.seconds, 6),
            "referer": _decoded(sender.referer),
            "agent": _decoded(sender.agent),
        }
    )


FORMATS: Final[Mapping[str, Callable[[Entry, int], str]]] = {
    "plain": plain,
    "combined": combined,
    "json": as_json,
}
"""
By the names of ``--access-log-format``.
"""


def _iso(seconds: float) -> str:
    at = datetime.fromtimestamp(seconds, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"


def _word(user: str | None) -> str:
    """
    A user, percent-encoded where the name is not one word of ASCII; ``-`` for none.
    """
    if not user:
        return "-"
    return "%2D" if user == "-" else quote(user, safe=_PLAIN)


def _host_of(peer: str) -> str:
    """
    The address of a client without its port.
    """
    if peer.startswith("["):
        return peer[1:].partition("]")[0]
    return peer.partition(":")[0]


def _quoted(value: str | None) -> str:
    return '"-"' if value is None else f'"{_UNSAFE.sub(_escape, value)}"'


def _escape(match: re.Match[str]) -> str:
    data = match[0].encode("utf-8", "surrogateescape")
    return "".join(f"\\x{byte:02X}" for byte in data)


def _decoded(value: str | None) -> str | None:
    """
    A value without surrogates, which most readers of JSON refuse.
    """
    if value is None or value.isascii():
        return value
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
