"""
Fields of a client's own that are stored with a value: those that ``--keep-fields``
names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from kvd.errors import BadRequest
from kvd.http.wire.fields import check_size
from kvd.model.operations import Put
from kvd.model.requests import Request
from kvd.model.values import Metadata

CLIENT_TIME: Final = "x-oc-mtime"
"""
When the client's file was changed, in seconds since the epoch. ownCloud's clients and
rclone want to hear that it was accepted.
"""

_SECONDS: Final = re.compile(r"-?[0-9]{1,11}(?:\.[0-9]{1,9})?")


class KeptFields:
    """
    Takes the fields that are kept out of requests.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """
        Args:
            names: In lower case; a ``*`` at the end stands for any characters. None is
                that of a field with a meaning of its own (`kvd.options.kept_fields`).
        """
        self._names = [name.encode("ascii") for name in names if name[-1] != "*"]
        self._prefixes = tuple(
            name[:-1].encode("ascii") for name in names if name[-1] == "*"
        )

    def add(self, operation: Put, request: Request) -> Put:
        """
        An operation, with the fields that are kept as metadata. An empty field is not
        kept, nor is one that is meant for the next hop (RFC 9110 section 7.6.1).

        Raises:
            MetadataTooLarge: All metadata together is.
            BadRequest: The time of the client's file is not one.
        """
        fields = request.fields
        names = [name for name in self._names if fields.get(name)]
        if self._prefixes:
            names += sorted(
                name
                for name, value in fields.items()
                if value and name.startswith(self._prefixes) and is_kept(name)
            )
        hops = {
            option.strip().lower()
            for option in fields.get(b"connection", b"").split(b",")
        }
        metadata = {
            name.decode("ascii"): fields[name].decode("latin-1")
            for name in names
            if name not in hops
        }
        if not metadata:
            return operation
        if CLIENT_TIME in metadata:
            client_time(metadata)
        metadata = {**operation.metadata, **metadata}
        check_size(metadata)
        return replace(operation, metadata=metadata)


def client_time(metadata: Metadata) -> float | None:
    """
    When the client's file was changed, in seconds since the epoch; None if it has not
    said so.

    Raises:
        BadRequest: It is not a number of seconds.
    """
    text = metadata.get(CLIENT_TIME)
    if not text:
        return None
    if not _SECONDS.fullmatch(text):
        raise BadRequest(
            f"{text[:80]!r} in X-OC-Mtime is not a time: give seconds since 1970, such"
            " as 1795890600."
        )
    return float(text)


_NOT_KEPT: Final = re.compile(
    rb"x-(?:content-type-options|frame-options|xss-protection|download-options"
    rb"|permitted-cross-domain-policies|dns-prefetch-control|ua-compatible"
    rb"|content-security-policy.*|webkit-csp.*|robots-tag|powered-by"
    rb"|sendfile.*|lighttpd-.*|accel-.*|reproxy-.*|litespeed-.*|varnish.*"
    rb"|forwarded.*|real-ip|client-.*|original-.*|rewrite-.*"
    rb"|http-method.*|method-override|auth-.*|authenticated-.*|csrf.*|xsrf.*"
    rb"|amz-(?:date|content-sha256|security-token|copy-source.*|decoded-content-length"
    rb"|acl|grant-.*|server-side-.*|sdk-.*|trailer|checksum-.*))"
)


def is_kept(name: bytes) -> bool:
    """
    Whether a field may be kept. Fields that a browser or a proxy acts on may not: the
    author of a value could make it, for example, send other files than the value. Nor
    may those that say who a client is, or frame a request of another protocol.
    """
    return not _NOT_KEPT.fullmatch(name)
