"""
Replies in JSON, for the dialects whose clients read it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kvd.errors import BadRequest
from kvd.http.wire.replies import NO_SNIFFING
from kvd.model.replies import Reply


def json_reply(status: int, content: object, kind: str = "application/json") -> Reply:
    """
    A reply with a document.
    """
    body = json.dumps(content, separators=(",", ":")).encode("ascii") + b"\n"
    return Reply(status, [("Content-Type", kind), NO_SNIFFING], body)


def as_json(reply: Reply, content: object, kind: str = "application/json") -> Reply:
    """
    A refusal, whose problem is told by another document.
    """
    told = json_reply(reply.status, content, kind)
    kept = [field for field in reply.fields if field[0] not in ("Content-Type",)]
    reply.fields = [("Content-Type", kind), *kept]
    reply.body = told.body
    return reply


def read_object(body: bytes) -> Mapping[str, Any]:
    """
    The object that is the body of a request.

    Raises:
        BadRequest: It is none.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"The body is not JSON: {error}.") from error
    if not isinstance(document, dict):
        raise BadRequest("The body has to be a JSON object.")
    return document
