"""
A PUT that goes on where its connection broke (draft-ietf-httpbis-resumable-upload-11).

The upload begins without a byte of the value, so the client knows its URL before
anything can break. That takes two requests more: the first asks whether the server
resumes uploads at all, since one that does not would store an empty value.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Set
from contextlib import suppress
from typing import Final, Protocol, runtime_checkable

from twisted.internet.defer import Deferred
from twisted.web.iweb import IResponse

from kvd.client.asking import field
from kvd.client.errors import BrokenOff, ClientError, Refused, Unreachable
from kvd.client.receiving import discard
from kvd.client.sources import ISource

LEAST_BYTES: Final = 16 * 1024 * 1024
"""
Smaller values are sent again from the beginning.
"""

PAUSES_SECONDS: Final = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
"""
Before each try to go on, as long as no byte gets further: long enough for a daemon to
be restarted.
"""

_PARTIAL_TYPE: Final = "application/partial-upload"
_QUERY: Final = re.compile(r"[^?#]*(\?upload=[0-9a-f]{1,64})")
_NUMBER: Final = re.compile(r"[0-9]{1,15}")
_CONFLICT: Final = 409
_NOT_HERE: Final = frozenset((404, 405, 501, 503))


@runtime_checkable
class ISeekableSource(ISource, Protocol):
    """
    A source that can begin anywhere.
    """

    def go_to(self, offset: int) -> None:
        """
        Give the bytes from an offset on.
        """


class Ask(Protocol):
    """
    Sends a request about one key.
    """

    def __call__(
        self,
        method: str,
        fields: Mapping[str, str],
        expected: Set[int],
        source: ISource | None = None,
        query: str = "",
    ) -> Awaitable[IResponse]:
        """
        Send a request; a reply with a status that is not expected is raised.
        """


class _Rest:
    """
    A source from an offset on.
    """

    def __init__(self, source: ISeekableSource, size: int, offset: int) -> None:
        self.length: int | None = size - offset
        self._source = source
        self._offset = offset
        source.go_to(offset)

    def rewind(self) -> bool:
        self._source.go_to(self._offset)
        return True

    def next_piece(self) -> bytes | Deferred[bytes]:
        return self._source.next_piece()


async def put_resumably(
    ask: Ask,
    source: ISeekableSource,
    fields: Mapping[str, str],
    pause: Callable[[float], Awaitable[object]],
) -> IResponse | None:
    """
    Store a value, whatever breaks meanwhile, as long as something gets through.

    Args:
        ask: Sends requests about the key.
        source: The bytes of the value; their number is known.
        fields: Of the first request: conditions, and what is kept with the value.
        pause: Waits for so many seconds.

    Returns:
        The reply to the last request; if that was lost, what HEAD says of the value.
        None: the server resumes no uploads, or not this one, and nothing was sent.

    Raises:
        ClientError: See `kvd.client.client.Client.put`.
    """
    size = source.length
    assert size is not None
    query = await _begin(ask, size, fields)
    if query is None:
        return None
    try:
        return await _send(ask, source, size, query, pause)
    except BrokenOff:
        raise
    except ClientError:
        # It would stay for a day.
        with suppress(ClientError):
            await ask("DELETE", {}, {204, 404}, query=query)
        raise


async def _begin(ask: Ask, size: int, fields: Mapping[str, str]) -> str | None:
    """
    Begin an upload; returns the query of its URL.
    """
    try:
        asked = await ask("OPTIONS", {}, {200, 204})
        discard(asked)
        if _PARTIAL_TYPE not in (field(asked, "Accept-Patch") or ""):
            return None
        about = {"Upload-Complete": "?0", "Upload-Length": str(size)}
        begun = await ask("PUT", {**fields, **about}, {201})
    except Refused as refused:
        if refused.status in _NOT_HERE:
            return None
        raise
    discard(begun)
    found = _QUERY.fullmatch(field(begun, "Location") or "")
    return None if found is None else found[1]


async def _send(
    ask: Ask,
    source: ISeekableSource,
    size: int,
    query: str,
    pause: Callable[[float], Awaitable[object]],
) -> IResponse:
    offset, best, tries = 0, 0, 0
    while True:
        try:
            return await ask(
                "PATCH",
                {
                    "Content-Type": _PARTIAL_TYPE,
                    "Upload-Offset": str(offset),
                    "Upload-Complete": "?1",
                },
                {201, 204},
                _Rest(source, size, offset),
                query,
            )
        except (BrokenOff, Unreachable) as error:
            broken: ClientError = error
        except Refused as refused:
            if refused.status not in (_CONFLICT, 503):
                raise
            broken = refused
        while True:
            if tries == len(PAUSES_SECONDS):
                raise broken
            await pause(PAUSES_SECONDS[tries])
            tries += 1
            with suppress(BrokenOff, Unreachable):
                state = await ask("HEAD", {}, {200, 204}, query=query)
                break
        if field(state, "Upload-Complete") == "?1":
            return await ask("HEAD", {}, {200})
        said = field(state, "Upload-Offset") or ""
        if not _NUMBER.fullmatch(said) or int(said) > size:
            raise broken
        offset = int(said)
        if offset > best:
            best, tries = offset, 0
