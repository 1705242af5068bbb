"""
Heads that have been parsed before, wholly or but for their target.

A client that asks again sends the same bytes again: the same key, the same fields.
One that asks for something else sends the same fields with another target. What
bytes mean does not change, so it is kept for those that came last: a lookup takes a
fifteenth of the time of a parse, a new target for known fields a sixth.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from kvd.http.wire.head import parse_head
from kvd.model.requests import Request
from kvd.settings import Limits

KEPT_HEADS: Final = 2048
KEPT_HEAD_BYTES: Final = 512
"""
Longer ones are parsed each time: together, what is kept takes little memory.
"""

KEPT_FIELDS: Final = 256

# Targets that no parser could refuse or take for anything but a path: for others,
# the whole head is looked at.
_LINE: Final = re.compile(
    rb"([A-Z]+) (/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*) (HTTP/1\.[01]\r\n)"
)


class Heads:
    """
    Parses the heads of all connections of a process.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._kept: dict[bytes, Request] = {}
        self._examples: dict[tuple[bytes, bytes], Request] = {}

    def parse(self, head: bytes) -> Request:
        """
        See `parse_head`. The request may have been given before, and nobody may
        change it.
        """
        request = self._kept.get(head)
        if request is not None:
            return request
        if len(head) > KEPT_HEAD_BYTES:
            return parse_head(head, self._limits)
        request = self._parse_by_example(head)
        if len(self._kept) >= KEPT_HEADS:
            # All of them: whichever are asked for come back at once.
            self._kept.clear()
        self._kept[head] = request
        return request

    def _parse_by_example(self, head: bytes) -> Request:
        line = _LINE.match(head)
        if line is None or len(line[2]) > self._limits.target_bytes:
            return parse_head(head, self._limits)
        # All of the head but the target.
        frame = line[1], head[line.start(3) :]
        example = self._examples.get(frame)
        if example is not None:
            return replace(example, target=line[2])
        request = parse_head(head, self._limits)
        if len(self._examples) >= KEPT_FIELDS:
            self._examples.clear()
        self._examples[frame] = request
        return request
