"""
Tests for `kvd.http.wire.head`, through the reader.
"""

import pytest

from kvd.errors import (
    BadFraming,
    ExpectationFailed,
    HeadTooLarge,
    PeerError,
    TargetTooLong,
    UnknownMethod,
    UnsupportedVersion,
    ValueTooLarge,
)
from kvd.settings import Limits
from tests.http.wire.feeding import refusal, request

HOST = b"Host: kvd\r\n"
GET = b"GET /k HTTP/1.1\r\n"

REFUSED: list[tuple[bytes, type[PeerError], str]] = [
    # Two ways to say where the body ends.
    (b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", BadFraming, "both"),
    (b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", BadFraming, "both"),
    (b"Content-Length: 3\r\nContent-Length: 3\r\n", BadFraming, "more than once"),
    (b"Content-Length: 3\r\nContent-Length: 4\r\n", BadFraming, "more than once"),
    (b"Content-Length: 3, 3\r\n", BadFraming, "one number"),
    (b"Content-Length: 3,4\r\n", BadFraming, "one number"),
    (b"Content-Length: +3\r\n", BadFraming, "one number"),
    (b"Content-Length: -3\r\n", BadFraming, "one number"),
    (b"Content-Length: 0x3\r\n", BadFraming, "one number"),
    (b"Content-Length: 3 3\r\n", BadFraming, "one number"),
    (b"Content-Length: 1_0\r\n", BadFraming, "one number"),
    (b"Content-Length: \xb2\r\n", BadFraming, "one number"),
    (b"Content-Length:\r\n", BadFraming, "one number"),
    (b"Content-Length: " + b"9" * 40 + b"\r\n", ValueTooLarge, "40 digits"),
    (b"Content-Length: " + b"9" * 5000 + b"\r\n", ValueTooLarge, "5000 digits"),
    # Codings.
    (b"Transfer-Encoding: gzip, chunked\r\n", BadFraming, "'chunked'"),
    (b"Transfer-Encoding: chunked, chunked\r\n", BadFraming, "'chunked'"),
    (b"Transfer-Encoding: identity\r\n", BadFraming, "'chunked'"),
    (b"Transfer-Encoding: xchunked\r\n", BadFraming, "'chunked'"),
    (b'Transfer-Encoding: "chunked"\r\n', BadFraming, "'chunked'"),
    (b"Transfer-Encoding: chunked;q=1\r\n", BadFraming, "'chunked'"),
    (b"Transfer-Encoding: chunked\r\n" * 2, BadFraming, "more than once"),
    (b"Transfer-Encoding:\r\n", BadFraming, "'chunked'"),
    # Lines.
    (b" folded: yes\r\n", BadFraming, "folded"),
    (b"A: b\r\n c\r\n", BadFraming, "folded"),
    (b"A: b\r\n\tc\r\n", BadFraming, "folded"),
    (b"Content-Length : 3\r\n", BadFraming, "before the colon"),
    (b"A\t: b\r\n", BadFraming, "before the colon"),
    (b"A b: c\r\n", BadFraming, "name"),
    (b": c\r\n", BadFraming, "name"),
    (b"\xffA: c\r\n", BadFraming, "name"),
    (b"no colon\r\n", BadFraming, "colon"),
    (b"A: b\0c\r\n", BadFraming, "control"),
    (b"A: b\x0bc\r\n", BadFraming, "control"),
    (b"A: b\x7f\r\n", BadFraming, "control"),
    (b"A: b\nContent-Length: 3\r\n", BadFraming, "bare LF"),
    (b"A: b\n\r\n", BadFraming, "bare LF"),
    (b"A: b\rC: d\r\n", BadFraming, "bare CR"),
    (b"A: b\r\r\n", BadFraming, "bare CR"),
    # Hosts.
    (HOST, BadFraming, "Host"),
    # Expectations.
    (b"Expect: the-unexpected\r\n", ExpectationFailed, "100-continue"),
]


@pytest.mark.parametrize(("line", "error", "word"), REFUSED)
def test_ambiguous_fields_are_refused(
    line: bytes, error: type[PeerError], word: str
) -> None:
    """
    Whatever could be read in two ways is read in none.
    """
    refused = refusal(GET + HOST + line + b"\r\n")

    assert error is type(refused)
    assert word in str(refused)


LINES: list[tuple[bytes, type[PeerError], str]] = [
    (b"GET /k\r\n", BadFraming, "method, a target"),
    (b"GET  /k HTTP/1.1\r\n", BadFraming, "single blanks"),
    (b"GET /k  HTTP/1.1\r\n", BadFraming, "single blanks"),
    (b"GET\t/k\tHTTP/1.1\r\n", BadFraming, "single blanks"),
    (b" GET /k HTTP/1.1\r\n", BadFraming, "single blanks"),
    (b"GET /k HTTP/1.1 \r\n", BadFraming, "single blanks"),
    (b"GET /a b HTTP/1.1\r\n", BadFraming, "single blanks"),
    (b"G(T /k HTTP/1.1\r\n", BadFraming, "method"),
    (b"GET /k#part HTTP/1.1\r\n", BadFraming, "fragment"),
    (b"GET /k\x01 HTTP/1.1\r\n", BadFraming, "percent-encoded"),
    (b"GET /k\x7f HTTP/1.1\r\n", BadFraming, "percent-encoded"),
    (b"GET /\xc3\xa9 HTTP/1.1\r\n", BadFraming, "percent-encoded"),
    (b"GET /k HTTP/1.10\r\n", BadFraming, "version"),
    (b"GET /k http/1.1\r\n", BadFraming, "version"),
    (b"GET /k HTTP/1,1\r\n", BadFraming, "version"),
    (b"GET /k HTTP/2.0\r\n", UnsupportedVersion, "HTTP/1.1"),
    (b"GET /k HTTP/3.1\r\n", UnsupportedVersion, "HTTP/1.1"),
    (b"GET /k HTTP/0.9\r\n", UnsupportedVersion, "HTTP/1.1"),
    (b"BREW /k HTTP/1.1\r\n", UnknownMethod, "BREW"),
    (b"get /k HTTP/1.1\r\n", UnknownMethod, "get"),
    (b"DESCRIBE /k HTTP/1.1\r\n", UnknownMethod, "DESCRIBE"),
    (b"PRI * HTTP/2.0\r\n", UnsupportedVersion, "HTTP/2.0"),
]


@pytest.mark.parametrize(("line", "error", "word"), LINES)
def test_malformed_request_lines_are_refused(
    line: bytes, error: type[PeerError], word: str
) -> None:
    """
    With what was sent, and what would be right.
    """
    refused = refusal(line + HOST + b"\r\n")

    assert error is type(refused)
    assert word in str(refused)


@pytest.mark.parametrize(
    "host",
    [
        *(b"a b", b"a/b", b"a,b:\x80", b"user@kvd", b"kvd?x", b"kvd#x", b"[::1"),
        *(b"a:b", b"a:b:c", b"a:80a", b"a:80:80", b"a:-1", b"a: 80", b"%zz", b"%"),
        *(b"[::1]x", b"x[::1]", b"[::1]:x", b"[1.2.3]", b"[]", b"[:]", b"[1:2]"),
        *(b"::1", b"a%4", b"[::g]"),
        *(b"[1:2:3:4:5:6:7:8:9]", b"[::1%25eth0]", b"[::1::]", b"[::1.2.3]", b"[v1]"),
        *(b"[v1.]", b"[vx.a]", b"a]", b"kvd, kvd:b", b"http://kvd"),
    ],
)
def test_what_is_no_host_is_refused(host: bytes) -> None:
    """
    So nobody in between can take it for another server's.
    """
    refused = refusal(GET + b"Host: " + host + b"\r\n\r\n")

    assert BadFraming is type(refused)


@pytest.mark.parametrize(
    "host",
    [
        *(b"kvd", b"kvd:8080", b"127.0.0.1:1", b"[::1]:8080", b"", b"a_b.example"),
        *(b"kvd:", b":80", b"kvd.", b"%c3%a9.example:1", b"a,b", b"999.1.1.1", b"[::]"),
        *(b"[2001:DB8::192.0.2.1]", b"[1:2:3:4:5:6:7::]", b"[v1F.a:b]:80", b"xn--9ca"),
    ],
)
def test_hosts_are_taken(host: bytes) -> None:
    """
    Names and addresses with or without ports; an empty one is allowed.
    """
    assert host == request(GET + b"Host: " + host + b"\r\n\r\n").fields[b"host"]


ABSOLUTE = [
    (b"http://h/k", b"h"),
    (b"HTTP://h:8080/k", b"h:8080"),
    (b"https://[::1]:/k?x", b"[::1]:"),
    (b"http://h", b"h"),
    (b"http://h?x", b"h"),
    (b"/http://h/k", b"kvd"),
    (b"/k?http://h/", b"kvd"),
]


@pytest.mark.parametrize(("target", "host"), ABSOLUTE)
def test_a_whole_url_says_which_host_is_meant(target: bytes, host: bytes) -> None:
    """
    Whatever the field says (RFC 9112 section 3.2.2).
    """
    assert host == request(b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n").host


@pytest.mark.parametrize(
    ("target", "word"),
    [
        *((b"http:///k", "host"), (b"http://", "host"), (b"http://?x", "host")),
        *((b"http://:80/k", "host"), (b"http://user@h/k", "user")),
        *((b"http://user:word@h/k", "user"), (b"http://h:x/k", "host")),
        *((b"http://a:b:c/k", "host"), (b"http://[::1/k", "host")),
        *((b"http://%zz/k", "host"), (b"http://h:80@evil/k", "user")),
        *((b"ftp://h/k", "http://"), (b"file:///k", "http://"), (b"x://h", "http://")),
        *((b"ws://h/k", "http://"), (b"httpx://h/k", "http://")),
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"OPTIONS", b"CONNECT", b"POST"])
def test_no_other_url_is_a_target(target: bytes, word: str, method: bytes) -> None:
    """
    RFC 9110 sections 4.2.1 and 4.2.4, whatever is asked of it.
    """
    refused = refusal(method + b" " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n")

    assert 400 == refused.status
    assert word in str(refused)


@pytest.mark.parametrize("minor", range(2, 10))
def test_later_versions_are_served_as_11(minor: int) -> None:
    """
    As the latest one that is known (RFC 9110 section 2.5), with all its rules.
    """
    line = b"GET /k HTTP/1.%d\r\n" % minor
    read = request(line + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")

    assert (1, True, True) == (read.minor, read.chunked, read.keep_alive)
    assert "Host" in str(refusal(line + b"\r\n"))
    assert request(line + HOST + b"Expect: 100-continue\r\n\r\n").expects_continue


@pytest.mark.parametrize("blanks", [b"  ", b"\t", b" \t", b"\t ", b" \t \t "])
def test_blanks_around_a_value_do_not_count(blanks: bytes) -> None:
    """
    Spaces and tabs (RFC 9112 section 5).
    """
    lines = [b"Transfer-Encoding:%bchunked%b", b"Connection:%bclose%b", b"A:%b%bb\tc%b"]
    fields = b"\r\n".join(
        line.replace(b"%b", blanks) for line in (b"Host:%bkvd%b", *lines)
    )
    read = request(GET + fields + b"\r\n\r\n0\r\n\r\n")

    assert (True, False) == (read.chunked, read.keep_alive)
    assert (b"kvd", b"b\tc") == (read.fields[b"host"], read.fields[b"a"])
    length = GET + HOST + b"Content-Length:%b3%b\r\n\r\nabc".replace(b"%b", blanks)
    assert 3 == request(length).length


def test_http_11_needs_a_host_and_10_does_not() -> None:
    """
    RFC 9112 section 3.2.
    """
    assert "Host" in str(refusal(GET + b"\r\n"))
    assert 0 == request(b"GET /k HTTP/1.0\r\n\r\n").minor
    assert "more than once" in str(refusal(b"GET /k HTTP/1.0\r\n" + HOST * 2 + b"\r\n"))


def test_transfer_encoding_in_10_is_refused() -> None:
    """
    Nobody in between would understand it.
    """
    refused = refusal(b"PUT /k HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n")

    assert "HTTP/1.0" in str(refused)


CONNECTIONS = [
    (1, b"", True),
    (1, b"Connection: close\r\n", False),
    (1, b"Connection: Close\r\n", False),
    (1, b"Connection: te, close\r\n", False),
    (1, b"Connection: te\r\nConnection: close\r\n", False),
    (1, b"Connection: keep-alive\r\n", True),
    (0, b"", False),
    (0, b"Connection: Keep-Alive\r\n", True),
    (0, b"Connection: keep-alive, close\r\n", False),
]


@pytest.mark.parametrize(("minor", "line", "keeps"), CONNECTIONS)
def test_a_head_may_ask_the_connection_to_stay(
    minor: int, line: bytes, keeps: bool
) -> None:
    """
    RFC 9112 section 9.3.
    """
    head = b"GET /k HTTP/1.%d\r\n" % minor + HOST + line + b"\r\n"

    assert keeps is request(head).keep_alive


def test_expectation_is_heard_in_11_alone() -> None:
    """
    RFC 9110 section 10.1.1.
    """
    line = b"Expect: 100-Continue\r\n"

    assert request(GET + HOST + line + b"\r\n").expects_continue
    assert not request(b"GET /k HTTP/1.0\r\n" + line + b"\r\n").expects_continue


def test_upgrade_is_passed_over() -> None:
    """
    The connection goes on as HTTP/1.1, whatever the parser thinks.
    """
    for line in (b"Upgrade: h2c\r\nConnection: Upgrade\r\n", b"Upgrade: websocket\r\n"):
        assert b"/k" == request(GET + HOST + line + b"\r\n").target


def test_connect_is_read_as_any_other_method() -> None:
    """
    What is not served is refused by the dialect, not by the wire.
    """
    assert "CONNECT" == request(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n").method


def test_values_lose_the_blanks_around_them() -> None:
    """
    And keep those within, and bytes beyond ASCII.
    """
    fields = request(GET + HOST + b"A: \t b c\xff \t\r\nB:\r\n\r\n").fields

    assert (b"b c\xff", b"") == (fields[b"a"], fields[b"b"])


def test_repeated_fields_are_joined() -> None:
    """
    RFC 9110 section 5.3.
    """
    head = GET + HOST + b'If-Match: "a"\r\nif-match: "b"\r\n\r\n'

    assert b'"a", "b"' == request(head).fields[b"if-match"]


def test_lengths_may_have_zeros_before_them() -> None:
    """
    They are digits like any others.
    """
    head = b"GET /k HTTP/1.1\r\n" + HOST + b"Content-Length: 000\r\n\r\n"

    assert 0 == request(head).length


def test_too_many_fields_are_refused() -> None:
    """
    At the limit they are taken.
    """
    limits = Limits(head_fields=3)
    two = b"A: b\r\nC: d\r\n"

    assert 3 == len(request(GET + HOST + two + b"\r\n", limits).fields)
    assert HeadTooLarge is type(refusal(GET + HOST + two + b"E: f\r\n\r\n", limits))


def test_a_long_head_is_refused_without_its_end() -> None:
    """
    At the limit it is taken.
    """
    limits = Limits(head_bytes=200, target_bytes=50)
    begin = GET + HOST + b"A: "
    fitting = begin + b"b" * (200 - len(begin) - 4) + b"\r\n\r\n"

    assert b"/k" == request(fitting, limits).target
    assert HeadTooLarge is type(refusal(begin + b"b" * 200, limits))
    assert HeadTooLarge is type(refusal(fitting[:-4] + b"b\r\n\r\n", limits))


def test_a_long_target_is_refused_without_its_end() -> None:
    """
    At the limit it is taken.
    """
    limits = Limits(target_bytes=50)
    fitting = b"GET /" + b"a" * 49 + b" HTTP/1.1\r\n" + HOST + b"\r\n"

    assert 50 == len(request(fitting, limits).target)
    assert TargetTooLong is type(refusal(fitting.replace(b"/a", b"/aa"), limits))
    assert TargetTooLong is type(refusal(b"GET /" + b"a" * 200, limits))
