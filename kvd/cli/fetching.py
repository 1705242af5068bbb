"""
What ``kvd get`` and ``kvd sync`` fetch: one value, into one file or stream.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.task import deferLater

from kvd.cli.errors import unwritable
from kvd.cli.keys import shown
from kvd.cli.progress import Begin, Moved
from kvd.cli.target import Target, open_target
from kvd.client import Absent, BrokenOff, Client, ConditionFailed, Value

RESUMES: Final = 3
RESUME_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class Download:
    """
    A key, and where its value goes.
    """

    key: bytes
    path: str
    size: int = 0
    """For the sum of the progress."""
    etag: str | None = None
    """Of the value that a listing showed; None: it was not listed."""
    changed_ms: int | None = None
    """When that was stored: the time of the file, if no other value is fetched."""
    is_exact: bool = False
    """Whether another value than the listed one is refused."""

    def subject_of(self, _: Exception) -> str:
        """
        What a failure is about.
        """
        return shown(self.key)


async def fetch(client: Client, download: Download, begin: Begin) -> None:
    """
    Fetch one value.

    Args:
        client: Fetches it.
        download: Its key, and where it goes.
        begin: Shows its progress.

    Raises:
        ClientError: It could not be fetched.
        LocalError: It could not be written.
    """
    with ExitStack() as stack:
        target = stack.enter_context(open_target(download.path))
        value = await _Fetch(client, download, target, begin, stack).run()
        is_listed = value.etag == download.etag
        target.finish(download.changed_ms if is_listed else None)


class _Fetch:
    """
    One download, resumed where its connection was lost.
    """

    def __init__(
        self,
        client: Client,
        download: Download,
        target: Target,
        begin: Begin,
        stack: ExitStack,
    ) -> None:
        self._client = client
        self._key = download.key
        self._etag = download.etag if download.is_exact else None
        self._target = target
        self._begin = begin
        self._stack = stack
        self._written = 0
        self._value: Value | None = None
        self._moved: Moved

    async def run(self) -> Value:
        """
        Download the whole value.
        """
        from twisted.internet import reactor as installed

        clock: Any = installed
        for _ in range(RESUMES):
            written = self._written
            try:
                return await self._continue()
            except BrokenOff:
                if self._written == written:
                    raise
            await deferLater(clock, RESUME_SECONDS)
        return await self._continue()

    async def _continue(self) -> Value:
        # Only the same value: the rest of another one does not belong to it.
        etag = self._etag if self._value is None else self._value.etag
        if self._value is not None and self._written == self._value.size:
            return self._value
        try:
            return await self._client.get(
                self._key, self, offset=self._written, if_match=etag, begun=self._begun
            )
        except (Absent, ConditionFailed) as error:
            if self._value is None:
                raise
            raise BrokenOff(
                "The connection was lost, and the value was replaced or removed"
                " before the rest of it could be fetched."
            ) from error

    def _begun(self, value: Value) -> None:
        if self._value is None:
            self._value = value
            shown_bar = self._begin(shown(self._key), value.size)
            self._moved = self._stack.enter_context(shown_bar)

    def write(self, data: bytes) -> None:
        """
        See `kvd.client.client.ISink`.
        """
        try:
            self._target.write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise unwritable(self._target.name, error) from error
        self._written += len(data)
        self._moved(len(data))
