"""
Bytes into a reader, cut in every way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kvd.errors import PeerError
from kvd.http.wire.events import END_OF_REQUEST, NEED_DATA
from kvd.http.wire.reader import RequestReader
from kvd.model.requests import Request
from kvd.settings import Limits

Seen = list[Request | bytes | str | PeerError]
"""
Requests; whole bodies; "end"; and last, perhaps, what was refused.
"""


def read(pieces: Iterable[bytes], limits: Limits | None = None) -> Seen:
    """
    What a reader makes of some pieces. Neighbouring chunks of a body are
    joined: where they are cut is nobody's promise.
    """
    reader = RequestReader(limits or Limits())
    seen: Seen = []
    for piece in pieces:
        reader.feed(piece)
        try:
            while (event := reader.next_event()) is not NEED_DATA:
                last = seen[-1] if seen else None
                if event is END_OF_REQUEST:
                    seen.append("end")
                elif isinstance(event, bytes) and isinstance(last, bytes):
                    seen[-1] = last + event
                else:
                    assert isinstance(event, bytes | Request)
                    seen.append(event)
        except PeerError as error:
            seen.append(error)
            break
    return seen


def ways(data: bytes) -> Sequence[Sequence[bytes]]:
    """
    The same bytes whole, and byte by byte.
    """
    return [[data], [data[i : i + 1] for i in range(len(data))]]


def refusal(data: bytes, limits: Limits | None = None) -> PeerError:
    """
    What is said to bytes that have to be refused: whole, byte by byte, and
    with bytes to spare, in the same words.
    """
    spare = b"GET /smuggled HTTP/1.1\r\nHost: kvd\r\n\r\n"
    errors = []
    for pieces in [*ways(data), [data + spare], [data, spare]]:
        *before, last = read(pieces, limits)
        assert isinstance(last, PeerError), last
        assert not any(
            isinstance(event, Request) and b"smuggled" in event.target
            for event in before
        )
        errors.append(last)
    assert 1 == len({(type(error), str(error)) for error in errors}), errors
    return errors[0]


def request(data: bytes, limits: Limits | None = None) -> Request:
    """
    The one request that bytes hold, however they are cut.
    """
    first, second = (read(pieces, limits) for pieces in ways(data))
    assert first == second
    assert isinstance(first[0], Request), first
    return first[0]
