"""
Whether a value is the same as one that is stored: their SHA-256 are.
"""

from __future__ import annotations

import hashlib
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from kvd.errors import StoreFault
from kvd.http.context import ProcessContext
from kvd.interfaces import IValue

SLICE_BYTES: Final = 1024 * 1024
"""
So much is read in one turn of the reactor: it takes about a millisecond.
"""

READ_BYTES: Final = 64 * 1024


class OwnDigest:
    """
    Of a value that is being written.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.update = self._hash.update
        self.digest = self._hash.digest


def digest_of(value: IValue, context: ProcessContext) -> Deferred[bytes]:
    """
    The SHA-256 of a stored value.

    Args:
        value: Is closed in the end.
        context: Of the process.

    Returns:
        If it is cancelled, the rest is not read.
    """
    return Deferred.fromCoroutine(_digest_of(value, context))


async def _digest_of(value: IValue, context: ProcessContext) -> bytes:
    digest = hashlib.sha256()
    size, offset = value.info.size, 0
    try:
        while offset < size:
            end = min(size, offset + SLICE_BYTES)
            descriptor = value.fileno()
            if descriptor is not None:
                read = context.readahead(descriptor, offset, end - offset)
                if read is not None:
                    await read
            while offset < end:
                chunk = value.read(offset, min(READ_BYTES, end - offset))
                data = await chunk if isinstance(chunk, Deferred) else chunk
                if not data:
                    raise StoreFault("the value ended before its length")
                digest.update(data)
                offset += len(data)
            if offset < size:
                await deferLater(context.clock, 0.0)
    finally:
        value.close()
    return digest.digest()
