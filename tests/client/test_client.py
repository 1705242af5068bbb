"""
Tests for `kvd.client`: through treq and real HTTP, over no socket, against
resources that answer as kvd does, or as somebody else.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
from treq.client import HTTPClient
from treq.testing import RequestTraversalAgent
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactor, MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http import Request
from twisted.web.iweb import IAgent, IResponse
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from kvd.client import (
    Absent,
    BrokenOff,
    BytesSource,
    Client,
    ClientError,
    ConditionFailed,
    CredentialsUnusable,
    Entry,
    FileSource,
    Login,
    NotKvd,
    Refused,
    SourceChanged,
    SourceUnreadable,
    Stored,
    StreamSource,
    Unreachable,
)
from kvd.client.asking import PAUSES_SECONDS, Asker, treq_of
from kvd.client.client import PAGE_KEYS, PAGE_TRIES, checked_url
from kvd.client.connecting import AsStored
from kvd.client.credentials import read_netrc, read_token_file
from kvd.client.facts import entry
from kvd.client.sources import PIECE_BYTES
from kvd.model.keys import escape

T = TypeVar("T")

Answer = Callable[[Request], bytes | int]

URL = "http://127.0.0.1:8080"


class CredentialsTests(SynchronousTestCase):
    """
    Files of credentials.
    """

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "credentials")

    def write(self, text: bytes, mode: int = 0o600) -> None:
        """
        What is in the file.
        """
        Path(self.path).write_bytes(text)
        Path(self.path).chmod(mode)

    def test_a_token_file_has_one_token(self) -> None:
        """
        Perhaps with a line end; it is not repeated in a sentence or by `repr`.
        """
        self.write(b"kvd_secret\r\n")
        token = read_token_file(self.path)

        assert "Bearer kvd_secret" == token.field()
        assert "secret" not in repr(token)
        for text in (b"", b"\n", b"kvd_secret kvd_secret", b"kvd_secr\xe9t", b"a\0b"):
            self.write(text)
            with pytest.raises(CredentialsUnusable) as caught:
                read_token_file(self.path)
            assert "secr" not in str(caught.value)

    def test_a_netrc_file_has_logins_by_host(self) -> None:
        """
        A host without one has the default, if there is one.
        """
        self.write(b"machine one login ci password secret\n")
        login = read_netrc(self.path, "one")

        assert login is not None
        assert "Basic Y2k6c2VjcmV0" == login.field()
        assert "secret" not in repr(login)
        assert read_netrc(self.path, "two") is None
        self.write(b"default login any password secret\n")
        assert Login("any", "secret") == read_netrc(self.path, "two")

    def test_what_is_no_netrc_file_is_not_repeated(self) -> None:
        """
        Its words may be passwords.
        """
        for text in (b"machine one\nsecret x", b"secret", b"machine one login \xff"):
            self.write(text)
            with pytest.raises(CredentialsUnusable) as caught:
                read_netrc(self.path, "one")
            assert self.path in str(caught.value)
            assert "secret" not in str(caught.value)

    def test_files_that_others_may_read_are_refused(self) -> None:
        """
        And those that are missing.
        """
        self.write(b"machine one login ci password secret\n", 0o644)
        for read in (read_token_file, lambda path: read_netrc(path, "one")):
            with pytest.raises(CredentialsUnusable, match=f"chmod 600 {self.path}"):
                read(self.path)
            with pytest.raises(CredentialsUnusable, match="No such file"):
                read(self.path + "x")


class Answering(Resource):
    """
    Answers every request with what comes next, and remembers them.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[Answer] = []
        self.asked: list[tuple[str, str]] = []
        self.fields: list[dict[str, str]] = []
        self.bodies: list[bytes] = []

    def render(self, request: Request) -> bytes | int:
        self.asked.append((request.method.decode(), request.uri.decode()))
        self.fields.append(
            {
                name.decode().lower(): values[-1].decode()
                for name, values in request.requestHeaders.getAllRawHeaders()
            }
        )
        assert request.content is not None
        self.bodies.append(request.content.read())
        return self.answers.pop(0)(request)


