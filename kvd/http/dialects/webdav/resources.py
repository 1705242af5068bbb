"""
Resources of WebDAV, and their properties.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from xml.sax.saxutils import escape as escape_text

from kvd.errors import AccessRefused, BadRequest, KeyConflict
from kvd.http.dialects.webdav.documents import DAV, property_of
from kvd.http.wire.kept import CLIENT_TIME, client_time
from kvd.http.wire.replies import http_date
from kvd.http.wire.targets import key_of_segments, path_segments
from kvd.model.exchanges import Values
from kvd.model.keys import Key, escape
from kvd.model.reserved import COLLECTION, LOCKS
from kvd.model.values import Folder, Metadata, ValueInfo

PROPERTIES: Final = "dav.properties"
"""
The metadata that keeps the properties that clients set, as a JSON object: each as XML,
by its name.
"""


@dataclass(frozen=True, slots=True)
class Path:
    """
    A path that a request names.
    """

    key: bytes
    """The key of a value, or the prefix of a collection without its slash; empty for
    the root of the store."""
    is_root: bool
    """Whether it is the collection of the whole dialect, which is always there."""
    is_collection: bool
    """Whether it ends with a slash, so that no value can be meant."""
    is_at_top: bool = False
    """Whether it is directly in the root collection."""

    @property
    def prefix(self) -> bytes:
        """
        That of the keys in the collection.
        """
        return self.key + b"/" if self.key else b""

    @property
    def parent(self) -> Path:
        """
        The collection that it is in.
        """
        return Path(self.key.rpartition(b"/")[0], self.is_at_top, True)

    @property
    def marker(self) -> Key:
        """
        The key of the value that makes the collection last.

        Raises:
            TargetTooLong: Its key is too long for that.
        """
        return key_of_segments([*self.key.split(b"/"), COLLECTION])


RESERVED: Final = (COLLECTION, LOCKS)
"""
Segments that no client can use.
"""


def path_of(target: bytes, prefix: bytes) -> Path:
    """
    What a target names.

    Args:
        target: Of a request, or of its ``Destination``.
        prefix: See `kvd.interfaces.IDialect.understand`.

    Raises:
        BadRequest: It is outside of the dialect, names no key, or a reserved one.
    """
    segments = path_segments(target)
    folders = prefix.split(b"/")[:-1]
    if segments[: len(folders)] != folders:
        raise BadRequest(
            f"The path is not below /{escape(prefix)}, where WebDAV is spoken."
        )
    is_collection = not segments[-1]
    if is_collection:
        segments.pop()
    for name in RESERVED:
        if name in segments:
            raise BadRequest(
                f"{name.decode()} is the name of a value that kvd keeps in collections:"
                " choose another one."
            )
    if len(segments) == len(folders):
        return Path(b"/".join(segments), True, True)
    is_at_top = len(segments) == len(folders) + 1
    return Path(key_of_segments(segments), False, is_collection, is_at_top)


@dataclass(frozen=True, slots=True)
class Resource:
    """
    A value or a collection that is there.
    """

    path: Path
    info: ValueInfo | None
    """Describes the value, or the one that makes the collection last, if it has one."""
    is_collection: bool

    @property
    def href(self) -> str:
        """
        Its path, percent-encoded.
        """
        slash = "/" if self.is_collection and self.path.key else ""
        return f"/{escape(self.path.key)}{slash}"

    @property
    def metadata(self) -> Metadata:
        """
        What is kept with it.
        """
        return {} if self.info is None else self.info.metadata


async def find(values: Values, path: Path) -> Resource | None:
    """
    What is at a path; None if there is nothing.
    """
    if not path.is_collection:
        info = await values.stat(Key(path.key))
        if info is not None:
            return Resource(path, info, is_collection=False)
    return await find_collection(values, path)


async def find_collection(values: Values, path: Path) -> Resource | None:
    """
    The collection at a path; None if there is none.
    """
    if path.is_root:
        return Resource(path, None, is_collection=True)
    marker = await values.stat(path.marker)
    if marker is None and not await values.has_values(path.prefix):
        return None
    return Resource(path, marker, is_collection=True)


async def check_parent(values: Values, path: Path) -> None:
    """
    Check that the collection is there that something is made in (RFC 4918 section 5.1).

    Raises:
        KeyConflict: It is not.
    """
    parent = path.parent
    if await find_collection(values, parent) is None:
        raise KeyConflict(
            f"The collection /{escape(parent.key)}/ is not there: make it with MKCOL."
        )


async def member(values: Values, entry: ValueInfo | Folder) -> Resource | None:
    """
    A member of a collection, as a store lists it; None for what clients do not see.
    """
    if isinstance(entry, ValueInfo):
        if entry.key.rpartition(b"/")[2] in RESERVED:
            return None
        return Resource(Path(entry.key, False, False), entry, is_collection=False)
    path = Path(entry.prefix[:-1], False, True)
    marker = None
    # Whoever may only list sees that it is there.
    with suppress(AccessRefused):
        marker = await values.stat(path.marker)
    return Resource(path, marker, is_collection=True)


# -- properties ---------------------------------------------------------------

LIVE: Final = frozenset(
    DAV + name
    for name in (
        "creationdate",
        "getcontentlanguage",
        "getcontentlength",
        "getcontenttype",
        "getetag",
        "getlastmodified",
        "lockdiscovery",
        "resourcetype",
        "supportedlock",
    )
)
"""
The properties that only kvd sets.
"""


LOCKING: Final = frozenset((DAV + "lockdiscovery", DAV + "supportedlock"))
"""
Those that tell of locks.
"""


def dead_properties(metadata: Metadata) -> dict[str, str]:
    """
    The properties that clients have set, as XML, by their names.
    """
    return dict(json.loads(metadata.get(PROPERTIES, "{}")))


def with_dead(metadata: Metadata, properties: Mapping[str, str]) -> dict[str, str]:
    """
    Metadata with other properties.
    """
    changed = {name: value for name, value in metadata.items() if name != PROPERTIES}
    if properties:
        changed[PROPERTIES] = json.dumps(properties, separators=(",", ":"))
    return changed


def properties_of(resource: Resource) -> dict[str, str]:
    """
    All properties of a resource as XML, by their names.
    """
    info = resource.info
    changed = 0.0 if info is None else info.changed
    told = client_time(resource.metadata) if CLIENT_TIME in resource.metadata else None
    live = {
        "resourcetype": "<D:collection/>" if resource.is_collection else "",
        "creationdate": _date(changed),
        "getlastmodified": http_date(changed if told is None else max(told, 0.0)),
    }
    if info is not None and not resource.is_collection:
        kind = info.metadata.get("content-type") or "application/octet-stream"
        live["getcontentlength"] = str(info.size)
        live["getetag"] = escape_text(f'"{info.etag}"')
        live["getcontenttype"] = escape_text(kind)
        language = info.metadata.get("content-language")
        if language:
            live["getcontentlanguage"] = escape_text(language)
    found = {DAV + name: property_of(DAV + name, text) for name, text in live.items()}
    return {**dead_properties(resource.metadata), **found}


def _date(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
