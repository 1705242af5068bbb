"""
The uploads of a file store that can be resumed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from kvd.errors import BadRequest
from kvd.interfaces import Answer, IResumableUpload, IResumableUploads
from kvd.model.keys import Key, escape
from kvd.model.uploads import UploadRecord
from kvd.store.faults import fault_of
from kvd.store.reservation import Reservation
from kvd.store.resuming import (
    Found,
    ResumableFolder,
    ResumableUpload,
    absent,
    lock,
)
from kvd.store.upload import FileUpload, UploadContext

SWEEP_EVERY_SECONDS: Final = 3600.0
"""
How often a process looks for uploads that have expired, as long as there are any.
"""

_log = Logger()


@implementer(IResumableUploads)
class Resumption:
    """
    Begins uploads that can be resumed, and finds them again.
    """

    def __init__(
        self,
        folder: ResumableFolder,
        shared: UploadContext,
        begin: Callable[[UploadRecord], Answer[FileUpload]],
        reserve: Callable[[Key, int | None, int], Reservation],
        limit_of: Callable[[Key], float],
        clock: IReactorTime,
    ) -> None:
        """
        Args:
            folder: Where they are.
            shared: What all uploads of the store share.
            begin: Begins an upload of the store.
            reserve: Called with a key, the length of its value and how many bytes of
                that are to be written; holds the room for it, or raises `StoreFull`.
            limit_of: Gives how many bytes values may take where a key is.
            clock: Says when to remove what has expired.
        """
        self._folder = folder
        self._shared = shared
        self._begin = begin
        self._reserve = reserve
        self._limit_of = limit_of
        self._clock = clock
        self._sweeping: IDelayedCall | None = None
        if folder.exists:
            self._sweep()

    def _sweep(self) -> None:
        """
        Remove the uploads that have expired, and look again later if others are left.
        """
        self._sweeping = None
        try:
            left, _ = self._folder.sweep()
        except OSError as error:
            _log.warn("uploads that have expired stay: {reason}", reason=error)
            left = 1
        if left:
            self._sweep_later()

    def _sweep_later(self) -> None:
        if self._sweeping is None:
            self._sweeping = self._clock.callLater(SWEEP_EVERY_SECONDS, self._sweep)

    def close(self) -> None:
        """
        Leave the uploads as they are.
        """
        sweeping, self._sweeping = self._sweeping, None
        if sweeping is not None:
            sweeping.cancel()

    def begin(self, record: UploadRecord) -> Answer[IResumableUpload | None]:
        limit = self._limit_of(record.key)
        try:
            if not self._folder.has_room(time.monotonic(), record.length or 0, limit):
                return None
        except OSError as error:
            raise fault_of(error, _cannot("begin", record.key)) from error
        answer = self._begin(record)
        if isinstance(answer, Deferred):
            return answer.addCallback(self._keep, record)
        return self._keep(answer, record)

    def _keep(
        self, upload: FileUpload, record: UploadRecord
    ) -> IResumableUpload | None:
        descriptor, name = upload.leave()
        uploads = self._shared.uploads
        try:
            lock(descriptor)
            identity = self._folder.take(uploads.descriptor, name, record)
        except OSError as error:
            uploads.remove(name)
            upload.discard()
            raise fault_of(error, _cannot("begin", record.key)) from error
        self._sweep_later()
        limit = self._limit_of(record.key)
        return ResumableUpload(upload, self._folder, identity, record, 0, limit)

    def resume(
        self, identity: str, key: Key, user: str | None, length: int | None
    ) -> ResumableUpload:
        record = self._find(identity, key, user).record
        if record.done:
            raise absent()
        descriptor = self._folder.hold(identity)
        try:
            size = os.fstat(descriptor).st_size
            record = self._with_length(identity, record, length, size)
            room = self._reserve(key, record.length, (record.length or size) - size)
        except BaseException as error:
            os.close(descriptor)
            if isinstance(error, OSError):
                raise fault_of(error, _cannot("go on", key)) from error
            raise
        upload = FileUpload(
            key,
            record.length,
            record.metadata,
            self._shared,
            reservation=room,
            file=(descriptor, b""),
            written=size,
        )
        limit = self._limit_of(key)
        return ResumableUpload(upload, self._folder, identity, record, size, limit)

    def _with_length(
        self, identity: str, record: UploadRecord, length: int | None, size: int
    ) -> UploadRecord:
        """
        What is known of an upload, with the length that the client has said now.
        """
        if length is None or length == record.length:
            return record
        if record.length is not None or length < size:
            whole = "" if record.length is None else f" of {record.length}"
            raise BadRequest(
                f"The upload has {size}{whole} bytes; with this request the value would"
                f" have {length}."
            )
        record = replace(record, length=length)
        self._folder.describe(identity, record)
        return record

    def look(
        self, identity: str, key: Key, user: str | None
    ) -> tuple[UploadRecord, int]:
        found = self._find(identity, key, user)
        if found.size is None:
            return found.record, found.record.length or 0
        return found.record, found.size

    def cancel(self, identity: str, key: Key, user: str | None) -> None:
        try:
            if self._find(identity, key, user).record.done:
                self._folder.remove(identity)
            else:
                self._folder.remove_idle(identity)
        except OSError as error:
            raise fault_of(error, _cannot("be removed", key)) from error

    def _find(self, identity: str, key: Key, user: str | None) -> Found:
        try:
            found = self._folder.find(identity)
        except OSError as error:
            raise fault_of(error, _cannot("be found", key)) from error
        if (found.record.key, found.record.user) != (key, user):
            raise absent()
        return found


def _cannot(do: str, key: Key) -> str:
    return f"The upload of /{escape(key)} cannot {do}"
