"""
What a dialect may ask of the store while it answers one request.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Final, Protocol, TypeVar

from kvd.model.conditions import UNCONDITIONAL, Conditions
from kvd.model.digests import Digest
from kvd.model.keys import Key
from kvd.model.uploads import PartInfo
from kvd.model.values import NO_METADATA, Entry, Metadata, Published, ValueInfo

SMALL_BYTES: Final = 1024 * 1024
"""
The longest value that is read or written whole, and the longest body of a request that
a dialect reads.
"""


E = TypeVar("E")


async def first_slice(slices: AsyncGenerator[Sequence[E], None]) -> Sequence[E]:
    """
    The first slice of a listing, empty if there is none; the others still come from the
    generator. A walk that fails at its start fails here, where it can be told.
    """
    # Not anext(slices, ()): Python 3.11 fails if the default is a tuple.
    async for each in slices:
        return each
    return ()


class Values(Protocol):
    """
    The values of the store, as far as the sender of one request may use them. What the
    sender may not do raises `AccessRefused` before the store is asked.

    A value that is written or copied keeps the rules of its prefix (write once, content
    addressed). Each call is one atomic step of the store, and no two are one together:
    give conditions where a later step depends on an earlier one.
    """

    durability: str
    """See `IStore.durability`."""
    scheme: str
    """That of URLs by which the client reaches kvd: ``https`` if its connection to kvd
    has TLS, else ``http``."""

    @property
    def user(self) -> str | None:
        """
        The user who sends the request; None: nobody whom kvd knows.
        """

    @property
    def network(self) -> str:
        """
        Where the request comes from: `kvd.access.networks.network_of` its client.
        """

    def is_elsewhere(self, key: bytes) -> bool:
        """
        Whether a key belongs to another dialect, spoken below a prefix within that of
        this one (`kvd.http.dialects.choice.Mount`). It can be read and listed; whatever
        would change it raises `Forbidden`, since that dialect may have locks and names
        of its own there.
        """

    async def stat(self, key: Key) -> ValueInfo | None:
        """
        Describe a value; None if there is none. Needs the right to read.
        """

    async def read(self, key: Key) -> tuple[ValueInfo, bytes] | None:
        """
        Read a small value; None if there is none. Needs the right to read.

        Raises:
            ValueTooLarge: It has more than `SMALL_BYTES`.
        """

    async def write(
        self,
        key: Key,
        data: bytes,
        conditions: Conditions = UNCONDITIONAL,
        metadata: Metadata = NO_METADATA,
    ) -> Published:
        """
        Write a small value; raises what `IUpload.commit` raises. With a condition this
        is a compare-and-swap, between workers too. Needs the right to write.
        """

    async def copy(
        self,
        source: Key,
        target: Key,
        conditions: Conditions = UNCONDITIONAL,
        metadata: Metadata | None = None,
        of_source: Conditions = UNCONDITIONAL,
    ) -> Published:
        """
        Copy a value, however large, as it is when the copy begins. The copy is
        published like an upload: other readers see all of it or nothing. Needs the
        right to read the source, and to write the target.

        Args:
            source: The key of the value.
            target: Where the copy is published; may be the source.
            conditions: What must be true of the target when it is published.
            metadata: Of the copy; None: that of the source.
            of_source: What must be true of the source.

        Raises:
            KeyAbsent: The source has no value.
        """

    async def remove(self, key: Key, conditions: Conditions = UNCONDITIONAL) -> None:
        """
        Remove a value; raises what `IStore.remove` raises. Needs the right to delete.
        """

    async def move(
        self, source: Key, target: Key, conditions: Conditions = UNCONDITIONAL
    ) -> Published:
        """
        Copy a value and then remove the source, unless it has changed meanwhile. In
        between both can be read; a failure leaves at least one. Needs the rights of
        `copy` and `remove`.

        Raises:
            PreconditionFailed: A condition does not hold; or the source has changed
                since it was copied, and was left.
        """

    def folder(
        self, prefix: bytes, after: bytes = b"", limit: int | None = None
    ) -> AsyncGenerator[Sequence[Entry], None]:
        """
        The values in one folder, and its folders that have values anywhere below, in
        slices as of `IFolderStore.list_folder`. Needs the right to list.
        """

    async def has_values(self, prefix: bytes) -> bool:
        """
        Whether any value has a key that begins with a prefix. Needs the right to list.
        """

    def list(
        self, prefix: bytes, after: bytes = b"", limit: int | None = None
    ) -> AsyncGenerator[Sequence[ValueInfo], None]:
        """
        The values below a prefix, in slices as of `IStore.list`. Needs the right to
        list.
        """

    async def can_lock(self) -> bool:
        """
        Whether `keep_locks` can be used: whether the store keeps its condition.
        """

    async def locks(self, prefix: bytes) -> tuple[ValueInfo | None, bytes]:
        """
        What is recorded of the locks on keys below a prefix, as the store has it now,
        and what `keep_locks` needs to change it. Needs no right, because whoever
        changes a value has to heed the locks of others.

        Args:
            prefix: Empty, or ending with ``/``.

        Raises:
            ValueTooLarge: It has more than `SMALL_BYTES`.
        """

    async def keep_locks(
        self, prefix: bytes, data: bytes, known: ValueInfo | None
    ) -> None:
        """
        Record something else of the locks on keys below a prefix. Needs no right: the
        dialect asks for that of writing what is locked (`Exchange.needs`).

        Args:
            prefix: See `locks`.
            data: What is recorded from now on.
            known: As `locks` gave it.

        Raises:
            PreconditionFailed: Another one was recorded since.
            ConditionUnsupported: The store cannot keep this condition.
        """

    async def begin_parts(self, folder: bytes, key: Key, metadata: Metadata) -> str:
        """
        Begin a value that is uploaded in parts. Needs the right to write the key.

        Args:
            folder: The prefix of keys below which such uploads are listed; that of the
                key begins with it.
            key: Where the value is published.
            metadata: Of the value.

        Returns:
            The name of the upload, which cannot be guessed.

        Raises:
            StoreBusy: Too many uploads in the folder are not completed.
        """

    async def parts_of(
        self, folder: bytes, key: Key, upload: str
    ) -> Sequence[PartInfo]:
        """
        The parts that have come so far, in the order of their numbers. Needs the right
        to write the key.

        Raises:
            UploadAbsent: There is no such upload of this key.
        """

    async def check_upload(self, folder: bytes, key: Key, upload: str) -> None:
        """
        Raises what `parts_of` raises, without looking for parts.
        """

    async def copy_part(
        self,
        folder: bytes,
        key: Key,
        upload: str,
        number: int,
        source: Key,
        part: tuple[int, int] | None,
        of_source: Conditions = UNCONDITIONAL,
    ) -> PartInfo:
        """
        Copy a value, or a part of one, as a part of an upload. Needs the right to read
        the source, and to write the key.

        Args:
            folder: See `begin_parts`.
            key: Of the upload.
            upload: Its name.
            number: Of the part.
            source: The key of the value.
            part: The first byte and the last one; None: all of it.
            of_source: What must be true of the source.

        Raises:
            UploadAbsent: There is no such upload of this key.
            KeyAbsent: The source has no value.
            PreconditionFailed: A condition does not hold.
            RangeNotSatisfiable: The source has no such bytes.
        """

    async def join_parts(
        self,
        folder: bytes,
        key: Key,
        upload: str,
        parts: Sequence[PartInfo],
        conditions: Conditions = UNCONDITIONAL,
        digests: Sequence[Digest] = (),
    ) -> Published:
        """
        Publish a value that consists of parts, in their order, in one step like any
        other; then the upload is removed. Needs the right to write the key.

        Args:
            folder: See `begin_parts`.
            key: Where.
            upload: Its name.
            parts: Some of those of `parts_of`.
            conditions: What must be true of the key when the value is published.
            digests: What the value has to have. For them all parts are read.

        Raises:
            DigestMismatch: It has another one; the parts stay.
            UploadAbsent: There is no such upload of this key, or no longer.
            ValueTooLarge: A value may not be so large.
        """

    async def joined(
        self, folder: bytes, key: Key, upload: str, parts: Iterable[tuple[int, str]]
    ) -> ValueInfo | None:
        """
        Describe the value that `join_parts` made of parts, if the key has it still;
        None if not, or if it cannot be told, because the value has much metadata. Needs
        the right to write the key.

        Args:
            folder: See `begin_parts`.
            key: Where it was published.
            upload: The name of the upload.
            parts: The number and the entity tag of each.
        """

    async def drop_parts(self, folder: bytes, key: Key, upload: str) -> None:
        """
        Remove an upload with its parts. Needs the right to write the key.

        Raises:
            UploadAbsent: There is no such upload of this key.
        """

    async def uploads(self, folder: bytes) -> Sequence[tuple[Key, str, float]]:
        """
        The uploads in a folder that are not completed: each with its key, its name and
        when it began. Needs the right to list the folder.
        """
