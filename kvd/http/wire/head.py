"""
One head: from the request line to the blank line.

llhttp (through httptools) parses. It is fast, maintained, and laxer than kvd: it
accepts ``gzip, chunked``, transfer codings in HTTP/1.0, no ``Host`` or two, fragments,
``HTTP/2.0`` and methods of RTSP, and it stops at ``Upgrade``. So the bytes must first
match the whole grammar of RFC 9112, in one regular expression, and afterwards kvd
checks the values of the fields. Only a head that fails is examined again, for an error
message that says what is wrong.

Each head has a new parser, because a parser that has seen a ``Content-Length`` expects
the body.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NoReturn

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from kvd.errors import (
    BadFraming,
    ExpectationFailed,
    HeadTooLarge,
    TargetTooLong,
    UnknownMethod,
    UnsupportedVersion,
    ValueTooLarge,
)
from kvd.http.wire.hosts import is_host
from kvd.http.wire.targets import authority_of
from kvd.model.requests import Request
from kvd.settings import Limits

KNOWN_METHODS: Final = frozenset(
    # The HTTP method registry at IANA, as far as llhttp knows it.
    b"ACL BIND CHECKOUT CONNECT COPY DELETE GET HEAD LINK LOCK MERGE MKACTIVITY"
    b" MKCALENDAR MKCOL MOVE OPTIONS PATCH POST PROPFIND PROPPATCH PUT REBIND"
    b" REPORT SEARCH TRACE UNBIND UNLINK UNLOCK".split()
)

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_LINE: Final = rb"(" + _TOKEN + rb") ([\x21\x22\x24-\x7e]+) HTTP/1\.([0-9])\r\n"
_FIELD: Final = rb"(" + _TOKEN + rb"):[ \t]*([\t\x20-\x7e\x80-\xff]*)\r\n"
_HEAD: Final = re.compile(
    _LINE + rb"(?:" + _TOKEN + rb":[\t\x20-\x7e\x80-\xff]*\r\n)*\r\n"
)
_ONE_LINE: Final = re.compile(_LINE)
_ONE_FIELD: Final = re.compile(_FIELD)
_REFUSED_LINE: Final = re.compile(
    rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/[0-9]\.[0-9]\r\n"
)
_MAX_METHOD_BYTES: Final = 32
_VERSION: Final = re.compile(rb"HTTP/[0-9]\.[0-9]")
_BARE: Final = re.compile(rb"\r(?!\n)|(?<!\r)\n")
_LENGTH: Final = re.compile(rb"[0-9]+")
_MAX_LENGTH_DIGITS: Final = 18

_ALONE: Final = frozenset((b"content-length", b"host", b"transfer-encoding"))


class _Fields:
    """
    Receives the callbacks of the parser.
    """

    __slots__ = ("count", "fields", "repeated", "url")

    def __init__(self) -> None:
        self.url = b""
        self.fields: dict[bytes, bytes] = {}
        self.count = 0
        self.repeated: list[bytes] = []

    def on_url(self, url: bytes) -> None:
        """
        The request target.
        """
        self.url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        """
        One field, its value without the blanks around it.
        """
        self.count += 1
        # llhttp leaves those at its end.
        name, value = name.lower(), value.rstrip(b" \t")
        if name in self.fields:
            if name in _ALONE:
                self.repeated.append(name)
            self.fields[name] += b", " + value
        else:
            self.fields[name] = value


def parse_head(head: bytes, limits: Limits) -> Request:
    """
    Check and parse one head.

    Args:
        head: The whole head, including the blank line.
        limits: The longest target, and the number of fields.

    Raises:
        PeerError: The head is refused; the sentence says why. Nothing after it can be
            trusted.
    """
    line = _HEAD.fullmatch(head)
    if line is None:
        _explain(head)
    method, target = line[1], line[2]
    if len(target) > limits.target_bytes:
        raise TargetTooLong(
            f"The target has {len(target)} bytes; at most {limits.target_bytes} are"
            " allowed."
        )
    if method not in KNOWN_METHODS:
        raise UnknownMethod(f"{_shown(method)} is not a method of HTTP that kvd knows.")
    authority = authority_of(target)
    # A later 1.x is served as the latest one known (RFC 9110 section 2.5).
    minor = min(int(line[3]), 1)
    parsed = _Fields()
    try:
        HttpRequestParser(parsed).feed_data(_as_llhttp_reads_it(head, line.end(3)))
    except HttpParserUpgrade:
        # Also for CONNECT. kvd ignores the wish; the head is complete.
        pass
    except HttpParserError as error:
        _refuse(head, minor, limits, error)
    return _understand(method, parsed, minor, limits, authority)


def _as_llhttp_reads_it(head: bytes, version_end: int) -> bytes:
    """
    The same head, without what llhttp refuses although RFC 9112 allows it: versions
    beyond 1.1, and a tab after ``chunked``.
    """
    if head[version_end - 1] > ord("1"):
        head = head[: version_end - 1] + b"1" + head[version_end:]
    if b"\t" in head:
        head = b"\r\n".join(field.rstrip(b" \t") for field in head.split(b"\r\n"))
    return head


def _understand(
    method: bytes,
    parsed: _Fields,
    minor: int,
    limits: Limits,
    authority: bytes | None = None,
) -> Request:
    fields = parsed.fields
    if parsed.count > limits.head_fields:
        raise HeadTooLarge(
            f"The head has {parsed.count} fields; at most {limits.head_fields} are"
            " allowed."
        )
    if parsed.repeated:
        name = parsed.repeated[0].decode("ascii").title()
        raise BadFraming(f"{name} is given more than once; only one is allowed.")
    host = fields.get(b"host")
    _check_host(host, minor)
    length = fields.get(b"content-length")
    coding = fields.get(b"transfer-encoding")
    if coding is not None:
        _check_coding(coding, length, minor)
    return Request(
        method=method.decode("ascii"),
        target=parsed.url,
        minor=minor,
        fields=fields,
        length=None if length is None else _length(length),
        chunked=coding is not None,
        keep_alive=_keeps_alive(fields.get(b"connection"), minor),
        expects_continue=_expects_continue(fields.get(b"expect"), minor),
        host=host if authority is None else authority,
    )


def _check_host(host: bytes | None, minor: int) -> None:
    if host is None:
        if minor == 1:
            raise BadFraming("HTTP/1.1 needs a Host field, but there is none.")
    elif not is_host(host):
        raise BadFraming(
            f"Host is {_shown(host)}, but has to be a host and perhaps a port, such as"
            " kvd.example, 127.0.0.1:8080 or [::1]:8080."
        )


def _check_coding(coding: bytes, length: bytes | None, minor: int) -> None:
    # Each of these is used to smuggle requests (RFC 9112 section 6.1).
    if length is not None:
        raise BadFraming(
            "Transfer-Encoding and Content-Length are both given; only one can say"
            " where the body ends."
        )
    if minor == 0:
        raise BadFraming("HTTP/1.0 has no Transfer-Encoding; give a Content-Length.")
    if coding.lower() != b"chunked":
        raise BadFraming(
            f"Transfer-Encoding is {_shown(coding)}; only 'chunked' is supported."
        )


def _length(value: bytes) -> int:
    if not _LENGTH.fullmatch(value):
        raise BadFraming(
            f"Content-Length is {_shown(value)}; it has to be one number in digits."
        )
    digits = value.lstrip(b"0")
    if len(digits) > _MAX_LENGTH_DIGITS:
        raise ValueTooLarge(
            f"A Content-Length of {len(digits)} digits is more than any store can hold."
        )
    return int(digits or b"0")


def _tokens(value: bytes) -> Iterable[bytes]:
    return (token.strip(b" \t") for token in value.lower().split(b","))


def _keeps_alive(connection: bytes | None, minor: int) -> bool:
    if connection is None:
        return minor == 1
    tokens = set(_tokens(connection))
    if b"close" in tokens:
        return False
    return minor == 1 or b"keep-alive" in tokens


def _expects_continue(expect: bytes | None, minor: int) -> bool:
    # Ignored from a client of HTTP/1.0 (RFC 9110 section 10.1.1).
    if expect is None or minor == 0:
        return False
    if expect.lower() != b"100-continue":
        raise ExpectationFailed(
            f"Expect is {_shown(expect)}; only '100-continue' is supported."
        )
    return True


def _refuse(head: bytes, minor: int, limits: Limits, error: Exception) -> NoReturn:
    """
    Say what is wrong with a head that only llhttp refused.
    """
    parsed = _Fields()
    for name, value in _ONE_FIELD.findall(head, head.index(b"\r\n") + 2):
        parsed.on_header(name, value)
    _understand(b"GET", parsed, minor, limits)
    raise BadFraming(f"The head is malformed: {error}.") from error


def line_of(data: bytes, begin: int, limits: Limits) -> tuple[str, bytes] | None:
    """
    The method and target of a request whose head was refused.

    Args:
        data: Contains as much of the head as has arrived.
        begin: Where the head begins in it.
        limits: How long the target may be.

    Returns:
        None, if the first line is malformed, or too long for a log.
    """
    line = _REFUSED_LINE.match(data, begin)
    if line is None or len(line[1]) > _MAX_METHOD_BYTES:
        return None
    if len(line[2]) > limits.target_bytes:
        return None
    return line[1].decode("ascii"), line[2]


def refuse_bare(data: bytes | bytearray, start: int, stop: int) -> None:
    """
    Refuse a part of a head that contains half a line end (RFC 9112 section 2.2).
    """
    bare = _BARE.search(data, start, stop)
    if bare is not None:
        name = "CR" if bare[0] == b"\r" else "LF"
        raise BadFraming(f"A line of the head ends with a bare {name} instead of CRLF.")


def _explain(head: bytes) -> NoReturn:
    """
    Say what is wrong with a head that does not follow the grammar.
    """
    refuse_bare(head, 0, len(head))
    line, _, rest = head.partition(b"\r\n")
    if not _ONE_LINE.fullmatch(line + b"\r\n"):
        _explain_line(line)
    for field in rest.split(b"\r\n"):
        if _ONE_FIELD.fullmatch(field + b"\r\n") or not field:
            continue
        if field[:1] in (b" ", b"\t"):
            raise BadFraming(
                f"The field line {_shown(field)} begins with a blank: folded lines"
                " are obsolete (RFC 9112 section 5.2)."
            )
        name, colon, _ = field.partition(b":")
        if not colon:
            raise BadFraming(f"The field line {_shown(field)} has no colon.")
        if re.fullmatch(_TOKEN, name.rstrip(b" \t")) and name[-1:] in (b" ", b"\t"):
            raise BadFraming(
                f"In the field line {_shown(field)} there is a blank before the colon."
            )
        if not re.fullmatch(_TOKEN, name):
            raise BadFraming(f"{_shown(name)} cannot be the name of a field.")
        raise BadFraming(f"The field line {_shown(field)} contains a control byte.")
    raise BadFraming("The head is malformed.")


def _explain_line(line: bytes) -> NoReturn:
    words = line.split(b" ")
    if len(words) != 3:
        raise BadFraming(
            f"The request line {_shown(line)} has to be a method, a target and a"
            " version with single blanks between them."
        )
    method, target, version = words
    if not re.fullmatch(_TOKEN, method):
        raise BadFraming(f"{_shown(method)} cannot be a method.")
    if not _VERSION.fullmatch(version):
        raise BadFraming(
            f"{_shown(version)} is not a version of HTTP, such as HTTP/1.1."
        )
    if not version.startswith(b"HTTP/1."):
        raise UnsupportedVersion(
            f"{_shown(version)} is not supported; HTTP/1.1 and HTTP/1.0 are."
        )
    if b"#" in target:
        raise BadFraming(
            f"The target {_shown(target)} has a fragment, which clients must not send;"
            " write a number sign in a key as %23."
        )
    raise BadFraming(
        f"The target {_shown(target)} contains bytes that have to be percent-encoded."
    )


def _shown(data: bytes) -> str:
    text = data[:80].decode("ascii", "backslashreplace")
    return repr(text + ("..." if len(data) > 80 else ""))
