"""
The requests.
"""

from __future__ import annotations

import json
import os
import re
from base64 import b64encode
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
    Sequence,
    Set,
)
from http import HTTPStatus
from itertools import pairwise
from typing import Any, Final, Protocol

from twisted.internet.abstract import isIPv6Address
from twisted.internet.defer import Deferred
from twisted.web.iweb import UNKNOWN_LENGTH, IResponse

from kvd.client.asking import Asker, Request, field, treq_of
from kvd.client.clock import monotonic_clock
from kvd.client.connecting import CONNECT_SECONDS, STORED_ENCODING, ClientTLS
from kvd.client.credentials import Credentials
from kvd.client.errors import BrokenOff, NotKvd, TimedOut, refusal
from kvd.client.facts import Entry, Stored, Value, entry
from kvd.client.receiving import discard, lines
from kvd.client.resuming import LEAST_BYTES, ISeekableSource, put_resumably
from kvd.client.sources import BytesSource, ISource
from kvd.client.timeouts import TIMEOUT_SECONDS
from kvd.model.keys import escape

PAGE_KEYS: Final = 1000
"""
The most that kvd lists in a page.
"""

PAGE_TRIES: Final = 3
"""
How often a page is retried after its connection was lost.
"""

_PROBLEM_BYTES: Final = 64 * 1024
_LENGTH: Final = re.compile(r"[0-9]{1,18}")
_ETAG: Final = re.compile(r'"[!#-~]*"')


class ISink(Protocol):
    """
    Takes the bytes of a value; a binary file is one.
    """

    def write(self, data: bytes, /) -> object:
        """
        Take a piece. The next one comes at once, or, if a Deferred is returned, when
        that has fired.
        """


