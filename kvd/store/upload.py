"""
A value of the file store while it is written.

    open ──commit──> committing ──> ended
      └───discard──────────────────^

While a commit is on its way, `discard` does nothing: a thread may be syncing
the file, and the commit alone says what becomes of it. When it ends, for
whatever reason, the file is either under its key or gone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial

from twisted.internet.defer import Deferred
from zope.interface import implementer

from kvd.conditions import Conditions
from kvd.errors import StoreFault
from kvd.interfaces import Answer, IUpload, Metadata, Published, ValueInfo
from kvd.keys import Key, escape
from kvd.store import attribute
from kvd.store.faults import fault_of
from kvd.store.folders import split
from kvd.store.locks import KeyLocks
from kvd.store.sync import Syncs
from kvd.store.tree import Tree
from kvd.store.uploads import UploadFolder
from kvd.store.waiting import Underway, resolved


@dataclass(frozen=True, slots=True)
class Premises:
    """
    What all uploads of one store use.
    """

    tree: Tree
    uploads: UploadFolder
    locks: KeyLocks
    underway: Underway
    syncs: Syncs | None
    """None at durability ``process``."""


@implementer(IUpload)
class FileUpload:
    """
    A file in the upload folder that will get a key's name.
    """

    def __init__(
        self, key: Key, length: int | None, metadata: Metadata, premises: Premises
    ) -> None:
        """
        Raises:
            OSError: The file cannot be created.
            ValueError: The metadata cannot be kept.
        """
        self._key = key
        self._length = length
        self._metadata = metadata
        self._metadata_lines = attribute.encode_metadata(metadata)
        self._premises = premises
        self._committing = False
        self._descriptor, self._name = premises.uploads.create()

    def write(self, chunk: bytes) -> None:
        try:
            written = os.write(self._descriptor, chunk)
            # A disk that fills up takes a part and refuses the rest.
            while written < len(chunk):
                written += os.write(self._descriptor, memoryview(chunk)[written:])
        except OSError as error:
            raise self._fault_of(error, "written") from error

    def fileno(self) -> int:
        return self._descriptor

    def discard(self) -> None:
        if not self._committing:
            self._end()

    def commit(self, conditions: Conditions) -> Answer[Published]:
        self._committing = True
        premises = self._premises
        if premises.syncs is not None:
            work = self._commit_to_disk(conditions, premises.syncs)
            return premises.underway.shield(work)
        try:
            answer = self._publish(self._seal(), conditions)
        except BaseException:
            self._end()
            raise
        if isinstance(answer, Deferred):
            return premises.underway.shield(self._end_after(answer))
        self._end()
        return answer

    async def _commit_to_disk(self, conditions: Conditions, syncs: Syncs) -> Published:
        try:
            info = self._seal()
            await syncs.file(self._descriptor)
            published = await resolved(self._publish(info, conditions))
        finally:
            self._end()
        await syncs.folders(split(self._key)[0])
        return published

    async def _end_after(self, answer: Deferred[Published]) -> Published:
        try:
            return await answer
        finally:
            self._end()

    def _seal(self) -> ValueInfo:
        """
        Say in the file's attribute which value it is.
        """
        try:
            status = os.fstat(self._descriptor)
            if self._length not in (None, status.st_size):
                raise StoreFault(
                    f"The upload of /{escape(self._key)} has {status.st_size} bytes;"
                    f" it was begun with {self._length}."
                )
            etag = attribute.new_etag()
            os.setxattr(
                self._descriptor,
                attribute.NAME,
                attribute.encode(etag, status.st_size, self._metadata_lines),
            )
        except OSError as error:
            raise self._fault_of(error, "sealed") from error
        return ValueInfo(
            self._key, status.st_size, etag, status.st_mtime, self._metadata
        )

    def _publish(self, info: ValueInfo, conditions: Conditions) -> Answer[Published]:
        act = partial(self._publish_now, info, conditions)
        return self._premises.locks.holding(self._key, act)

    def _publish_now(self, info: ValueInfo, conditions: Conditions) -> Published:
        premises = self._premises
        try:
            replaced = premises.tree.publish(
                premises.uploads, self._name, self._key, conditions
            )
        except OSError as error:
            raise self._fault_of(error, "published") from error
        self._name = b""
        return Published(info, created=not replaced)

    def _end(self) -> None:
        """
        Let go of the file, and of its name unless it became a value.
        """
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        os.close(descriptor)
        if self._name:
            self._premises.uploads.remove(self._name)

    def _fault_of(self, error: OSError, done: str) -> Exception:
        return fault_of(error, f"The upload of /{escape(self._key)} cannot be {done}")
