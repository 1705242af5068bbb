"""
Reads one value from the store into the cache while clients read it from there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from kvd.errors import KvdError
from kvd.interfaces import IUpload, IValue
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import escape
from kvd.store.waiting import resolved

CHUNK_BYTES: Final = 256 * 1024
"""
How much is read at once.
"""

AHEAD_BYTES: Final = 1024 * 1024
"""
How far behind the end of what is there a client may begin to read, and wait. A client
that wants a part further away gets it from the store.
"""

_log = Logger()


class _NobodyReads(Exception):
    """
    All clients have left, and most of the value is still missing.
    """


class Filling:
    """
    A value on its way into the cache.

    It is read as fast as the disk takes it, so the memory that it needs is constant. If
    it fails, for any reason, clients go on reading from the store.
    """

    def __init__(
        self,
        value: IValue,
        upload: IUpload,
        ended: Callable[[], None],
        clock: IReactorTime,
    ) -> None:
        """
        Args:
            value: The value in the store; closed at the end.
            upload: To the cache, with a descriptor; committed or discarded at the end.
            ended: Called at the end.
            clock: Lets the reactor do other work between two chunks.

        Raises:
            OSError: This process can open no more files.
        """
        self.readers = 0
        self._value = value
        self._upload = upload
        # The upload's is for writing only.
        self._descriptor = os.open(f"/proc/self/fd/{upload.fileno()}", os.O_RDONLY)
        self._clock = clock
        self._reading: Deferred[bytes] | None = None
        self._filled = 0
        self._is_over = self._is_stopped = False
        self._waiting: list[Deferred[None]] = []
        self._ended = ended

    def stop(self) -> None:
        """
        End it as soon as possible. The store may never answer.
        """
        self._is_stopped = True
        if self._reading is not None:
            self._reading.cancel()

    async def run(self) -> None:
        """
        Read the value. There must be a reader.
        """
        size = self._value.info.size
        try:
            while self._filled < size:
                if self._filled:
                    # A store on a file server answers at once.
                    await deferLater(self._clock, 0)
                if self._is_stopped or self._is_for_nobody():
                    raise _NobodyReads
                chunk = await self._next_chunk()
                await resolved(self._upload.write(chunk))
                self._filled += len(chunk)
                self._wake()
            await resolved(self._upload.commit(UNCONDITIONAL))
        except (_NobodyReads, CancelledError):
            self._upload.discard()
        except KvdError as error:
            self._upload.discard()
            _log.warn(
                "/{key} does not get into the near cache: {reason}",
                key=escape(self._value.info.key),
                reason=error.sentence,
            )
        except BaseException:
            self._upload.discard()
            raise
        finally:
            self._is_over = True
            self._value.close()
            self._release()
            self._ended()
            self._wake()

    async def _next_chunk(self) -> bytes:
        answer = self._value.read(self._filled, CHUNK_BYTES)
        if not isinstance(answer, Deferred):
            return answer
        self._reading = answer
        try:
            return await answer
        finally:
            self._reading = None

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    async def read(self, offset: int, count: int) -> bytes | None:
        """
        Read what is there, and wait for what comes next.

        Returns:
            At least one byte; None: these bytes do not come from here.
        """
        while offset >= self._filled:
            if self._is_over or offset > self._filled + AHEAD_BYTES:
                return None
            waiting: Deferred[None] = Deferred()
            self._waiting.append(waiting)
            await waiting
        try:
            return os.pread(self._descriptor, min(count, self._filled - offset), offset)
        except OSError as error:
            _log.warn("the near cache cannot be read: {reason}", reason=error)
            return None

    def leave(self) -> None:
        """
        A reader leaves.
        """
        self.readers -= 1
        if not self._is_over and self._is_for_nobody():
            # The store may not answer for long.
            self.stop()
        self._release()

    def _is_for_nobody(self) -> bool:
        """
        Whether nobody reads, and most of it is still to come.
        """
        return not self.readers and 2 * self._filled < self._value.info.size

    def _release(self) -> None:
        if self._is_over and not self.readers and self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
