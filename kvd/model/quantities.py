"""
Counts, sizes and times as an operator writes them.

Each reader has bounds and reads the text of one setting; its error says what would be
right. Units of sizes follow nginx, dd and systemd: ``16k`` and ``16KiB`` are 16 times
1,024 bytes, and only ``16kB`` is 16 times 1,000.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kvd.errors import BadSetting

_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_SIZE = re.compile(r"([0-9]{1,18})(?: (?=.))?([kmgt]?)(i?b)?", re.ASCII | re.IGNORECASE)

_UNIT_SECONDS = {
    "ms": 0.001,
    "": 1.0,
    "s": 1.0,
    "m": 60.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}
_TIME = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)(?: (?=.))?([a-z]*)", re.ASCII)

_COUNT = re.compile(r"[0-9]{1,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Count:
    """
    Reads a whole number.
    """

    what: str
    """What the number is, with an article, for messages."""
    least: int
    most: int

    def __call__(self, text: str) -> int:
        if _COUNT.fullmatch(text) and self.least <= int(text) <= self.most:
            return int(text)
        raise BadSetting(
            f"{text!r} is not {self.what}: give a whole number from"
            f" {self.least} to {self.most}"
        )


@dataclass(frozen=True, slots=True)
class Size:
    """
    Reads a number of bytes.
    """

    least: int
    most: int

    def __call__(self, text: str) -> int:
        size = _bytes_in(text)
        if size is None:
            raise BadSetting(
                f"{text!r} is not a size: give a whole number of bytes, or one with"
                f" a unit, such as {self.least}, 16KiB, 16k (the same) or 16kB"
                " (16000 bytes)"
            )
        if not self.least <= size <= self.most:
            raise BadSetting(
                f"{text!r} is out of bounds: give a size from {format_size(self.least)}"
                f" to {format_size(self.most)}"
            )
        return size


def _bytes_in(text: str) -> int | None:
    match = _SIZE.fullmatch(text)
    if match is None:
        return None
    number, prefix, suffix = match[1], match[2].lower(), (match[3] or "").lower()
    if suffix == "ib" and not prefix:
        return None
    base = 1000 if suffix == "b" else 1024
    size: int = int(number) * base ** _POWERS[prefix]
    return size


def format_size(size: int) -> str:
    """
    Format a size with the largest unit that keeps it a whole number.
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size % 1024 or not size:
            return f"{size}{unit}"
        size //= 1024
    return f"{size}TiB"


@dataclass(frozen=True, slots=True)
class Seconds:
    """
    Reads a time above zero, or of at least so many seconds.
    """

    most: float
    least: float = 0.0

    def __call__(self, text: str) -> float:
        match = _TIME.fullmatch(text)
        if match and match[2] in _UNIT_SECONDS:
            seconds = float(match[1]) * _UNIT_SECONDS[match[2]]
            if 0 < seconds <= self.most and seconds >= self.least:
                return seconds
        shortest = f"from {self.least:g}" if self.least else "above 0"
        raise BadSetting(
            f"{text!r} is not a valid time: give seconds {shortest}, or a"
            f" number with a unit, such as 10, 0.5, 500ms, 10s, 5m, 1h; the longest is"
            f" {format_seconds(self.most)}"
        )


def format_seconds(seconds: float) -> str:
    """
    Format a time with the largest unit that keeps it a whole number.
    """
    for unit in ("d", "h", "m"):
        if seconds % _UNIT_SECONDS[unit] == 0:
            return f"{seconds / _UNIT_SECONDS[unit]:g}{unit}"
    return f"{seconds:g}s"
