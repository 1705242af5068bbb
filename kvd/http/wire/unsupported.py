"""
Requests with PUT from clients of other protocols, which kvd refuses: as an ordinary
PUT, such a request would store something else than the client means.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from kvd.errors import CodingUnsupported, OperationUnsupported
from kvd.model.requests import Request

# Of S3 and its like, Azure, Swift and WebDAV.
_SOURCE: Final = re.compile(
    rb"x-(?:[a-z0-9]+-)*(?:copy|rename)-(?:source|from)|x-copy-from|destination"
)
_PARAMETERS: Final = {
    *("acl", "comp", "legal-hold", "multipart-manifest", "partNumber"),
    *("retention", "tagging", "uploadId"),
}


def refuse_unsupported(request: Request, query: Mapping[str, bytes]) -> None:
    """
    Refuse a PUT whose body is not the value.

    Args:
        request: Its method is PUT.
        query: Its parameters.

    Raises:
        CodingUnsupported: The body has an encoding that kvd does not decode.
        OperationUnsupported: It asks for another operation than storing its body.
    """
    fields = request.fields
    coding = fields.get(b"content-encoding", b"").lower()
    hashed = fields.get(b"x-amz-content-sha256", b"")
    if b"aws-chunked" in coding or hashed.startswith(b"STREAMING-"):
        raise CodingUnsupported(
            "The body is encoded as aws-chunked, which kvd does not decode: send the"
            " value as it is, with a Content-Length or in HTTP chunks."
        )
    for name in fields:
        if _SOURCE.fullmatch(name):
            raise OperationUnsupported(
                f"{name.decode('ascii').title()} asks for a copy of another value,"
                " which kvd does not support: GET that value and PUT it here."
            )
    for parameter in query:
        if parameter in _PARAMETERS:
            raise OperationUnsupported(
                f"The parameter {parameter!r} asks for something other than storing a"
                " whole value, in a protocol that kvd does not support."
            )
