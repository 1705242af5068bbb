"""
Values that are uploaded in parts, each by a request of its own, in any order and at the
same time.

What is known of an upload, and its parts, are values themselves, until the whole is
published: so they are on any store, last as long as the store promises, and count for
its quotas.

    FOLDER/.kvd-multipart/ID.json       what is known of it
    KEY'S FOLDER/.kvd-multipart/ID/7    its seventh part

The second folder is that of the key, so that the same quota counts. Uploads that nobody
completes expire: whoever begins one removes others of the same folder.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import time
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from typing import Any, Final

from kvd.errors import Fault, KeyAbsent, StoreBusy, UploadAbsent
from kvd.http.wire.fields import size_of
from kvd.http.wire.targets import key_of_segments
from kvd.interfaces import IStore, IValue
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.model.reserved import MULTIPART
from kvd.model.uploads import PartInfo
from kvd.model.values import LEAST_METADATA_BYTES, Metadata, ValueInfo
from kvd.store.level import list_folder
from kvd.store.waiting import resolved

MOST_UPLOADS: Final = 1000
"""
In a folder, that are not completed.
"""

MOST_PARTS: Final = 10_000
"""
Of a value.
"""

LIFETIME_SECONDS: Final = 86400.0
"""
After the last part, where the settings name no other time for uploads.
"""

_JOINED: Final = "parts.joined"
"""
The name in the metadata of a value that says of which parts it consists. It lasts as
long as the value, without anything to sweep.
"""

_ID: Final = re.compile(r"[0-9a-f]{32}")
_ABOUT: Final = re.compile(rb"([0-9a-f]{32})\.json")
_NUMBER: Final = re.compile(rb"[1-9][0-9]{0,4}")
_MAX_ABOUT_BYTES: Final = 16 * 1024


def key_of_part(key: Key, upload: str, number: int) -> Key:
    """
    Where a part is stored.

    Raises:
        UploadAbsent: No upload has such a name.
        TargetTooLong: The key is too long for that.
    """
    return _key(_parts_prefix(key, upload) + b"%d" % number)


def _parts_prefix(key: Key, upload: str) -> bytes:
    if not _ID.fullmatch(upload):
        raise absent()
    folder = key[: key.rfind(b"/") + 1]
    return folder + MULTIPART + b"/" + upload.encode("ascii") + b"/"


def _key(text: bytes) -> Key:
    return key_of_segments(text.split(b"/"))


def absent() -> UploadAbsent:
    """
    The refusal of whatever is asked of an upload that there is not.
    """
    return UploadAbsent(
        "There is no such upload of this key: it was completed or aborted, or has"
        " expired. Begin a new one."
    )


class Multipart:
    """
    The uploads of one key.
    """

    def __init__(
        self, store: IStore, folder: bytes, key: Key, lifetime_seconds: float | None
    ) -> None:
        """
        Args:
            store: Where they are.
            folder: See `kvd.model.exchanges.Values.begin_parts`.
            key: Where the value is published.
            lifetime_seconds: How long they are kept after the last part.
        """
        self._store = store
        self._folder = folder
        self._key = key
        self._lifetime = lifetime_seconds or LIFETIME_SECONDS

    async def begin(self, metadata: Metadata) -> str:
        """
        Begin an upload; see `kvd.model.exchanges.Values.begin_parts`.
        """
        if await self._sweep() >= MOST_UPLOADS:
            raise StoreBusy(
                f"{MOST_UPLOADS} uploads in this folder are not completed: complete or"
                " abort some of them."
            )
        upload = secrets.token_hex(16)
        # That a part has room for its name is known before the first one comes.
        key_of_part(self._key, upload, MOST_PARTS)
        said = {"key": self._key.decode("latin-1"), "metadata": dict(metadata)}
        text = json.dumps(said).encode("ascii")
        about = await resolved(self._store.begin(self._about(upload), len(text)))
        try:
            await resolved(about.write(text))
        except BaseException:
            about.discard()
            raise
        await resolved(about.commit(UNCONDITIONAL))
        return upload

    def _about(self, upload: str) -> Key:
        if not _ID.fullmatch(upload):
            raise absent()
        name = upload.encode("ascii") + b".json"
        return _key(self._folder + MULTIPART + b"/" + name)

    async def record(self, upload: str) -> Metadata:
        """
        The metadata that the value will have.

        Raises:
            UploadAbsent: There is no such upload of this key.
        """
        said = await _said(self._store, self._about(upload))
        if said is None or said.get("key") != self._key.decode("latin-1"):
            raise absent()
        metadata: Metadata = said["metadata"]
        return metadata

    async def infos(self, upload: str) -> list[PartInfo]:
        """
        The parts that there are, in the order of their numbers.
        """
        prefix = _parts_prefix(self._key, upload)
        return await _infos(self._store, prefix)

    async def open(self, upload: str, part: PartInfo) -> IValue:
        """
        Open a part.

        Raises:
            UploadAbsent: It is there no longer, or another one has its number.
        """
        place = key_of_part(self._key, upload, part.number)
        try:
            value = await resolved(self._store.open(place))
        except KeyAbsent as error:
            raise absent() from error
        if value.info.etag != part.etag:
            value.close()
            raise absent()
        return value

    def marked(
        self, metadata: Metadata, upload: str, parts: Iterable[tuple[int, str]]
    ) -> Metadata:
        """
        Metadata with which a value can be told to be what became of parts
        (`is_joined`); as it is, if it has no room for more in every store.

        Args:
            metadata: Of the value.
            upload: The name of the upload.
            parts: The number and the entity tag of each.
        """
        marked = {**metadata, _JOINED: self._mark(upload, parts)}
        return marked if size_of(marked) <= LEAST_METADATA_BYTES else metadata

    def is_joined(
        self, info: ValueInfo, upload: str, parts: Iterable[tuple[int, str]]
    ) -> bool:
        """
        Whether a value of this key is what became of parts.

        Args:
            info: Describes it.
            upload: See `marked`.
            parts: See `marked`.
        """
        return info.metadata.get(_JOINED) == self._mark(upload, parts)

    def _mark(self, upload: str, parts: Iterable[tuple[int, str]]) -> str:
        # With the key: copies of the value have the same metadata.
        named = [self._key.decode("latin-1"), upload, *parts]
        text = json.dumps(named).encode("ascii")
        return hashlib.sha256(text).hexdigest()[:32]

    async def remove(self, upload: str) -> None:
        """
        Remove an upload with its parts.
        """
        prefix = _parts_prefix(self._key, upload)
        await _remove(self._store, prefix, self._about(upload))

    async def remove_published(self, upload: str) -> None:
        """
        Remove what was published.
        """
        # The value is there. What stays expires.
        with suppress(Fault):
            await self.remove(upload)

    async def _sweep(self) -> int:
        """
        Remove the uploads of the folder that have expired. Returns how many are left.
        """
        oldest = time.time() - self._lifetime
        found = await begun(self._store, self._folder)
        left = len(found)
        for key, upload, info in found:
            if info.changed >= oldest:
                continue
            prefix = _parts_prefix(key, upload)
            infos = await _infos(self._store, prefix)
            if any(part.changed >= oldest for part in infos):
                continue
            await _remove(self._store, prefix, info.key)
            left -= 1
        return left


async def begun(store: IStore, folder: bytes) -> list[tuple[Key, str, ValueInfo]]:
    """
    The uploads of a folder that are not completed: each with the key of its value, its
    name, and the description of what is known of it.
    """
    found = []
    prefix = folder + MULTIPART + b"/"
    with closing(list_folder(store, prefix, b"", None)) as listing:
        while entries := await resolved(listing.next_slice()):
            for entry in entries:
                if not isinstance(entry, ValueInfo):
                    continue
                named = _ABOUT.fullmatch(entry.key[len(prefix) :])
                if named is None:
                    continue
                said = await _said(store, entry.key)
                if said is not None:
                    key = Key(said["key"].encode("latin-1"))
                    found.append((key, named[1].decode("ascii"), entry))
    return found


async def _said(store: IStore, about: Key) -> dict[str, Any] | None:
    """
    What is known of an upload; None if there is none.
    """
    try:
        value = await resolved(store.open(about))
    except KeyAbsent:
        return None
    with closing(value):
        text = await resolved(value.read(0, _MAX_ABOUT_BYTES))
    try:
        said = json.loads(text)
        _key(said["key"].encode("latin-1"))
    except (ValueError, LookupError, TypeError, AttributeError):
        return None  # Another program has written it.
    return said if isinstance(said.get("metadata"), dict) else None


async def _infos(store: IStore, prefix: bytes) -> list[PartInfo]:
    found = []
    with closing(store.list(prefix, b"", None)) as listing:
        while infos := await resolved(listing.next_slice()):
            for info in infos:
                name = info.key[len(prefix) :]
                if _NUMBER.fullmatch(name) and int(name) <= MOST_PARTS:
                    part = PartInfo(int(name), info.size, info.etag, info.changed)
                    found.append(part)
    return sorted(found, key=lambda part: part.number)


async def _remove(store: IStore, prefix: bytes, about: Key) -> None:
    keys: Sequence[Key] = [
        _key(prefix + b"%d" % part.number) for part in await _infos(store, prefix)
    ]
    for key in (*keys, about):
        with suppress(KeyAbsent):
            await resolved(store.remove(key, UNCONDITIONAL))
