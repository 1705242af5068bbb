"""
What a row of the scoreboard has counted of requests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from kvd.http.access_log import Entry
from kvd.ipc.row import METHOD, METHOD_WORDS, METHODS, STATUS_WORD, STATUSES

ByClass = Counter[tuple[str, str]]
"""
How many requests had a method and a class of statuses.
"""


def counted(words: Sequence[int]) -> ByClass:
    """
    What a row has counted. The durations must be as many as the requests.
    """
    found: ByClass = Counter()
    for number, method in enumerate(METHODS):
        own = words[METHOD + METHOD_WORDS * number :][:METHOD_WORDS]
        statuses = own[STATUS_WORD:]
        assert sum(statuses) == sum(own[1:STATUS_WORD]), method
        found.update(
            {
                (method, status): count
                for status, count in zip(STATUSES, statuses, strict=True)
                if count
            }
        )
    return found


def logged(entries: Iterable[Entry]) -> ByClass:
    """
    What the access log has of the same requests.
    """
    return Counter(
        (
            entry.method if entry.method in METHODS else "other",
            {499: "499", 501: "501", 505: "501"}.get(
                entry.status, f"{entry.status // 100}xx"
            ),
        )
        for entry in entries
    )
