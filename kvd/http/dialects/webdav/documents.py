"""
The XML of WebDAV: what clients ask, and answers about several resources.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Final, NamedTuple
from xml.etree.ElementTree import Element, tostring
from xml.sax.saxutils import escape as escape_text

from kvd.errors import BadRequest
from kvd.http.dialects.xml_reader import parse

DAV: Final = "{DAV:}"

_DECLARED: Final = b'<?xml version="1.0" encoding="utf-8"?>\n'

HEAD: Final = _DECLARED + b'<D:multistatus xmlns:D="DAV:">'
TAIL: Final = b"\n</D:multistatus>\n"

XML_TYPE: Final = ("Content-Type", 'application/xml; charset="utf-8"')

MAX_OWNER_BYTES: Final = 1024
"""
Of a lock; davfs2 says a user, Windows a name with its domain.
"""


class Asked(NamedTuple):
    """
    What a PROPFIND asks for.
    """

    names: Sequence[str] | None = None
    """The properties; None: all."""
    only_names: bool = False
    """Without their values."""


def read_propfind(body: bytes) -> Asked:
    """
    The body of a PROPFIND (RFC 4918 section 9.1); none asks for all properties.

    Raises:
        BadRequest: It is no such document.
    """
    if not body:
        return Asked()
    root = parse(body)
    if root.tag != DAV + "propfind":
        raise _unexpected(root, "DAV: propfind")
    kinds = {child.tag for child in root} & {
        DAV + name for name in ("allprop", "propname", "prop")
    }
    if len(kinds) != 1:
        raise BadRequest(
            "A propfind has exactly one of allprop, propname and prop in it."
        )
    asked = root.find(DAV + "prop")
    if asked is not None:
        return Asked([*dict.fromkeys(child.tag for child in asked)])
    return Asked(only_names=DAV + "propname" in kinds)


class Change(NamedTuple):
    """
    A property to set or to remove.
    """

    name: str
    element: Element | None
    """The property with its value; None: it is removed."""


def read_propertyupdate(body: bytes) -> list[Change]:
    """
    The body of a PROPPATCH (RFC 4918 section 9.2): its changes in their order.

    Raises:
        BadRequest: It is no such document.
    """
    root = parse(body)
    if root.tag != DAV + "propertyupdate":
        raise _unexpected(root, "DAV: propertyupdate")
    changes = []
    for step in root:
        if step.tag not in (DAV + "set", DAV + "remove"):
            continue
        for prop in step.iterfind(DAV + "prop"):
            for element in prop:
                is_set = step.tag == DAV + "set"
                changes.append(Change(element.tag, element if is_set else None))
    if not changes:
        raise BadRequest("A propertyupdate has at least one property to set or remove.")
    return changes


class LockInfo(NamedTuple):
    """
    What a LOCK asks for.
    """

    exclusive: bool
    owner: str
    """As XML; empty if the client says nothing of it."""


def read_lockinfo(body: bytes) -> LockInfo:
    """
    The body of a LOCK for a new lock (RFC 4918 section 9.10).

    Raises:
        BadRequest: It is no such document.
    """
    root = parse(body)
    if root.tag != DAV + "lockinfo":
        raise _unexpected(root, "DAV: lockinfo")
    kinds = {child.tag for child in root.iterfind(f"{DAV}locktype/*")}
    scopes = {child.tag for child in root.iterfind(f"{DAV}lockscope/*")}
    if kinds != {DAV + "write"} or len(scopes) != 1:
        raise BadRequest("A lockinfo has the locktype write and one lockscope in it.")
    (scope,) = scopes
    if scope not in (DAV + "exclusive", DAV + "shared"):
        raise BadRequest("A lockscope is exclusive or shared.")
    found = root.find(DAV + "owner")
    owner = "" if found is None else text_of(found)
    if len(owner) > MAX_OWNER_BYTES:
        raise BadRequest(
            f"The owner of a lock may have {MAX_OWNER_BYTES} bytes as XML, not"
            f" {len(owner)}."
        )
    return LockInfo(scope == DAV + "exclusive", owner)


def _unexpected(root: Element, right: str) -> BadRequest:
    return BadRequest(
        f"The XML begins with {root.tag[:80]!r}, but has to be a {right}."
    )


def text_of(element: Element) -> str:
    """
    An element as XML, without blanks around it.
    """
    element.tail = None
    return tostring(element).decode("ascii")


def property_of(name: str, content: str = "") -> str:
    """
    A property as XML, with its escaped content.
    """
    if name.startswith(DAV):
        local = name[len(DAV) :]
        return f"<D:{local}>{content}</D:{local}>" if content else f"<D:{local}/>"
    return text_of(Element(name))


def response(path: str, found: Mapping[int, Iterable[str]]) -> bytes:
    """
    What is said about one resource.

    Args:
        path: Of it, percent-encoded.
        found: Properties as XML, by status.
    """
    parts = [
        f"<D:propstat><D:prop>{''.join(properties)}</D:prop>{_status(status)}"
        "</D:propstat>"
        for status, properties in found.items()
    ]
    return f"\n<D:response>{href(path)}{''.join(parts)}</D:response>".encode()


def failure(path: str, status: int, sentence: str) -> bytes:
    """
    What went wrong with one resource.
    """
    return (
        f"\n<D:response>{href(path)}{_status(status)}<D:responsedescription>"
        f"{escape_text(sentence)}</D:responsedescription></D:response>"
    ).encode()


def multistatus(responses: Iterable[bytes]) -> bytes:
    """
    A whole answer about several resources.
    """
    return HEAD + b"".join(responses) + TAIL


def condition(name: str, content: str = "") -> bytes:
    """
    The body of a refusal that names the condition which does not hold (RFC 4918 section
    16), with its content as XML.
    """
    return (
        _DECLARED
        + (
            f'<D:error xmlns:D="DAV:">{property_of(DAV + name, content)}</D:error>\n'
        ).encode()
    )


def properties(content: str) -> bytes:
    """
    A document with nothing but properties.
    """
    return _DECLARED + f'<D:prop xmlns:D="DAV:">{content}</D:prop>\n'.encode()


def names_of(elements: Iterable[str]) -> Iterator[str]:
    """
    Properties as XML, without values.
    """
    return map(property_of, elements)


def href(path: str) -> str:
    """
    The URL of something, or its percent-encoded path, as XML.
    """
    return f"<D:href>{escape_text(path)}</D:href>"


def _status(status: int) -> str:
    return f"<D:status>HTTP/1.1 {status} {HTTPStatus(status).phrase}</D:status>"
