"""
Small values, which are sent at their commit, when everything about them is known.
"""

from __future__ import annotations

from typing import Final

from zope.interface import implementer

from kvd.interfaces import IUpload
from kvd.model.conditions import Conditions
from kvd.model.keys import Key
from kvd.model.values import Metadata, Published
from kvd.s3.upload import ObjectUpload, UploadContext

BUFFERED_BYTES: Final = 256 * 1024
"""
The largest value that is kept in memory until its commit.
"""


@implementer(IUpload)
class BufferedUpload(ObjectUpload):
    """
    A small value, in memory until its commit.
    """

    def __init__(
        self,
        context: UploadContext,
        key: Key,
        name: str,
        length: int | None,
        metadata: Metadata,
    ) -> None:
        super().__init__(context, key, name, length, metadata)
        self._chunks: list[bytes] = []

    def write(self, chunk: bytes) -> None:
        assert self._length is not None
        self._written += len(chunk)
        if self._written <= self._length:
            self._chunks.append(chunk)

    async def _commit(self, conditions: Conditions) -> Published:
        self._check_length()
        return await self._publish_whole(b"".join(self._chunks), conditions)

    def discard(self) -> None:
        if not self._ended:
            self._chunks.clear()
