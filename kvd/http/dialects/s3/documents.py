"""
The XML of S3.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape as escape_text

from kvd.errors import (
    BadRequest,
    DigestMismatch,
    Forbidden,
    KeyAbsent,
    KeyConflict,
    KvdError,
    LengthRequired,
    MetadataTooLarge,
    MethodNotAllowed,
    OperationUnsupported,
    PreconditionFailed,
    QuotaFull,
    RangeNotSatisfiable,
    SignatureRefused,
    StoreBusy,
    StoreExhausted,
    StoreFull,
    TargetTooLong,
    TooManyRequests,
    Unauthorized,
    UnknownMethod,
    UploadAbsent,
    ValueFixed,
    ValueTooLarge,
)
from kvd.http.dialects.xml_reader import parse
from kvd.http.wire.replies import NO_SNIFFING
from kvd.model.replies import Reply

NAMESPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"

HEAD: Final = '<?xml version="1.0" encoding="UTF-8"?>\n'

XML_FIELDS: Final = (("Content-Type", "application/xml"), NO_SNIFFING)

_CODES: Final[Mapping[type[KvdError], str]] = {
    Unauthorized: "AccessDenied",
    Forbidden: "AccessDenied",
    KeyAbsent: "NoSuchKey",
    UploadAbsent: "NoSuchUpload",
    KeyConflict: "OperationAborted",
    ValueFixed: "ObjectLocked",
    LengthRequired: "MissingContentLength",
    MetadataTooLarge: "MetadataTooLarge",
    MethodNotAllowed: "MethodNotAllowed",
    OperationUnsupported: "NotImplemented",
    UnknownMethod: "NotImplemented",
    PreconditionFailed: "PreconditionFailed",
    RangeNotSatisfiable: "InvalidRange",
    StoreBusy: "SlowDown",
    StoreExhausted: "SlowDown",
    StoreFull: "InsufficientStorage",
    QuotaFull: "QuotaExceeded",
    TargetTooLong: "KeyTooLongError",
    TooManyRequests: "SlowDown",
    ValueTooLarge: "EntityTooLarge",
    BadRequest: "InvalidRequest",
}


def code_of(error: KvdError) -> str:
    """
    What S3 calls an error.
    """
    if isinstance(error, SignatureRefused):
        return error.code
    if isinstance(error, DigestMismatch):
        is_signed = error.field.lower() == "x-amz-content-sha256"
        return "XAmzContentSHA256Mismatch" if is_signed else "BadDigest"
    for kind in type(error).__mro__:
        if kind in _CODES:
            return _CODES[kind]
    return "InternalError"


def refusal(status: int, code: str, sentence: str) -> Reply:
    """
    A reply that says what is wrong.
    """
    said = element("Code", code) + element("Message", sentence)
    text = HEAD + f"<Error>{said}</Error>"
    return Reply(status, XML_FIELDS, text.encode("utf-8"))


def document(name: str, *parts: str) -> Reply:
    """
    A reply with a document.
    """
    text = f'{HEAD}<{name} xmlns="{NAMESPACE}">{"".join(parts)}</{name}>'
    return Reply(200, XML_FIELDS, text.encode("utf-8"))


def element(name: str, text: object) -> str:
    """
    An element with text.
    """
    return f"<{name}>{escape_text(str(text))}</{name}>"


def elements(name: str, parts: Iterable[tuple[str, object]]) -> str:
    """
    An element with others.
    """
    inner = "".join(element(each, text) for each, text in parts)
    return f"<{name}>{inner}</{name}>"


def key_text(key: bytes, *, is_url: bool) -> str:
    """
    A key in a document: percent-encoded where the client has asked for that. Otherwise
    bytes that are no UTF-8 cannot be told.
    """
    if is_url:
        return quote(key, safe="/")
    text = key.decode("utf-8", "replace")
    # XML has none of these.
    return text.replace("\ufffe", "\ufffd").replace("\uffff", "\ufffd")


def moment(seconds: float) -> str:
    """
    A time, with milliseconds.
    """
    time = datetime.fromtimestamp(seconds, UTC)
    return time.strftime("%Y-%m-%dT%H:%M:%S.") + f"{time.microsecond // 1000:03d}Z"


def read(body: bytes, name: str) -> Element:
    """
    A document that a client has sent, without its namespaces.

    Raises:
        BadRequest: It is another one.
    """
    root = parse(body)
    for each in root.iter():
        each.tag = each.tag.rpartition("}")[2]
    if root.tag != name:
        raise BadRequest(f"The body has to be a document {name}, not {root.tag:.40}.")
    return root
