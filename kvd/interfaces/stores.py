"""
What stores provide.

An *answer* (`Answer`) is a result or a Deferred of one. A store on a local disk returns
results directly where it does not wait; a remote store returns Deferreds. An exception
is raised, or the Deferred fails with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from kvd.errors import StoreFault
from kvd.model.conditions import UNCONDITIONAL, Conditions
from kvd.model.keys import Key
from kvd.model.uploads import UploadRecord
from kvd.model.values import NO_METADATA, Entry, Metadata, Published, ValueInfo
from kvd.settings import Bounds, Durability, Modes, User

T = TypeVar("T")
Answer: TypeAlias = T | Deferred[T]


class IValue(Interface):
    """
    An open value. Its information and its bytes are those of the moment when it was
    opened, whatever happens to its key later.
    """

    info: ValueInfo = Attribute("Describes the value.")

    def fileno() -> int | None:
        """
        A descriptor of a regular file that holds exactly the value's bytes from offset
        0, or None if the store has none. It belongs to the value; do not seek or close
        it.
        """

    def read(offset: int, count: int) -> Answer[bytes]:
        """
        Read bytes of the value. If the answer is a Deferred, it may be cancelled; then
        only `close` follows.

        Args:
            offset: Where to begin, below the value's size.
            count: How many bytes at most; the answer has at least one.

        Raises:
            StoreFault: They cannot be read.
        """

    def close() -> None:
        """
        Release what the value holds. Further calls do nothing.
        """


class IStreamedValue(IValue):
    """
    A value that comes over a connection, whose bytes the kernel can move on.
    """

    def socket(offset: int) -> tuple[int, int] | None:
        """
        The descriptor of a socket on which the value's bytes come from this offset on,
        and how many may be taken there at most; or None where there is none. `read` the
        others. May change with every piece.

        The socket is the value's: do not close it. Report to `taken` what you took.
        """

    def watch(
        count: int,
        take: Callable[[], int],
        failed: Callable[[StoreFault], object],
    ) -> None:
        """
        Have bytes taken from the socket whenever some, or the end, have come, until
        nothing is waited for any more, or the value is closed.

        Args:
            count: How many bytes are to come; more than 0.
            take: Takes what has come, and returns how many bytes are to come then; 0:
                nothing is waited for any more. It may be called before so many have
                come, or any.
            failed: Called in place of it if none came for too long; then nothing is
                waited for any more.
        """

    def taken(count: int, ended: bool) -> None:
        """
        Bytes were taken from the socket, which nobody waits for any more.

        Args:
            count: How many.
            ended: Whether the socket has ended or failed. If that was before the end of
                the value, `read` gives the bytes that follow, if it can.
        """


class ICachedValue(IValue):
    """
    A value of a store with a cache.
    """

    cache_status: str = Attribute(
        "Where it came from, as a member of ``Cache-Status`` (RFC 9211)."
    )

    def lose_file() -> bool:
        """
        The file of `fileno` cannot be read, or is too short. Returns whether `read`
        gives the same bytes from elsewhere; then `fileno` gives None from now on.
        """


class IUpload(Interface):
    """
    A value that is being written. No reader sees it before `commit`.

    An upload ends with exactly one `commit` or `discard`; a commit that fails discards
    it.
    """

    def write(chunk: bytes) -> Answer[None]:
        """
        Append a chunk. The upload keeps none of it in memory. If the answer is a
        Deferred, the caller waits for it before the next chunk.

        Raises:
            StoreFull: There is no room; the upload can only be discarded.
            StoreFault: The chunk could not be written; likewise.
        """

    def fileno() -> int | None:
        """
        A descriptor to which the caller may splice or write the rest of the value, or
        None if the store has none. Its offset is the end of what was written. Do not
        close it.
        """

    def commit(conditions: Conditions) -> Answer[Published]:
        """
        Publish the value under its key if the conditions hold. The check and the
        publication are one atomic step: several commits of one key, in any processes,
        take effect one after the other.

        When the answer arrives, the value is as durable as the store promises.

        Raises:
            PreconditionFailed: A condition does not hold.
            ConditionUnsupported: The store cannot keep such a condition.
            KeyConflict: The key has become a folder, or a part of its path is a value.
            StoreFull: There is no room for the name.
            StoreBusy: Another process keeps the key locked.
            SyncFailed: The disk did not confirm the write.
            StoreFault: Anything else. In all these cases the old value stays, except
                that after a `SyncFailed` either value may be there.
        """

    def discard() -> None:
        """
        Discard the upload and everything that it has written. Further calls do nothing.
        A `write` may still be waited for, or `IStreamedUpload.room`: nobody needs the
        answer.
        """


class IStreamedUpload(Interface):
    """
    What an upload adapts to that goes on over a connection, to which the kernel can
    move its bytes.
    """

    movable: int = Attribute(
        "How many of the next bytes may be moved. Those after them have to be written."
    )

    queued: bool = Attribute(
        "Whether bytes that were written wait for the socket; then wait for `room`."
    )

    def socket() -> int | None:
        """
        The descriptor of a socket to which the next bytes may be moved, or None where
        there is none; then `IUpload.write` them. May change with every piece.

        The socket is the upload's: do not close it. Report to `moved` what it took.
        """

    def moved(count: int) -> None:
        """
        The socket has taken so many bytes.
        """

    def room() -> Deferred[None]:
        """
        Wait until nothing is queued, and the socket takes more.

        Raises:
            StoreFault: It never will: the upload has failed.
        """


class IListing(Interface):
    """
    A walk over stored values.
    """

    def next_slice() -> Answer[Sequence[ValueInfo]]:
        """
        Return the next values, or an empty sequence at the end.

        A call takes bounded time and memory, and does not block the reactor. Only one
        call may be active. A value that is published or removed during the walk may or
        may not be listed; a value that stays is listed exactly once. If the answer is a
        Deferred, it may be cancelled; then only `close` follows.

        Raises:
            StoreFault: The walk cannot continue.
        """

    def close() -> None:
        """
        End the walk. Further calls do nothing.
        """


class IStore(Interface):
    """
    Keeps values under keys.
    """

    durability: str = Attribute(
        "What `IUpload.commit` and `remove` promise: ``disk``, ``process``, ``engine``"
        " if an engine on other machines decides, or ``none`` for a store that keeps"
        " nothing."
    )

    def begin(
        key: Key,
        length: int | None,
        metadata: Metadata = NO_METADATA,
        conditions: Conditions = UNCONDITIONAL,
    ) -> Answer[IUpload]:
        """
        Begin an upload. If the answer is a Deferred, it is cancelled when the client
        leaves before it comes: then nothing of the upload is kept.

        Args:
            key: The key of the value.
            length: The size of the value in bytes, or None if it is not known yet. To
                commit after more or fewer bytes is a mistake of the caller.
            metadata: Stored with the value; at most `MAX_METADATA_BYTES`.
            conditions: Those that `IUpload.commit` will be called with, as far as they
                are known: a store that sends the value ahead may need them before its
                first byte, and refuses others then with `StoreBusy`.

        Raises:
            KeyConflict: The key is a folder of other keys, or a part of its path is
                another key's value.
            PreconditionFailed: A condition does not hold.
            ConditionUnsupported: The store cannot keep such a condition.
            StoreFull: There is no room for a value of this length.
            StoreFault: The upload cannot be opened.
        """

    def open(key: Key, whole: bool = False) -> Answer[IValue]:
        """
        Open a value for reading. If the answer is a Deferred, it is cancelled when the
        client leaves before it comes: then nothing stays open.

        Args:
            key: The key.
            whole: The caller is going to read all of it, from the first byte on. A
                store that has the value elsewhere may ask for all of it at once then;
                nothing else depends on this.

        Raises:
            KeyAbsent: The key has no value.
            StoreFault: It cannot be read.
        """

    def stat(key: Key) -> Answer[ValueInfo]:
        """
        Describe a value. Raises what `open` raises. If the answer is a Deferred, it may
        be cancelled.
        """

    def remove(key: Key, conditions: Conditions) -> Answer[None]:
        """
        Remove a value if the conditions hold, in one atomic step. Values that are open
        stay readable. When the answer arrives, the removal is as durable as the store
        promises.

        Raises:
            KeyAbsent: The key has no value, whatever the conditions (RFC 9110 section
                13.2.1).
            PreconditionFailed: A condition does not hold.
            ConditionUnsupported: The store cannot keep such a condition.
            StoreBusy: Another process keeps the key locked.
            SyncFailed: The disk did not confirm the removal; the value may be gone.
            StoreFault: Anything else.
        """

    def list(prefix: bytes, after: bytes, limit: int | None) -> IListing:
        """
        List the values whose keys begin with a prefix.

        Args:
            prefix: Empty, or ending with ``/``. If no key has it, the listing is empty.
            after: With a limit, only keys greater than this are listed, compared as
                bytes; may be empty.
            limit: None lists all values in no order, slice by slice, in constant
                memory. A number lists that many values at most, in the order of their
                keys' bytes, as one slice.
        """

    def close() -> Answer[None]:
        """
        Release everything that the store holds. Called once, after the last upload has
        ended.
        """


class IFolderListing(Interface):
    """
    A walk over one folder.
    """

    def next_slice() -> Answer[Sequence[Entry]]:
        """
        Return the next values and folders, or an empty sequence at the end; like
        `IListing.next_slice`.
        """

    def close() -> None:
        """
        End the walk. Further calls do nothing.
        """


class IFolderStore(IStore):
    """
    A store that lists one folder in less time than all that is below it, and need not
    list it to say whether it has values. Of other stores, `kvd.store.level` skips what
    is below.
    """

    def list_folder(prefix: bytes, after: bytes, limit: int | None) -> IFolderListing:
        """
        List the values in one folder, and its folders that have values anywhere below,
        but not those values.

        Args:
            prefix: See `list`.
            after: See `list`; compared with keys, and with the prefixes of folders.
            limit: See `list`; values and folders count alike.
        """

    def has_values(prefix: bytes) -> Answer[bool]:
        """
        Whether any value has a key that begins with a prefix. A value that is published
        or removed meanwhile may or may not count.

        Args:
            prefix: See `list`.

        Raises:
            StoreFault: That cannot be found out now.
        """


class IGlancingStore(IStore):
    """
    A store that can say at little cost that a key has no value.
    """

    def lacks(key: Key) -> bool:
        """
        Whether it is certain that a key has no value now. It is not where that would
        have to be looked for more closely: then ask `IStore.stat`.
        """


class IHits(Interface):
    """
    Is told which values a store with a cache has in files, and serves them from there.
    """

    def offer(
        info: ValueInfo, file: ValueInfo, until: float, cache_status: str
    ) -> None:
        """
        A key may be served from a file of the cache.

        Args:
            info: Describes the value.
            file: Describes the file, as a value of the cache.
            until: When that ends, by the clock of the store.
            cache_status: See `ICachedValue`.
        """

    def withdraw(key: Key) -> None:
        """
        A key may be served no longer. One that was not offered is ignored.
        """


class IConditionalStore(IStore):
    """
    A store that may be unable to keep conditions. Those without this interface keep all
    of them, unless they keep no values.
    """

    def keeps_conditions() -> Answer[bool]:
        """
        Whether a value can be made only where there is none, and be replaced only if it
        is the one that was found: of several clients that try, one succeeds.

        Raises:
            StoreFault: That cannot be found out now.
        """


class ICachingStore(IStore):
    """
    A store with a cache in a folder of this machine.
    """

    cache: IStore = Attribute("The store of the cache.")

    hits: IHits | None = Attribute("Is told of values in the cache, if anybody is.")

    def resume(info: ValueInfo, descriptor: int) -> IValue:
        """
        Open a value that was offered to `hits`.

        Args:
            info: As it was offered.
            descriptor: Of its file. The value closes it.
        """


class IResumableUpload(IUpload):
    """
    An upload that several requests write, one after the other. It ends with exactly one
    `commit`, `discard` or `suspend`.

    A commit that fails with a `Fault` suspends it.
    """

    identity: str = Attribute("Names it, and cannot be guessed.")

    record: UploadRecord = Attribute("What is known of it.")

    offset: int = Attribute("How many bytes it had when this request began.")

    def suspend() -> None:
        """
        Keep what was written for another request, in any process.
        """


class IResumableUploads(Interface):
    """
    The uploads of a store that can be resumed.
    """

    def begin(record: UploadRecord) -> Answer[IResumableUpload | None]:
        """
        Begin an upload; raises what `IStore.begin` raises.

        Returns:
            None: there are too many of them.
        """

    def resume(
        identity: str, key: Key, user: str | None, length: int | None
    ) -> IResumableUpload:
        """
        Go on with an upload, which nobody else holds until this request ends.

        Args:
            identity: Names it.
            key: The key of the value.
            user: Who asks.
            length: Of the whole value, if the client has said it now.

        Raises:
            UploadAbsent: There is none, or it is of another key or user, or done.
            StoreBusy: Another request holds it.
            BadRequest: The length is another one than before, or less than was written.
            StoreFull: There is no room for the rest.
        """

    def look(identity: str, key: Key, user: str | None) -> tuple[UploadRecord, int]:
        """
        What is known of an upload, and how many bytes it has.

        Raises:
            UploadAbsent: See `resume`, except that it may be done.
        """

    def cancel(identity: str, key: Key, user: str | None) -> None:
        """
        Remove an upload.

        Raises:
            UploadAbsent: See `resume`, except that it may be done.
            StoreBusy: A request holds it.
        """


class IResumingStore(IStore):
    """
    A store with uploads that can be resumed.
    """

    resumable: IResumableUploads = Attribute("They.")


class IStoreMaker(Interface):
    """
    The object that a store plugin names: checks a location and opens the store there.
    """

    def resolve(path: str) -> str:
        """
        Return a location, the part of the setting after the colon, in a form that does
        not depend on the current folder. Touches no file.

        Raises:
            BadSetting: The text cannot be a location of this store.
        """

    def prepare(path: str) -> None:
        """
        Create what is missing and check that the store will work. Called once, in the
        supervisor, before any worker starts.

        Raises:
            StoreUnusable: It will not work; the sentence says why.
        """

    def open_store(path: str, durability: Durability) -> IStore:
        """
        Open the store in this process, whose reactor runs or is about to run.

        Raises:
            StoreUnusable: It cannot be opened.
        """


class IHeldStoreMaker(IStoreMaker):
    """
    A store plugin whose location is a name that may later refer to something else, such
    as a folder that was moved away and created again. The supervisor opens the location
    at the start, and all workers open the store in what it has opened.
    """

    def hold(path: str) -> int:
        """
        Open the location. Called once, in the supervisor, after `prepare`.

        Returns:
            A descriptor.

        Raises:
            StoreUnusable: It cannot be opened.
        """

    def open_held(path: str, durability: Durability, held: int) -> IStore:
        """
        Like `open_store`, but in the location that `hold` opened, even if the path
        refers to something else now.

        Args:
            path: For messages; if it refers to something else now, that is worth a
                warning.
            durability: The durability that the store promises.
            held: A copy of the descriptor that `hold` returned; the caller closes it.

        Raises:
            StoreUnusable: It cannot be opened.
        """


class IFileStoreMaker(IStoreMaker):
    """
    An `IStoreMaker` whose store creates files.
    """

    def making(modes: Modes, user: User | None) -> IStoreMaker:
        """
        Return a maker like this one, whose store creates files with these modes and as
        this user.

        Args:
            modes: The permissions of new files and folders, whatever the umask.
            user: The user that this process will run as when it opens the store.
                `prepare` gives what it creates to that user and tests the store as that
                user. None: the process keeps its user.
        """


class IEngineStoreMaker(IStoreMaker):
    """
    An `IStoreMaker` whose store is an engine on other machines: it decides how durable
    values are, and creates no files here. While kvd runs, `prepare` is called again, in
    a thread, to see whether the engine can be used.
    """

    def load() -> None:
        """
        Import what the store needs. Called before workers are forked.
        """

    def share(path: str, other: str) -> bool:
        """
        Whether the stores at two paths have the same values, however they are written.
        """


class IBoundedStoreMaker(IStoreMaker):
    """
    An `IStoreMaker` whose store can have limits.
    """

    def bounded(bounds: Bounds, usage: int, row: int) -> IStoreMaker:
        """
        Return a maker like this one, whose store has limits.

        Args:
            bounds: The limits.
            usage: A descriptor of the memory in which all processes count
                (`kvd.store.usage`); the caller keeps it open.
            row: The row of this process in that memory.
        """
