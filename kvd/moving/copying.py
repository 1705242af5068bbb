"""
Copies one value from one store to another, and reads it back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from kvd.errors import Fault
from kvd.interfaces import IStore, IValue
from kvd.model.conditions import Conditions, EntityTags
from kvd.model.keys import Key, escape
from kvd.model.values import Published, ValueInfo
from kvd.store.waiting import resolved

CHUNK_BYTES: Final = 1024 * 1024
"""
How much of a value is in memory at once.
"""


ABSENT: Final = Conditions(if_none_match=EntityTags(any=True))
"""
The condition that a key has no value.
"""


def exactly(etag: str) -> Conditions:
    """
    The condition that a key has the value with an entity tag.
    """
    return Conditions(if_match=EntityTags(strong=frozenset((etag,))))


class CopyDiffers(Fault):
    """
    A copied value reads back as other bytes than those that were written.
    """


async def copy(
    source: IStore,
    destination: IStore,
    key: Key,
    conditions: Conditions,
    clock: IReactorTime,
) -> tuple[Published, bytes]:
    """
    Copy the value of a key with its metadata. Nothing is published unless all of it was
    read.

    Args:
        source: Where it is read.
        destination: Where it is written.
        key: Its key in both.
        conditions: What must be true at the destination.
        clock: Lets the reactor do other work between two chunks.

    Returns:
        What was published, and the SHA-256 of its bytes.

    Raises:
        KeyAbsent: The source has no value there.
        PreconditionFailed: A condition does not hold.
        KvdError: Anything else that `IStore.open`, `IValue.read`, `IStore.begin`,
            `IUpload.write` and `IUpload.commit` raise.
    """
    value = await resolved(source.open(key, whole=True))
    try:
        size = value.info.size
        upload = await resolved(
            destination.begin(key, size, value.info.metadata, conditions)
        )
        digest = sha256()
        try:
            async for chunk in _chunks(value, clock):
                digest.update(chunk)
                await resolved(upload.write(chunk))
        except BaseException:
            upload.discard()
            raise
        return await resolved(upload.commit(conditions)), digest.digest()
    finally:
        value.close()


async def digest_of(value: IValue, clock: IReactorTime) -> bytes:
    """
    The SHA-256 of an open value.

    Raises:
        StoreFault: It cannot be read.
    """
    digest = sha256()
    async for chunk in _chunks(value, clock):
        digest.update(chunk)
    return digest.digest()


async def digest_in(
    store: IStore, key: Key, clock: IReactorTime
) -> tuple[ValueInfo, bytes]:
    """
    The value of a key in a store, and its SHA-256.

    Raises:
        KeyAbsent: The store has none.
        StoreFault: It cannot be read.
    """
    value = await resolved(store.open(key))
    try:
        return value.info, await digest_of(value, clock)
    finally:
        value.close()


async def verify(
    store: IStore, published: Published, digest: bytes, clock: IReactorTime
) -> None:
    """
    Read a value back. If it was replaced meanwhile, there is nothing to compare.

    Raises:
        CopyDiffers: It has other bytes.
        KeyAbsent: It was removed meanwhile.
        StoreFault: It cannot be read.
    """
    info, found = await digest_in(store, published.info.key, clock)
    if info.etag == published.info.etag and found != digest:
        raise CopyDiffers(
            f"/{escape(info.key)} was written with the SHA-256 {digest.hex()}, and"
            f" reads back with {found.hex()}: do not trust the destination."
        )


async def _chunks(value: IValue, clock: IReactorTime) -> AsyncIterator[bytes]:
    offset = 0
    while offset < value.info.size:
        # A store on a local disk answers at once.
        await deferLater(clock, 0)
        chunk = await resolved(value.read(offset, CHUNK_BYTES))
        offset += len(chunk)
        yield chunk
