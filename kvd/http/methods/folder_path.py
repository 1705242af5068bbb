"""
The path of a folder without its slash, asked for by a browser: people leave it out, and
are sent to the page of the folder.

The reply is temporary, and no cache keeps it: with its last value the folder is gone,
and then a value may have this key.
"""

from __future__ import annotations

from dataclasses import replace

from kvd.errors import AccessRefused, PeerError
from kvd.http.admission import Permitted
from kvd.http.context import ProcessContext
from kvd.http.reply_fields import Fields
from kvd.model.keys import Key, escape
from kvd.model.operations import List
from kvd.model.requests import Request


def prefix_of_page(
    context: ProcessContext, permitted: Permitted, request: Request, key: Key
) -> bytes | None:
    """
    The prefix that the page of a folder would show whose path was asked for without its
    slash.

    Args:
        context: Of the process.
        permitted: Decides about what the sender of the request may do.
        request: For a key that has no value.
        key: That key.

    Returns:
        None: the sender may not list it, or this path with a slash is no page.
    """
    path, mark, query = request.target.partition(b"?")
    request = replace(request, target=path + b"/" + mark + query)
    try:
        mount = context.dialects.of(request.target, request.method)
        operation = mount.dialect.understand(request, mount.prefix)
    except PeerError:
        return None
    # Elsewhere a key is not just a path.
    if not isinstance(operation, List) or operation.prefix != key + b"/":
        return None
    try:
        permitted(operation)
    except AccessRefused:
        return None
    return operation.prefix


def fields_to_page(request: Request, prefix: bytes) -> Fields:
    """
    The fields of the reply that sends a browser to the page of a folder.

    Args:
        request: For the folder without its slash.
        prefix: That of the folder.
    """
    name = prefix.split(b"/")[-2]
    # The wire has refused what is not ASCII.
    _, mark, query = request.target.decode("ascii").partition("?")
    return [
        # Relative: a proxy may serve kvd below a path.
        ("Location", f"./{escape(name)}/{mark}{query}"),
        ("Cache-Control", "private, no-cache"),
        ("Vary", "Accept"),
    ]
