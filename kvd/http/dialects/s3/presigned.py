"""
What presigned URLs have in their queries: fields of the reply
(``response-content-type`` and others), as where a file is to be saved under another
name, and metadata of the object.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote_to_bytes

from kvd.access.signatures import is_signed
from kvd.errors import BadRequest
from kvd.http.dialects.paths import query_of
from kvd.http.reply_fields import SANDBOX, Fields, is_active
from kvd.model.requests import Request

_NAMES: Final = {
    f"response-{name.lower()}": name
    for name in (
        *("Cache-Control", "Content-Disposition", "Content-Encoding"),
        *("Content-Language", "Content-Type", "Expires"),
    )
}

OVERRIDDEN: Final = frozenset(_NAMES)
"""
The parameters.
"""

_BEGINNING: Final = b"response-"
_TEXT: Final = re.compile(rb"[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]{0,1023})")
_METADATA: Final = re.compile(r"x-amz-meta-.*", re.IGNORECASE | re.DOTALL)
_NAME: Final = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
_PARTS: Final = "multipart/byteranges"


def overrides_of(request: Request) -> Fields:
    """
    The fields that a request chooses.

    Raises:
        BadRequest: It has no signature, as anybody could have others shown a value as
            what it is not; or it chooses what no field can hold.
    """
    if _BEGINNING not in request.target:
        return []
    found = [
        (name, unquote_to_bytes(text))
        for name, text in query_of(request.target).items()
        if name in OVERRIDDEN
    ]
    if found and not is_signed(request):
        raise BadRequest(
            "Only a request that is signed can choose fields of its reply."
        )
    for name, text in found:
        _check(name, text)
    return [(_NAMES[name], text.decode("latin-1")) for name, text in found]


def overridden(fields: Sequence[tuple[str, str]], chosen: Fields) -> Fields:
    """
    The fields of a reply with those that were chosen. What consists of several ranges
    stays that.
    """
    shown = dict(chosen)
    if dict(fields).get("Content-Type", "").startswith(_PARTS):
        shown.pop("Content-Type", None)
    kept = [each for each in fields if each[0] not in shown]
    if is_active(shown.get("Content-Type", "")) and SANDBOX not in kept:
        kept.append(SANDBOX)
    return [*kept, *shown.items()]


def metadata_in_query(request: Request) -> dict[bytes, bytes]:
    """
    The fields ``x-amz-meta-`` that a request has in its query: AWS's library for
    JavaScript moves them there.

    Raises:
        BadRequest: One of them is none that a field can be.
    """
    found = {
        name.lower(): unquote_to_bytes(text)
        for name, text in query_of(request.target).items()
        if text and _METADATA.fullmatch(name)
    }
    for name, text in found.items():
        if not _NAME.fullmatch(name):
            raise BadRequest(
                f"The query has {name!r:.100}, which cannot be the name of a field."
            )
        _check(name, text)
    return {name.encode("ascii"): text for name, text in found.items()}


def _check(name: str, text: bytes) -> None:
    if not _TEXT.fullmatch(text):
        raise BadRequest(
            f"{name:.100} has to be what a field can hold: 1 to 1024 bytes, without"
            " control characters."
        )