def answer(status: int, body: bytes = b"", **fields: str | bytes) -> Answer:
    """
    A reply; the names of fields with underscores.
    """

    def render(request: Request) -> bytes:
        request.setResponseCode(status)
        for name, value in fields.items():
            request.setHeader(name.replace("_", "-"), value)
        return body

    return render


def problem(status: int, sentence: str, **fields: str) -> Answer:
    """
    A refusal as kvd writes it.
    """
    body = json.dumps({"status": status, "detail": sentence}).encode()
    return answer(status, body, Content_Type="application/problem+json", **fields)


def hang_up(request: Request) -> bytes | int:
    """
    No reply, or no more of it.
    """
    assert request.transport is not None
    request.transport.loseConnection()
    return NOT_DONE_YET


@implementer(IAgent)
class Network:
    """
    Leads to the server while it is up.
    """

    def __init__(self, agent: RequestTraversalAgent) -> None:
        self._agent = agent
        self.up: int | None = None
        """How many requests it still takes; None: all."""

    def request(self, *arguments: Any) -> Deferred[IResponse]:
        if self.up == 0:
            return fail(ConnectionRefusedError())
        if self.up is not None:
            self.up -= 1
        asked: Deferred[IResponse] = self._agent.request(*arguments)
        return asked

    def flush(self) -> None:
        """
        Let pass what is on the way.
        """
        self._agent.flush()


