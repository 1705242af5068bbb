"""
Bytes to events.

==========  ==================================  ============================
state       event                               next state
==========  ==================================  ============================
HEAD        Request, after its blank line       LENGTH, CHUNKED, or END
LENGTH      bytes, as they arrive               END at the last one
CHUNKED     bytes, of many chunks together      HEAD, with END_OF_REQUEST
END         END_OF_REQUEST                      HEAD
SKIP        none                                HEAD at the last byte of the body
BROKEN      raises the same error again         never left
==========  ==================================  ============================

A piece of a body of known length is passed on as the object that was fed, unless it
follows buffered bytes. So the reader does not copy large values.

A body need not be fed at all. Code that moves it to its file inside the kernel asks how
many bytes may be moved, and reports how many were (`RequestReader.movable`, `moved`).
The rest of a refused body is skipped if it is short (`RequestReader.skip`). The reader
never takes a part of a body for a request.

Of a client that sends no more, `RequestReader.lacks` says whether the request can still
become complete.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from kvd.errors import BadFraming, HeadTooLarge, PeerError, TargetTooLong
from kvd.http.wire.chunked import ChunkedBody
from kvd.http.wire.events import END_OF_REQUEST, NEED_DATA, Event
from kvd.http.wire.head import line_of, refuse_bare
from kvd.http.wire.heads import Heads
from kvd.model.requests import Request
from kvd.settings import Limits

SKIP_BYTES: Final = 256 * 1024
"""
The rest of a refused body is skipped if it is no longer than this. Beyond that, closing
is cheaper for both sides.
"""

# The type of a record, and the first byte of every version (RFC 8446 section 5.1).
_TLS_HANDSHAKE: Final = b"\x16\x03"

# What a request line has beside its target: a method, two blanks, a version.
_LINE_EXTRA_BYTES: Final = 64


class _State(Enum):
    HEAD = auto()
    LENGTH = auto()
    CHUNKED = auto()
    END = auto()
    SKIP = auto()
    BROKEN = auto()


# Used several times in each request; a member of an enumeration takes ten times as long
# as a global.
_HEAD: Final = _State.HEAD
_LENGTH: Final = _State.LENGTH
_CHUNKED: Final = _State.CHUNKED
_END: Final = _State.END
_SKIP: Final = _State.SKIP
_BROKEN: Final = _State.BROKEN


class RequestReader:
    """
    Reads the requests of one connection.
    """

    def __init__(self, limits: Limits, heads: Heads | None = None) -> None:
        """
        Args:
            limits: What the reader refuses.
            heads: Parses heads, and may be shared; None: the reader has its own.
        """
        self._limits = limits
        self._heads = heads or Heads(limits)
        self._state = _HEAD
        # The bytes from `_at` on were fed and not consumed.
        self._data = b""
        self._at = 0
        # How many of them were searched for the end of a head, in vain.
        self._searched = 0
        self._left = 0
        self._chunks: ChunkedBody | None = None
        self._error: PeerError | None = None

    @property
    def buffered(self) -> int:
        """
        How many bytes were fed and not consumed.
        """
        return len(self._data) - self._at

    @property
    def in_request(self) -> bool:
        """
        Whether the next byte belongs to a request whose head was given as an event.
        Also true after a refusal, when nobody knows what the next byte belongs to.
        """
        return self._state is not _HEAD

    @property
    def movable(self) -> int:
        """
        How many bytes of the body may be moved from the socket instead of being fed.
        """
        return self._left if self._state is _LENGTH and not self.buffered else 0

    def moved(self, count: int) -> None:
        """
        Bytes of the body were moved from the socket.
        """
        assert 0 <= count <= self.movable
        self._left -= count
        if not self._left:
            self._state = _END

    def resume(self, request: Request, received: int) -> None:
        """
        Go on within a request of which others have read the head, and so much of its
        body, whose length is known.
        """
        assert not self.in_request
        assert not self.buffered
        self._begin_request(request)
        self.moved(received)

    def lacks(self, more: int) -> bool:
        """
        Whether the current request surely stays incomplete, as nothing comes any more.

        Args:
            more: How many bytes at most are still to be fed, or to be moved.
        """
        return self._state is _LENGTH and self._left > self.buffered + more

    @property
    def can_skip(self) -> bool:
        """
        Whether the rest of the request is short, and its length is known.
        """
        if self._state is _LENGTH:
            return self._left <= SKIP_BYTES
        return self._state is _END

    def skip(self) -> None:
        """
        Give no more events of the current request, and discard the rest of it.
        """
        assert self.can_skip
        self._state = _SKIP if self._state is _LENGTH else _HEAD

    def feed(self, data: bytes) -> None:
        """
        Take bytes. They become events when `next_event` is called.
        """
        rest = self._data[self._at :]
        self._data = rest + data if rest else data
        self._at = 0

    def next_event(self) -> Event:
        """
        The next event, or `NEED_DATA`.

        Raises:
            PeerError: The bytes are refused, now and in every later call.
        """
        state = self._state
        try:
            if state is _HEAD:
                return self._take_head()
            if state is _LENGTH:
                return self._take_length()
            if state is _CHUNKED:
                return self._take_chunked()
            if state is _SKIP:
                return self._take_past_body()
            if self._error is not None:
                raise self._error
        except PeerError as error:
            self._error = error
            self._state = _BROKEN
            raise
        self._state = _HEAD
        return END_OF_REQUEST

    # -- heads ----------------------------------------------------------------

    def _take_head(self) -> Event:
        data, begin = self._data, self._at
        if not data:
            return NEED_DATA
        if data.startswith(b"\r", begin):
            # One empty line before a request line is ignored (RFC 9112 section 2.2):
            # old clients send it after a body.
            if begin + 1 == len(data):
                return self._need_data()
            if data.startswith(b"\r\n", begin):
                begin += 2
        unsearched = self._at + self._searched - 3
        end = data.find(b"\r\n\r\n", max(begin, unsearched))
        try:
            if end < 0 or end + 4 - begin > self._limits.head_bytes:
                self._check_unfinished(data, begin, end)
                self._searched = len(data) - self._at
                return self._need_data()
            if end - begin > self._limits.target_bytes:
                self._check_line(data, begin, begin)
            head = data[begin : end + 4]
            self._use(end + 4)
            self._searched = 0
            return self._begin_request(self._heads.parse(head))
        except PeerError as error:
            error.line = line_of(data, begin, self._limits)
            raise

    def _check_unfinished(self, data: bytes, begin: int, end: int) -> None:
        """
        Refuse bytes that cannot become a head, without waiting for more.
        """
        limits = self._limits
        if data.startswith(_TLS_HANDSHAKE, begin):
            raise BadFraming(
                "This address speaks plain HTTP, and the client begins with TLS: use"
                " http:// in place of https://."
            )
        if data.startswith(b"\n", begin):
            # A CR before it is the last byte of a body.
            refuse_bare(b"\n", 0, 1)
        # The LF of a last CR may still arrive.
        stop = len(data) - (data[-1:] == b"\r") if end < 0 else end
        unsearched = max(begin, self._at + self._searched - 1)
        self._check_line(data, begin, unsearched)
        refuse_bare(data, unsearched, stop)
        if end >= 0 or len(data) - begin >= limits.head_bytes:
            raise HeadTooLarge(
                f"The head has more than {limits.head_bytes} bytes, which is the limit."
            )

    def _check_line(self, data: bytes, begin: int, unsearched: int) -> None:
        """
        Refuse a request line that is too long. What is wrong within the longest line
        comes first, however the bytes are cut.
        """
        limit = self._limits.target_bytes
        most = limit + _LINE_EXTRA_BYTES
        stop = min(len(data), begin + most + 1)
        # The LF of a last CR may still arrive, or be where nobody looks.
        refuse_bare(data, unsearched, stop - (data[stop - 1 : stop] == b"\r"))
        line_end = data.find(b"\r\n", begin)
        if line_end < 0:
            line_end = len(data) - (data[-1:] == b"\r")
        if line_end - begin > most:
            raise TargetTooLong(
                f"The request line has more than {limit} bytes of target."
            )

    def _begin_request(self, request: Request) -> Request:
        if request.chunked:
            self._chunks = ChunkedBody(self._limits)
            self._state = _CHUNKED
        elif request.length:
            self._left = request.length
            self._state = _LENGTH
        else:
            self._state = _END
        return request

    # -- bodies ---------------------------------------------------------------

    def _take_length(self) -> Event:
        # If this is everything, the slice is the object itself.
        data = self._data[self._at : self._at + self._left]
        if not data:
            return self._need_data()
        self._use(self._at + len(data))
        self._left -= len(data)
        if not self._left:
            self._state = _END
        return data

    def _take_past_body(self) -> Event:
        count = min(self._left, self.buffered)
        self._use(self._at + count)
        self._left -= count
        if self._left:
            return NEED_DATA
        self._state = _HEAD
        return self._take_head()

    def _take_chunked(self) -> Event:
        assert self._chunks is not None
        data, at = self._chunks.take(self._data, self._at)
        self._use(at)
        if data:
            return data
        if self._chunks.ended:
            self._chunks = None
            self._state = _HEAD
            return END_OF_REQUEST
        return self._need_data()

    def _use(self, at: int) -> None:
        """
        Consume everything before a position.
        """
        if at == len(self._data):
            self._data, self._at = b"", 0
        else:
            self._at = at

    def _need_data(self) -> Event:
        # Do not keep a large object for its last bytes.
        self._data, self._at = self._data[self._at :], 0
        return NEED_DATA
