"""
The events of a connection.

`kvd.http.wire.reader.RequestReader` turns bytes into a sequence of

    Request, (bytes of the body)*, END_OF_REQUEST, Request, ...

with `NEED_DATA` wherever the next event is not complete yet.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal

from kvd.model.requests import Request


class Mark(Enum):
    """
    Events without content.
    """

    NEED_DATA = "the next event is not complete yet"
    END_OF_REQUEST = "the body, if any, is complete"


NEED_DATA: Final[Literal[Mark.NEED_DATA]] = Mark.NEED_DATA
END_OF_REQUEST: Final[Literal[Mark.END_OF_REQUEST]] = Mark.END_OF_REQUEST


Event = Request | bytes | Literal[Mark.NEED_DATA] | Literal[Mark.END_OF_REQUEST]