class Client:
    """
    Keeps, fetches and removes values.

    A key is bytes, or text as the file system has it (UTF-8 with surrogateescape), not
    percent-encoded. Failed requests are retried only where that is safe
    (`kvd.client.asking`). They raise `kvd.client.errors.ClientError`, and
    `CancelledError` if they are cancelled.
    """

    def __init__(
        self,
        base_url: str,
        asker: Asker | None = None,
        *,
        credentials: Credentials | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        tls: ClientTLS | None = None,
    ) -> None:
        """
        Args:
            base_url: Such as ``http://127.0.0.1:8080``; keys are put behind it.
            asker: Sends the requests, for instance through a treq of your own; by
                default over connections of this process's reactor.
            credentials: Sent with each request, to this URL only: redirects are not
                followed.
            timeout_seconds: How long the client waits while no byte moves; an asker of
                your own has its own.
            tls: Which certificates to trust and to show where the URL begins with
                ``https``; None: the system's authorities, and none. An asker of your
                own has its own.

        Raises:
            ValueError: The URL or a certificate is not valid.
        """
        self._base_url = checked_url(base_url)
        self._credentials = credentials
        self._asker = asker or _default_asker(self._base_url, timeout_seconds, tls)

    async def put(
        self,
        key: bytes | str,
        source: ISource | bytes,
        *,
        create: bool = False,
        if_match: str | None = None,
        content_type: str | None = None,
        sha256: bytes | None = None,
    ) -> Stored:
        """
        Store a value. A large one goes on where its connection broke, if its source can
        begin anywhere and the daemon resumes uploads (`kvd.client.resuming`).

        Args:
            key: Its name.
            source: Its bytes.
            create: Only if the key has no value yet.
            if_match: Only if the key has the value of this entity tag.
            content_type: Kept with the value.
            sha256: The digest of its bytes, which the daemon compares with that of
                what it got (RFC 9530); None: it compares nothing. An upload with a
                digest is not resumed.

        Raises:
            ConditionFailed: The key has a value, or another one.
            BrokenOff: Whether the value was stored is unknown.
            SourceChanged: The source changed meanwhile; the value was not stored.
            SourceUnreadable: The value was not stored.
        """
        if isinstance(source, bytes):
            source = BytesSource(source)
        fields = {}
        if create:
            fields["If-None-Match"] = "*"
        if if_match is not None:
            fields["If-Match"] = _quoted(if_match)
        if content_type is not None:
            fields["Content-Type"] = content_type
        if sha256 is not None:
            fields["Repr-Digest"] = f"sha-256=:{b64encode(sha256).decode('ascii')}:"
        response = await self._put(key, source, fields)
        etag = self._etag(response)
        return Stored(
            etag, 201 == response.code, field(response, "Kvd-Durability") or ""
        )

    async def _put(
        self, key: bytes | str, source: ISource, fields: dict[str, str]
    ) -> IResponse:
        size = source.length
        is_large = size is not None and size >= LEAST_BYTES
        is_resumed = is_large and "Repr-Digest" not in fields
        if is_resumed and isinstance(source, ISeekableSource):

            def ask(
                method: str,
                fields: Mapping[str, str],
                expected: Set[int],
                source: ISource | None = None,
                query: str = "",
            ) -> Awaitable[IResponse]:
                return self._ask(method, key, fields, source, query, expected)

            response = await put_resumably(ask, source, fields, self._asker.pause)
            if response is not None:
                return response
        return await self._ask("PUT", key, fields, source)

    async def get(
        self,
        key: bytes | str,
        sink: ISink,
        *,
        offset: int = 0,
        if_match: str | None = None,
        begun: Callable[[Value], object] | None = None,
    ) -> Value:
        """
        Fetch a value, or its end.

        Args:
            key: Its name.
            sink: Gets its bytes.
            offset: How many bytes to leave out.
            if_match: Only if the key has the value of this entity tag.
            begun: Gets what is known of the value before its first byte.

        Raises:
            BrokenOff: The sink got only the beginning of the value.
        """
        fields = {}
        if offset:
            fields["Range"] = f"bytes={offset}-"
        if if_match is not None:
            fields["If-Match"] = _quoted(if_match)
        response = await self._ask("GET", key, fields)
        if response.length is UNKNOWN_LENGTH or (offset and response.code != 206):
            discard(response)
            raise self._not_kvd()
        value = self._value(response, offset + response.length)
        if begun is not None:
            begun(value)
        receiver = self._asker.receive(response)
        missing = response.length
        try:
            while piece := await receiver.take():
                missing -= len(piece)
                taken = sink.write(piece)
                if isinstance(taken, Deferred):
                    await taken
        finally:
            receiver.stop()
        if missing:
            raise BrokenOff(f"The value ended {missing} bytes too early.")
        return value

    async def stat(self, key: bytes | str) -> Value:
        """
        What is known of a value, without its bytes.
        """
        response = await self._ask("HEAD", key, {})
        length = field(response, "Content-Length")
        if length is None or not _LENGTH.fullmatch(length):
            raise self._not_kvd()
        return self._value(response, int(length))

    async def remove(self, key: bytes | str, *, if_match: str | None = None) -> None:
        """
        Remove a value.

        Args:
            key: Its name.
            if_match: Only if the key has the value of this entity tag.

        Raises:
            Absent: There is none.
            BrokenOff: Whether the value was removed is unknown.
        """
        fields = {} if if_match is None else {"If-Match": _quoted(if_match)}
        await self._ask("DELETE", key, fields)

    async def list_in_order(
        self, prefix: bytes | str = b"", *, after: bytes = b""
    ) -> AsyncIterator[Entry]:
        """
        All keys below a prefix in the order of their bytes, page by page.

        Take as long as you like for each key: no reply is held open meanwhile. A page
        whose connection is lost is retried. For each page the daemon reads the whole
        folder that the keys are in, so `list` is faster where a folder has tens of
        thousands.

        Args:
            prefix: Whole segments; a slash at the end makes no difference.
            after: Only keys behind this one.
        """
        breaks = 0
        while True:
            try:
                page = await self._page(prefix, after)
            except TimedOut:
                raise
            except BrokenOff:
                breaks += 1
                if breaks > PAGE_TRIES:
                    raise
                continue
            breaks = 0
            for found in page:
                yield found
            if len(page) < PAGE_KEYS:
                return
            after = page[-1].key

    async def _page(self, prefix: bytes | str, after: bytes) -> Sequence[Entry]:
        query = f"?limit={PAGE_KEYS}&after={escape(after)}"
        page = [entry async for entry in self._entries(prefix, query)]
        keys = [after, *(entry.key for entry in page)]
        # Pages in another order might have no end.
        if any(key <= before for before, key in pairwise(keys)):
            raise self._not_kvd()
        return page

    async def list(self, prefix: bytes | str = b"") -> AsyncIterator[Entry]:
        """
        All keys below a prefix, in no particular order, in one reply.

        The daemon ends a reply that is not read for some time (``--reader-timeout``):
        take each key without delay, or use `list_in_order`.

        Args:
            prefix: Whole segments; a slash at the end makes no difference.
        """
        async for found in self._entries(prefix, ""):
            yield found

    async def _entries(self, prefix: bytes | str, query: str) -> AsyncIterator[Entry]:
        path = os.fsencode(prefix).rstrip(b"/")
        key = path + b"/" if path else b""
        response = await self._ask("GET", key, {}, query=query)
        if field(response, "Content-Type") != "application/x-ndjson":
            discard(response)
            raise self._not_kvd()
        receiver = self._asker.receive(response)
        try:
            async for line in lines(receiver):
                try:
                    found = entry(line)
                except ValueError as error:
                    raise self._not_kvd() from error
                yield found
        finally:
            receiver.stop()

    async def _ask(
        self,
        method: str,
        key: bytes | str,
        fields: Mapping[str, str],
        source: ISource | None = None,
        query: str = "",
        expected: Set[int] | None = None,
    ) -> IResponse:
        """
        Send a request; whatever is not a success is raised.
        """
        url = f"{self._base_url}/{escape(os.fsencode(key))}{query}"
        if self._credentials is not None:
            fields = {**fields, "Authorization": self._credentials.field()}
        response = await self._asker.ask(Request(method, url, fields, source))
        if expected is None:
            expected = {"GET": {200, 206}, "HEAD": {200}}.get(method, {201, 204})
        if response.code in expected:
            return response
        raise await self._refusal(method, response)

    async def _refusal(self, method: str, response: IResponse) -> Exception:
        if field(response, "Content-Type") != "application/problem+json":
            discard(response)
            return self._not_kvd(response.code)
        if method == "HEAD":
            # A reply to HEAD has no body, which would have the daemon's own sentence.
            return refusal(response.code, _sentence(response.code))
        receiver = self._asker.receive(response)
        body = b""
        try:
            while (piece := await receiver.take()) and len(body) < _PROBLEM_BYTES:
                body += piece
        finally:
            receiver.stop()
        try:
            sentence = str(json.loads(body)["detail"])
            return refusal(response.code, sentence or _sentence(response.code))
        except (ValueError, TypeError, LookupError, RecursionError):
            return self._not_kvd(response.code)

    def _value(self, response: IResponse, size: int) -> Value:
        return Value(
            size,
            self._etag(response),
            field(response, "Last-Modified") or "",
            field(response, "Content-Type") or "application/octet-stream",
            field(response, STORED_ENCODING),
        )

    def _etag(self, response: IResponse) -> str:
        etag = field(response, "ETag")
        if etag is None or not _ETAG.fullmatch(etag):
            discard(response)
            raise self._not_kvd()
        return etag.strip('"')

    def _not_kvd(self, status: int | None = None) -> NotKvd:
        answer = "" if status is None else f" (it answers {status})"
        return NotKvd(f"What answers at {self._base_url} is not kvd{answer}.")


