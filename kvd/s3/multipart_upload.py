"""
Values of unknown length, which are sent in parts; and those that are sent as a whole
when their last byte has come.

Each part waits in a file for its last byte. The value is published when the parts are
joined. If it has conditions, all of it waits in a file and is sent in one request:
engines do not keep conditions when they join parts (`kvd.s3.guards`).
"""

from __future__ import annotations

import tempfile
from typing import IO, Final
from urllib.parse import quote
from xml.sax.saxutils import escape as escape_xml

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from kvd.client.sources import PIECE_BYTES
from kvd.errors import EngineFailed, ValueTooLarge
from kvd.interfaces import Answer, IUpload
from kvd.model.conditions import UNCONDITIONAL, Conditions
from kvd.model.keys import Key
from kvd.model.values import Metadata, Published
from kvd.s3.buffered_upload import BUFFERED_BYTES
from kvd.s3.endpoints import Endpoint
from kvd.s3.record import fields_of
from kvd.s3.requests import Ask
from kvd.s3.upload import ObjectUpload, UploadContext, changed_after, too_late
from kvd.store.faults import fault_of

LARGEST_SINGLE_BYTES: Final = 5 * 1024**3
"""
What S3 takes in one request.
"""

PART_BYTES: Final = 8 * 1024 * 1024
PARTS_PER_SIZE: Final = 1000
"""
Parts grow twofold after so many: an object has at most 10,000, and 5 TiB.
"""


class Part:
    """
    The bytes of a part, in a file of their own.
    """

    def __init__(self) -> None:
        self.length: int | None = 0
        self._file: IO[bytes] = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115

    def write(self, chunk: bytes) -> None:
        """
        Append a chunk.

        Raises:
            OSError: It could not be written.
        """
        assert self.length is not None
        view = memoryview(chunk)
        while view:
            count = self._file.write(view)
            self.length += count
            view = view[count:]

    def rewind(self) -> bool:
        self._file.seek(0)
        return True

    def next_piece(self) -> bytes:
        return self._file.read(PIECE_BYTES)

    def clear(self) -> None:
        """
        Forget the bytes.
        """
        self._file.seek(0)
        self._file.truncate()
        self.length = 0

    def close(self) -> None:
        """
        Remove the file.
        """
        self._file.close()


@implementer(IUpload)
class MultipartUpload(ObjectUpload):
    """
    A value of unknown length, or longer than one request may be; or one that is short
    enough to wait for its last byte.
    """

    _log = Logger()

    def __init__(
        self,
        context: UploadContext,
        key: Key,
        name: str,
        length: int | None,
        metadata: Metadata,
        conditions: Conditions,
    ) -> None:
        """
        Args:
            conditions: Those of the commit, as far as they are known.
        """
        super().__init__(context, key, name, length, metadata)
        self._conditions = conditions
        self._chunks: list[bytes] = []
        self._part: Part | None = None
        self._id = ""
        self._endpoint: Endpoint | None = None
        """Where it began: others may not have heard of it yet."""
        self._tags: list[str] = []
        self._sending: Deferred[None] | None = None

    def write(self, chunk: bytes) -> Answer[None]:
        self._written += len(chunk)
        if self._length is not None and self._written > self._length:
            self._check_length()
        if self._part is None:
            self._chunks.append(chunk)
            if self._written <= BUFFERED_BYTES:
                return None
        try:
            if self._part is None:
                self._part = Part()
                chunk = b"".join(self._chunks)
                self._chunks.clear()
            self._part.write(chunk)
        except OSError as error:
            where = tempfile.gettempdir()
            raise fault_of(error, f"A part of a value waits in {where}") from error
        assert self._part.length is not None
        if self._conditions != UNCONDITIONAL:
            if self._part.length > LARGEST_SINGLE_BYTES:
                raise ValueTooLarge(
                    "A value with conditions may have at most"
                    f" {LARGEST_SINGLE_BYTES} bytes in an engine."
                )
            return None
        if self._part.length < PART_BYTES << len(self._tags) // PARTS_PER_SIZE:
            return None
        self._sending = Deferred.fromCoroutine(self._send_part(self._part))
        return self._sending

    async def _begin_parts(self) -> None:
        """
        Begin the upload at the engine, and end it at once if the client has left.
        """
        fields = fields_of(self._etag, self._metadata, begun=changed_after(None))
        reply = await self._engine.ask(Ask("POST", self._name, "uploads=", fields))
        self._endpoint = reply.endpoint
        document = await self._engine.document(reply)
        self._id = quote(document.findtext("UploadId") or "", safe="")
        if not self._id:
            raise EngineFailed("The engine gave no id to an upload in parts.")
        if self._ended:
            await self._abort()

    async def _send_part(self, part: Part) -> None:
        if not self._id:
            # The engine may have begun it, so its id has to be heard in any case.
            await self._context.underway.shield(self._begin_parts())
        part.rewind()
        query = f"partNumber={len(self._tags) + 1}&uploadId={self._id}"
        reply = await self._engine.ask(
            Ask("PUT", self._name, query, body=part, endpoint=self._endpoint)
        )
        self._engine.dismiss(reply)
        self._tags.append(reply.field("ETag"))
        part.clear()

    async def _commit(self, conditions: Conditions) -> Published:
        try:
            self._check_length()
            if not self._id:
                whole = self._part or b"".join(self._chunks)
                return await self._publish_whole(whole, conditions)
            if conditions != UNCONDITIONAL:
                raise too_late(self._key)
            assert self._part is not None
            if self._part.length:
                await self._send_part(self._part)
            return await self._join()
        # Not where the program ends, and nothing is waited for any more.
        except Exception:
            await self._abort()
            raise
        finally:
            self._close()

    async def _join(self) -> Published:
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber>"
            f"<ETag>{escape_xml(tag)}</ETag></Part>"
            for number, tag in enumerate(self._tags, 1)
        )
        body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        query = f"uploadId={self._id}"
        current = await self._current()
        gone = frozenset({404})
        reply = await self._engine.ask(
            Ask(
                "POST",
                self._name,
                query,
                body=body,
                expected=gone,
                endpoint=self._endpoint,
            )
        )
        document = await self._engine.document(reply)
        # If the reply to a first attempt was lost, there are no parts any more.
        if document.tag == "Error" and not await self._is_published():
            code = document.findtext("Code")
            raise EngineFailed(f"The engine did not join the parts ({code}).")
        self._id = ""
        return await self._found(current)

    async def _abort(self) -> None:
        """
        Have the engine forget the parts.
        """
        upload, self._id = self._id, ""
        if not upload:
            return
        query, gone = f"uploadId={upload}", frozenset({404})
        try:
            reply = await self._engine.ask(
                Ask(
                    "DELETE",
                    self._name,
                    query,
                    expected=gone,
                    endpoint=self._endpoint,
                )
            )
            self._engine.dismiss(reply)
        except Exception:
            # The bucket's own rule for such uploads removes them.
            self._log.failure("the engine keeps parts of an upload that has ended")

    def _close(self) -> None:
        if self._part is not None:
            self._part.close()

    def discard(self) -> None:
        if self._ended:
            return
        self._ended = True
        if self._sending is not None:
            self._sending.cancel()
        self._close()
        self._context.underway.shield(self._abort())
