"""
The processor time of small functions that kvd has in Python and in C.

A program of its own, which `bench.compiling` runs with each build of kvd on its path.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from kvd.http.wire import fields, head
from kvd.settings import Limits
from kvd.store import attribute, folders

CALLS: Final = 20_000
ROUNDS: Final = 5

_ETAG: Final = b"6f1cdd0b22a04a3f8a1f6a54ac0f3a1e"
_TAGS: Final = b'"0123abcd", W/"' + _ETAG + b'"'
_DATE: Final = b"Sun, 06 Nov 1994 08:49:37 GMT"
_HEAD: Final = (
    b"GET /objects/ab/cdef0123456789 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n"
    b"User-Agent: load\r\nAccept: */*\r\nIf-None-Match: " + _TAGS + b"\r\n\r\n"
)
_ATTRIBUTE: Final = attribute.encode(
    _ETAG.decode(), 4096, 1795890600_123456, b"content-type: text/plain\n"
)


def main(by_hand: bool) -> None:
    """
    Print microseconds by the name of the function.

    Args:
        by_hand: Whether the functions in C are meant.
    """
    with tempfile.TemporaryDirectory(prefix="kvd-primitives-") as folder:
        Path(folder, "ab", "cd").mkdir(parents=True)
        root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        took = {
            name: _microseconds(call, CALLS // parts)
            for name, parts, call in _calls(by_hand, root)
        }
        os.close(root)
    print(json.dumps(took))


def _calls(by_hand: bool, root: int) -> list[tuple[str, int, Callable[[], object]]]:
    ranges = fields.byte_range if by_hand else fields.byte_range_in_python
    dates = fields.fixed_date if by_hand else fields.fixed_date_in_python
    tags = fields.list_tags if by_hand else fields.list_tags_in_python
    paths = folders.open_path if by_hand else folders.open_path_by_names
    both: list[tuple[str, int, Callable[[], object]]] = [
        ("a range", 1, lambda: ranges(b"bytes=100-4195", None, _ETAG, 100_000)),
        ("a date", 1, lambda: dates(_DATE)),
        ("two entity tags", 1, lambda: tags(_TAGS)),
        ("open a folder", 4, lambda: os.close(paths(root, b"ab/cd", -1))),
    ]
    if by_hand:
        return both
    limits = Limits()
    decode = attribute.decode.__wrapped__
    return [
        *both,
        ("parse a head", 2, lambda: head.parse_head(_HEAD, limits)),
        ("read an attribute", 1, lambda: decode(_ATTRIBUTE)),
    ]


def _microseconds(call: Callable[[], object], count: int) -> float:
    """
    The least of some rounds: whatever else runs only adds to it.
    """
    rounds = []
    for _ in range(ROUNDS):
        before = time.process_time_ns()
        for _ in range(count):
            call()
        rounds.append(time.process_time_ns() - before)
    return min(rounds) / count / 1000


if __name__ == "__main__":
    main(sys.argv[1] == "C")