_URL: Final = re.compile(
    r"https?://(?:\[(?P<number>[0-9a-f:.]+)\]|(?P<name>[a-z0-9.-]{1,253}))"
    r"(?::(?P<port>[0-9]{1,5}))?"
    # No query, no fragment, and nothing that needs to be escaped.
    r"(?:/(?:[a-z0-9._~!$&'()*+,;=:@/-]|%[0-9a-f]{2})*)?",
    re.IGNORECASE | re.ASCII,
)
_LABEL: Final = re.compile(r"(?!-)[^.]{1,63}(?<!-)")


def checked_url(text: str) -> str:
    """
    A daemon's URL without a slash at its end.

    Raises:
        ValueError: It is not one; the sentence gives an example.
    """
    url = _URL.fullmatch(text)
    if (
        url is None
        or not 0 < int(url["port"] or 80) < 1 << 16
        or not (_is_name(url["name"]) if url["name"] else isIPv6Address(url["number"]))
    ):
        example = "give one such as http://127.0.0.1:8080"
        if "@" in text:
            # Not repeated: it may have a password.
            raise ValueError(
                f"a URL with an @ is not that of a kvd: {example}, and put a name and a"
                " password into a netrc file"
            )
        raise ValueError(f"{text!r} is not the URL of a kvd: {example}")
    return text.rstrip("/")


def _is_name(host: str) -> bool:
    return all(map(_LABEL.fullmatch, host.removesuffix(".").split(".")))


def _sentence(status: int) -> str:
    if status == 404:
        return "There is no value."
    try:
        return f"kvd refuses the request: {HTTPStatus(status).phrase} ({status})."
    except ValueError:
        return f"kvd refuses the request ({status})."


def _default_asker(server: str, timeout_seconds: float, tls: ClientTLS | None) -> Asker:
    # Not at the top: importing the reactor installs one.
    from twisted.internet import reactor

    own: Any = reactor
    treq = treq_of(own, min(CONNECT_SECONDS, timeout_seconds), tls)
    clock = monotonic_clock(own)
    return Asker(server, treq, clock, timeout_seconds=timeout_seconds)


def _quoted(etag: str) -> str:
    return etag if etag.startswith('"') else f'"{etag}"'
