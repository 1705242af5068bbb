"""
One request and its reply: what is asked of the store, and what is said of it.

`begin` is called when the head is understood, `chunk` for each piece of the
body, `end` after the last one, and `abandon` if there will be no end. Every
refusal that can be known is raised in `begin`, before a body is asked for or
taken. Whatever raises leaves the reply to the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from kvd.interfaces import Answer
from kvd.model.requests import Request

T = TypeVar("T")
Fields = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class FilePart:
    """
    Bytes of an open file.
    """

    descriptor: int
    offset: int
    count: int


class Source:
    """
    The body of a reply, piece by piece.
    """

    def next_chunk(self) -> Answer[bytes]:
        """
        The next piece; empty at the end.
        """
        raise NotImplementedError

    def file(self) -> FilePart | None:
        """
        The rest as a part of a file, which the kernel can send; None if it has
        to be asked for in pieces. May change with every piece.
        """
        return None

    def sent(self, count: int) -> None:
        """
        So many bytes of the file have been sent.
        """

    def close(self) -> None:
        """
        No more is wanted.
        """


class Replier(Protocol):
    """
    What an exchange needs of its connection.
    """

    @property
    def request(self) -> Request:
        """
        What is answered.
        """

    def when(
        self,
        answer: Answer[T],
        then: Callable[[T], None],
        undo: Callable[[T], object] | None = None,
    ) -> None:
        """
        Go on with an answer, at once or when it comes. `undo` takes it
        instead if the connection is lost meanwhile.
        """

    def proceed(self) -> None:
        """
        Nothing forbids the body: ask for it if the client waits to be asked.
        """

    def reply(self, status: int, fields: Fields, body: bytes = b"") -> None:
        """
        Send a whole reply.
        """

    def stream(
        self, status: int, fields: Fields, length: int | None, source: Source
    ) -> None:
        """
        Send a reply whose body comes from a source. Without a length, the
        body ends as the client's version of HTTP allows.
        """


class Exchange:
    """
    One request and its reply. As it stands: a body is read past, and nothing
    is said.
    """

    def begin(self) -> None:
        """
        The head is understood.
        """

    def chunk(self, data: bytes) -> None:
        """
        A piece of the body.
        """

    def descriptor(self) -> int | None:
        """
        Where the body may be moved to instead, by others than `chunk`; None if
        it has to come this way. May change with every chunk.
        """
        return None

    def end(self) -> None:
        """
        The body is complete.
        """

    def abandon(self) -> None:
        """
        There will be no end: the client broke off, or was refused.
        """


class Rest(Source):
    """
    A source of which the first piece was taken already.
    """

    def __init__(self, first: bytes, source: Source) -> None:
        self._first = first
        self._source = source

    def next_chunk(self) -> Answer[bytes]:
        """
        See `Source`.
        """
        if self._first:
            first, self._first = self._first, b""
            return first
        return self._source.next_chunk()

    def file(self) -> FilePart | None:
        """
        See `Source`.
        """
        return None if self._first else self._source.file()

    def sent(self, count: int) -> None:
        """
        See `Source`.
        """
        self._source.sent(count)

    def close(self) -> None:
        """
        See `Source`.
        """
        self._source.close()