class ClientCase(SynchronousTestCase):
    """
    A client and what answers it.
    """

    def setUp(self) -> None:
        self.server = Answering()
        self.agent = Network(RequestTraversalAgent(self.server))
        self.clock = Clock()
        asker = Asker(URL, HTTPClient(AsStored(self.agent)), self.clock)
        self.client = Client(URL, asker)

    def started(self, work: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        """
        Begin, and let pass what passes.
        """
        working = Deferred.fromCoroutine(work)
        for _ in range(5):
            self.agent.flush()
        return working

    def pause(self, seconds: float) -> None:
        """
        Let time pass, and what passes then.
        """
        self.clock.advance(seconds)
        for _ in range(5):
            self.agent.flush()

    def result(self, work: Coroutine[Deferred[Any], Any, T]) -> T:
        """
        What comes of it.
        """
        return self.successResultOf(self.started(work))

    def error(self, work: Coroutine[Deferred[Any], Any, object]) -> ClientError:
        """
        What it fails with.
        """
        error = self.failureResultOf(self.started(work)).value
        assert isinstance(error, ClientError)
        return error


@pytest.mark.parametrize(
    "url",
    [
        *["http://localhost", "HTTPS://kvd.example.org.:1", "http://127.0.0.1:65535"],
        *["http://[::1]:8080", "http://[::ffff:127.0.0.1]", "http://h/a/%41~b"],
    ],
)
def test_urls_are_taken(url: str) -> None:
    """
    With or without a slash at the end.
    """
    assert url == checked_url(url) == checked_url(url + "/")


@pytest.mark.parametrize(
    "url",
    [
        *["", "localhost:8080", "//localhost", "ftp://localhost", "http:///x"],
        *["http://a b:80", "http://a..b:80", f"http://{'a' * 64}:80", "http://-a"],
        *[f"http://{'a.' * 130}a", "http://u:p@host", "http://u@127.0.0.1"],
        *["http://[::1%lo]:80", "http://[1:2]", "http://::1:80", "http://[v1.a]"],
        *[
            "http://h:",
            "http://h:0",
            "http://h:65536",
            "http://h:+1",
            "http://h:\u0669",
        ],
        *["http://h/a b", "http://h/\u00fc", "http://h/%4", "http://h/?", "http://h#"],
        *[" http://h", "http://h\n", "http://a\tb", "http://a%41", "http://a\\b"],
    ],
)
def test_what_is_no_url_of_a_kvd_is_refused(url: str) -> None:
    """
    With what would be one.
    """
    with pytest.raises(
        ValueError, match=r"give one such as http://127\.0\.0\.1:8080"
    ) as caught:
        Client(url)
    assert "u:p" not in str(caught.value)


class RequestTests(ClientCase):
    """
    Each request says what was asked, and understands the reply.
    """

    def test_put_returns_what_was_promised(self) -> None:
        """
        Whether there was a value before, and what a crash would leave.
        """
        self.server.answers = [
            answer(201, ETag='"e"', Kvd_Durability="disk"),
            answer(204, ETag='"f"', Kvd_Durability="process"),
        ]

        assert Stored("e", True, "disk") == self.result(
            self.client.put("a b/%/ü", b"one", content_type="text/plain")
        )
        assert Stored("f", False, "process") == self.result(
            self.client.put(b"\xff", b"", create=True, sha256=bytes(32))
        )
        assert [("PUT", "/a%20b/%25/%C3%BC"), ("PUT", "/%FF")] == self.server.asked
        assert [b"one", b""] == self.server.bodies
        assert "text/plain" == self.server.fields[0]["content-type"]
        assert "*" == self.server.fields[1]["if-none-match"]
        digest = f"sha-256=:{'A' * 43}=:"
        assert digest == self.server.fields[1]["repr-digest"]

    def test_get_fills_a_sink(self) -> None:
        """
        Only if all of it came.
        """
        self.server.answers = [
            answer(200, b"x" * 100_000, ETag='"e"', Last_Modified="then")
        ]
        sink = io.BytesIO()
        value = self.result(self.client.get("k", sink))

        assert b"x" * 100_000 == sink.getvalue()
        assert (100_000, "e", "then") == (value.size, value.etag, value.changed)
        assert value.content_encoding is None

    def test_what_is_stored_encoded_comes_encoded(self) -> None:
        """
        treq would decode it.
        """
        self.server.answers = [
            answer(200, b"\x1f\x8bzip", ETag='"e"', Content_Encoding="gzip")
        ]
        sink = io.BytesIO()
        value = self.result(self.client.get("k", sink))

        assert b"\x1f\x8bzip" == sink.getvalue()
        assert "gzip" == value.content_encoding

    def test_get_goes_on_where_it_was_broken_off(self) -> None:
        """
        With the same value, or not at all.
        """
        self.server.answers = [answer(206, b"rest", ETag='"e"')]
        sink = io.BytesIO()
        value = self.result(self.client.get("k", sink, offset=6, if_match="e"))

        assert b"rest" == sink.getvalue()
        assert 10 == value.size
        assert "bytes=6-" == self.server.fields[0]["range"]
        assert '"e"' == self.server.fields[0]["if-match"]

    def test_list_gives_entries(self) -> None:
        """
        With keys as they were put.
        """
        line = '{"key": "a%20b/%FF", "size": 3, "etag": "\\"e\\"", "changed": "t"}\n'
        self.server.answers = [
            answer(200, line.encode() * 2, Content_Type="application/x-ndjson")
        ]

        async def entries() -> list[Entry]:
            return [entry async for entry in self.client.list("a b/")]

        assert [Entry(b"a b/\xff", 3, "e", "t")] * 2 == self.result(entries())
        assert [("GET", "/a%20b/")] == self.server.asked

    def test_each_refusal_has_its_own_error(self) -> None:
        """
        With kvd's own sentence.
        """
        self.server.answers = [
            problem(404, "nothing"),
            problem(412, "another"),
            problem(413, "too long"),
        ]
        for kind in (Absent, ConditionFailed, Refused):
            error = self.error(self.client.remove("k", if_match="x"))
            assert kind is type(error)
            assert error.sentence in {"nothing", "another", "too long"}
        assert '"x"' == self.server.fields[0]["if-match"]

    def test_refusals_without_words_have_a_sentence(self) -> None:
        """
        Whatever the status.
        """
        kind = "application/problem+json"
        for status, sentence in (
            (400, "kvd refuses the request: Bad Request (400)."),
            (599, "kvd refuses the request (599)."),
            (404, "There is no value."),
        ):
            self.server.answers = [
                answer(status, Content_Type=kind),
                problem(status, ""),
            ]
            assert sentence == self.error(self.client.stat("k")).sentence
            assert sentence == self.error(self.client.remove("k")).sentence


def listed(keys: Sequence[str]) -> bytes:
    """
    Lines of a listing.
    """
    return "".join(
        json.dumps({"key": key, "size": 1, "etag": '"e"', "changed": "t"}) + "\n"
        for key in keys
    ).encode()


class PageTests(ClientCase):
    """
    A listing that comes page by page.
    """

    keys = tuple(f"p/{number:04}%26" for number in range(PAGE_KEYS + 1))

    def list(self) -> Deferred[list[Entry]]:
        """
        Begin to list everything below ``p/``.
        """

        async def entries() -> list[Entry]:
            return [entry async for entry in self.client.list_in_order("p/")]

        return self.started(entries())

    def page(self, *keys: str) -> Answer:
        """
        What kvd answers.
        """
        return answer(200, listed(keys), Content_Type="application/x-ndjson")

    def test_each_goes_on_behind_the_last_key(self) -> None:
        """
        Until one comes short. What stands in a key does not change the question.
        """
        self.server.answers = [self.page(*self.keys[:-1]), self.page(self.keys[-1])]

        entries = self.successResultOf(self.list())
        assert list(self.keys) == [escape(entry.key) for entry in entries]
        assert [
            ("GET", f"/p/?limit={PAGE_KEYS}&after="),
            ("GET", f"/p/?limit={PAGE_KEYS}&after={self.keys[-2]}"),
        ] == self.server.asked

    def test_one_that_breaks_off_is_asked_for_again(self) -> None:
        """
        No key is missing, and none comes twice.
        """

        def half(request: Request) -> bytes | int:
            request.setHeader("Content-Type", "application/x-ndjson")
            request.setHeader("Content-Length", "10000")
            request.write(listed(self.keys[:3]))
            return hang_up(request)

        self.server.answers = [half, half, self.page(*self.keys[:5])]
        entries = self.successResultOf(self.list())

        assert list(self.keys[:5]) == [escape(entry.key) for entry in entries]

    def test_in_the_end_it_has_broken_off(self) -> None:
        """
        Nobody asks for ever.
        """

        def none(request: Request) -> bytes | int:
            request.setHeader("Content-Type", "application/x-ndjson")
            request.setHeader("Content-Length", "10000")
            request.write(b"{")
            return hang_up(request)

        self.server.answers = [none] * (1 + PAGE_TRIES)
        self.failureResultOf(self.list(), BrokenOff)
        assert [] == self.server.answers

    def test_what_does_not_go_on_is_no_kvd(self) -> None:
        """
        A server that knows no pages would give the first for ever.
        """
        page = self.page(*self.keys[:-1])
        self.server.answers = [page, page]
        self.failureResultOf(self.list(), NotKvd)

        self.server.answers = [self.page("p/b", "p/a")]
        self.failureResultOf(self.list(), NotKvd)


class StrangerTests(ClientCase):
    """
    Another HTTP server answers.
    """

    def test_whatever_it_says_is_not_taken_for_a_value(self) -> None:
        """
        Nor for a refusal, a listing or a promise.
        """
        page = answer(200, b"<html>", Content_Type="text/html")
        missing = answer(404, b"<html>", Content_Type="text/html")

        async def keys() -> list[Entry]:
            return [entry async for entry in self.client.list()]

        sink = io.BytesIO()
        for answered, work in (
            (page, self.client.get("k", sink)),
            (page, self.client.put("k", b"v")),
            (page, keys()),
            (missing, self.client.remove("k")),
            (missing, self.client.get("k", sink)),
            (answer(200, b"{}\n", Content_Type="application/x-ndjson"), keys()),
        ):
            self.server.answers = [answered]
            error = self.error(work)
            assert isinstance(error, NotKvd)
            assert URL in error.sentence
        assert b"" == sink.getvalue()

    def test_nor_is_a_length_or_a_tag_that_is_none(self) -> None:
        """
        Bytes that are no text are no tag either.
        """
        for length in ("abc", "-1", "1_0", "9" * 5000):
            self.server.answers = [answer(200, ETag='"e"', Content_Length=length)]
            assert isinstance(self.error(self.client.stat("k")), NotKvd)
        for etag in (b'"\xff"', b'W/"e"', b"e"):
            self.server.answers = [answer(200, ETag=etag, Content_Length="1")]
            assert isinstance(self.error(self.client.stat("k")), NotKvd)

    def test_a_type_that_is_no_text_is_shown_as_far_as_it_is(self) -> None:
        """
        Somebody may have stored the value with it.
        """
        self.server.answers = [
            answer(200, ETag='"e"', Content_Length="1", Content_Type=b"text/\xff")
        ]
        assert "text/\ufffd" == self.result(self.client.stat("k")).content_type

    def test_nor_is_any_json_a_refusal(self) -> None:
        """
        However deep.
        """
        for body in (b"{", b"[]", b'{"detail"}', b"{}", b"[" * 60_000):
            refusal = answer(400, body, Content_Type="application/problem+json")
            self.server.answers = [refusal]
            assert isinstance(self.error(self.client.get("k", io.BytesIO())), NotKvd)


@pytest.mark.parametrize(
    "line",
    [
        *[b"", b"{", b"[]", b"\xff", b"[" * 60_000],
        *[b'{"key": "k", "size": 1, "etag": "e"}'],
        *[b'{"key": "k", "size": "1", "etag": "e", "changed": "t"}'],
        *[b'{"key": "k", "size": Infinity, "etag": "e", "changed": "t"}'],
        *[b'{"key": "k", "size": 1, "etag": "\\ud800", "changed": "t"}'],
        *[b'{"key": "k", "size": 1, "etag": "e", "changed": "\\u001b[2J"}'],
        *[b'{"key": "\\ud800", "size": 1, "etag": "e", "changed": "t"}'],
    ],
)
def test_not_every_line_is_one_of_a_listing(line: bytes) -> None:
    """
    One of kvd's can be printed.
    """
    with pytest.raises(ValueError):  # noqa: PT011
        entry(line)


class RetryTests(ClientCase):
    """
    What is safe is tried again.
    """

    def test_a_daemon_that_asks_for_time_gets_it(self) -> None:
        """
        With all of the body.
        """
        draining = problem(503, "ending", Retry_After="1")
        self.server.answers = [draining, answer(201, ETag='"e"')]
        putting = self.started(self.client.put("k", BytesSource(b"value")))
        self.assertNoResult(putting)
        self.pause(0.5)
        self.assertNoResult(putting)

        self.pause(0.5)
        assert "e" == self.successResultOf(putting).etag
        assert [b"value", b"value"] == self.server.bodies

    def test_in_the_end_it_is_refused(self) -> None:
        """
        The sentence is the daemon's.
        """
        draining = problem(503, "ending", Retry_After="0")
        self.server.answers = [draining] * (1 + len(PAUSES_SECONDS))
        removing = self.started(self.client.remove("k"))
        for pause in PAUSES_SECONDS:
            self.pause(pause)
        error = self.failureResultOf(removing).value

        assert "ending" == error.sentence
        assert [] == self.server.answers

    def test_what_can_be_repeated_is_after_a_broken_connection(self) -> None:
        """
        With all of the body.
        """
        self.server.answers = [
            hang_up,
            answer(201, ETag='"e"'),
            hang_up,
            answer(200, b"value", ETag='"e"'),
        ]
        putting = self.started(self.client.put("k", BytesSource(b"value")))
        self.pause(PAUSES_SECONDS[0])
        assert "e" == self.successResultOf(putting).etag
        assert [b"value", b"value"] == self.server.bodies

        sink = io.BytesIO()
        getting = self.started(self.client.get("k", sink))
        self.pause(PAUSES_SECONDS[0])
        self.successResultOf(getting)
        assert b"value" == sink.getvalue()

    def test_what_cannot_be_repeated_is_not(self) -> None:
        """
        Nobody knows what became of it, and that is said.
        """
        for work in (
            self.client.put("k", b"v", create=True),
            self.client.put("k", b"v", if_match="e"),
            self.client.remove("k"),
        ):
            self.server.answers = [hang_up]
            error = self.error(work)
            assert isinstance(error, BrokenOff)
            assert "unknown" in error.sentence

    def test_a_put_that_may_have_been_done_is_not_called_undone(self) -> None:
        """
        By whatever its repetition comes to.
        """
        cases: list[tuple[int | None, list[Answer]]] = [
            (1, [hang_up]),
            (None, [hang_up] * (1 + len(PAUSES_SECONDS))),
            (None, [hang_up, problem(507, "full")]),
        ]
        for up, answers in cases:
            self.agent.up = up
            self.server.answers = answers
            putting = self.started(self.client.put("k", b"v"))
            for pause in PAUSES_SECONDS:
                self.pause(pause)
            error = self.failureResultOf(putting).value
            assert isinstance(error, BrokenOff)
            assert "unknown" in error.sentence
            assert [] == self.server.answers

    def test_a_server_that_is_not_there_is_not_asked_again(self) -> None:
        """
        A kvd that lives refuses no connection.
        """
        self.agent.up = 0
        for work in (self.client.put("k", b"v"), self.client.stat("k")):
            error = self.error(work)
            assert isinstance(error, Unreachable)
            assert f"{URL} cannot be reached" in error.sentence
        assert [] == self.clock.getDelayedCalls()

    def test_what_is_no_name_of_a_host_cannot_be_reached(self) -> None:
        """
        Some of them are noticed by Twisted only.
        """
        clock: Any = MemoryReactorClock()
        url = "http://xn--a:9"
        client = Client(url, Asker(url, treq_of(clock), clock))
        error = self.failureResultOf(Deferred.fromCoroutine(client.stat("k"))).value

        assert isinstance(error, Unreachable)
        assert "xn--a" in error.sentence

    def test_a_value_that_breaks_off_is_not_taken_for_a_whole_one(self) -> None:
        """
        It is not asked for again: the sink has its beginning.
        """

        def half(request: Request) -> bytes | int:
            request.setHeader("Content-Length", "10")
            request.setHeader("ETag", '"e"')
            request.write(b"value")
            return hang_up(request)

        self.server.answers = [half]
        sink = io.BytesIO()
        error = self.error(self.client.get("k", sink))

        assert isinstance(error, BrokenOff)
        assert b"value" == sink.getvalue()

    def test_nothing_else_is_asked_twice(self) -> None:
        """
        A refusal without a time to wait is the answer.
        """
        self.server.answers = [problem(507, "full")]
        error = self.error(self.client.put("k", b"v"))

        assert isinstance(error, Refused)
        assert 507 == error.status


class SourceTests(SynchronousTestCase):
    """
    Files that are put.
    """

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "file"
        self.path.write_bytes(b"x" * (PIECE_BYTES + 10))
        self.file = io.FileIO(str(self.path))
        self.addCleanup(self.file.close)
        self.source = FileSource(self.file)

    def test_a_file_comes_in_pieces_and_again(self) -> None:
        """
        After a rewind.
        """
        for _ in range(2):
            pieces = [self.source.next_piece() for _ in range(3)]
            assert [PIECE_BYTES, 10, 0] == [len(piece) for piece in pieces]
            assert self.source.rewind()

    def test_one_that_shrinks_or_grows_is_noticed_before_its_end_is_given(
        self,
    ) -> None:
        """
        So the daemon never gets all that was announced.
        """
        for length in (PIECE_BYTES - 1, PIECE_BYTES + 11):
            self.source.rewind()
            self.source.next_piece()
            with open(self.path, "r+b") as file:
                file.truncate(length)
            with pytest.raises(SourceChanged):
                self.source.next_piece()

    def test_one_that_is_not_as_large_as_it_seems_is_not_put(self) -> None:
        """
        Below ``/proc`` a size says nothing.
        """
        with io.FileIO("/proc/version") as file:
            source = FileSource(file)
            with pytest.raises(SourceUnreadable, match=r"the 0 bytes that it seems"):
                source.next_piece()

    def test_one_that_cannot_be_read_is_reported(self) -> None:
        """
        As a failure of the client, not of Python.
        """
        for path in ("/", "/proc/self/mem"):
            descriptor = os.open(path, os.O_RDONLY)
            self.addCleanup(os.close, descriptor)
            # Twisted's epoll takes no regular file either.
            source = StreamSource(descriptor, NoWaiting())
            with pytest.raises(SourceUnreadable, match=r"cannot be read: I"):
                source.next_piece()

        with open(self.path, "ab") as writing:
            os.dup2(writing.fileno(), self.file.fileno())
        with pytest.raises(SourceUnreadable, match=r"Bad file descriptor"):
            self.source.next_piece()


class NoWaiting(MemoryReactor):
    """
    Refuses to wait for a file, as epoll_ctl(2) does.
    """

    def addReader(self, reader: object) -> None:
        raise PermissionError


class PipeTests(SynchronousTestCase):
    """
    Pipes that are put.
    """

    def setUp(self) -> None:
        self.reading, self.writing = os.pipe()
        self.addCleanup(os.close, self.reading)
        self.reactor = MemoryReactor()
        self.source = StreamSource(self.reading, self.reactor)

    def write(self, data: bytes) -> None:
        """
        Let the reactor see that something can be read.
        """
        os.write(self.writing, data)
        for reader in self.reactor.getReaders():
            reader.doRead()

    def next(self) -> Deferred[bytes]:
        """
        Ask for a piece.
        """
        piece = self.source.next_piece()
        assert isinstance(piece, Deferred)
        return piece

    def test_pieces_come_as_they_are_written(self) -> None:
        """
        Until the other end is closed. Nobody reads what was not asked for.
        """
        assert self.source.rewind()
        for data in (b"one", b"two"):
            piece = self.next()
            self.assertNoResult(piece)
            self.write(data)
            assert data == self.successResultOf(piece)
            assert [] == self.reactor.getReaders()
        assert not self.source.rewind()

        last = self.next()
        os.close(self.writing)
        self.source.connectionLost(Failure(ConnectionDone()))
        assert b"" == self.successResultOf(last)

    def test_one_that_cannot_be_read_is_reported(self) -> None:
        """
        Such as the other end.
        """
        self.addCleanup(os.close, self.writing)
        self.source = StreamSource(self.writing, self.reactor)
        piece = self.next()
        self.write(b"x")
        error = self.failureResultOf(piece, SourceUnreadable).value

        assert "The source cannot be read: Bad file descriptor." == error.sentence

    def test_a_reader_that_has_stopped_learns_of_no_end(self) -> None:
        """
        The reactor may have begun to report it.
        """
        self.addCleanup(os.close, self.writing)
        piece = self.next()
        piece.cancel()
        assert [] == self.reactor.getReaders()

        self.source.connectionLost(Failure(ConnectionDone()))
        self.failureResultOf(piece, CancelledError)
