"""
What every store promises, as tests: whoever writes a store mixes these into a
test case of theirs (from `kvd.testing`).

    class FileStoreTests(StoreContract, SynchronousTestCase):
        def make_store(self) -> IStore:
            return FileStore(...)

`UploadContract` holds even for a store that keeps nothing; `StoreContract` is
for the others. A store whose answers take time overrides `wait_for`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from kvd.conditions import UNCONDITIONAL, Conditions, EntityTags
from kvd.errors import KeyAbsent, KeyConflict, PreconditionFailed
from kvd.interfaces import (
    MAX_METADATA_BYTES,
    NO_METADATA,
    Answer,
    IListing,
    IStore,
    IUpload,
    IValue,
    Metadata,
    Published,
    ValueInfo,
)
from kvd.keys import Key

T = TypeVar("T")

KEY = Key(b"key")
ONCE = Conditions(if_none_match=EntityTags(any=True))


def only(etag: str) -> Conditions:
    """
    The condition that the key holds the value with an entity tag.
    """
    return Conditions(if_match=EntityTags(strong=frozenset({etag})))


class UploadContract:
    """
    What a store promises to who writes.
    """

    def make_store(self) -> IStore:
        """
        A new, empty store. Whoever makes it also cleans it up.
        """
        raise NotImplementedError

    def wait_for(self, answer: Deferred[T]) -> None:
        """
        Let time pass until a Deferred has fired; nothing where they do at once.
        """

    def debris(self) -> Sequence[object]:
        """
        What uploads have left behind in the store, where that can be seen.
        """
        return []

    def result(self, answer: Answer[T]) -> T:
        """
        What an answer is, in whichever way it comes. A failure is raised.
        """
        if not isinstance(answer, Deferred):
            return answer
        self.wait_for(answer)
        results: list[T | Failure] = []
        answer.addBoth(results.append)
        assert results, "no answer came; does wait_for wait for long enough?"
        (result,) = results
        if isinstance(result, Failure):
            result.raiseException()
        assert not isinstance(result, Failure)
        return result

    def error(self, kind: type[Exception], ask: Callable[[], Answer[object]]) -> str:
        """
        The sentence of an exception, which must come from an answer in
        whichever way.
        """
        try:
            self.result(ask())
        except kind as error:
            return str(error)
        raise AssertionError(f"no {kind.__name__} came")

    def begin(
        self,
        store: IStore,
        key: Key = KEY,
        length: int | None = None,
        metadata: Metadata = NO_METADATA,
    ) -> IUpload:
        """
        Begin an upload.
        """
        return self.result(store.begin(key, length, metadata))

    def put(
        self,
        store: IStore,
        key: Key = KEY,
        body: bytes = b"value",
        conditions: Conditions = UNCONDITIONAL,
        metadata: Metadata = NO_METADATA,
    ) -> Published:
        """
        Store a value.
        """
        upload = self.begin(store, key, len(body), metadata)
        self.result(upload.write(body))
        return self.result(upload.commit(conditions))

    # -- the tests ------------------------------------------------------------

    def test_provides_the_interfaces(self) -> None:
        """
        The store and what it gives have all that their interfaces ask for.
        """
        store = self.make_store()
        upload = self.begin(store)

        assert verifyObject(IStore, store)
        assert verifyObject(IUpload, upload)
        assert verifyObject(IListing, store.list(b"", b"", None))
        upload.discard()

    def test_names_its_durability(self) -> None:
        """
        The store says what its answers promise.
        """
        assert self.make_store().durability in ("disk", "process", "none")

    def test_commit_tells_what_was_published(self) -> None:
        """
        A commit answers with the key, the size and the metadata of the value,
        and with an entity tag.
        """
        store = self.make_store()

        published = self.put(store, KEY, b"12345", metadata={"content-type": "a/b"})

        assert published.created
        assert (KEY, 5) == (published.info.key, published.info.size)
        assert {"content-type": "a/b"} == published.info.metadata
        assert published.info.etag

    def test_entity_tags_are_unique_per_write(self) -> None:
        """
        The same bytes under the same key get another entity tag.
        """
        store = self.make_store()

        first, second = self.put(store), self.put(store)

        assert first.info.etag != second.info.etag

    def test_length_may_be_unknown(self) -> None:
        """
        The size of a value whose length was not given is what was written.
        """
        upload = self.begin(self.make_store(), length=None)
        for chunk in (b"some ", b"", b"chunks"):
            self.result(upload.write(chunk))

        assert 11 == self.result(upload.commit(UNCONDITIONAL)).info.size

    def test_discard_may_be_repeated(self) -> None:
        """
        Discarding again, or after a commit, does nothing.
        """
        store = self.make_store()
        discarded = self.begin(store)
        self.result(discarded.write(b"half"))
        discarded.discard()
        discarded.discard()
        committed = self.begin(store)
        self.result(committed.commit(UNCONDITIONAL))
        committed.discard()

        assert [] == self.debris()

    def test_absent_value_does_not_match(self) -> None:
        """
        ``If-Match`` on a key without a value fails, even if it is ``*``.
        """
        store = self.make_store()
        anything = Conditions(if_match=EntityTags(any=True))

        for conditions in (only("some-tag"), anything):
            upload = self.begin(store)
            self.error(PreconditionFailed, lambda: upload.commit(conditions))  # noqa: B023

        assert [] == self.debris()

    def test_absent_value_is_absent_everywhere(self) -> None:
        """
        Opening, asking for and removing what is not there fails alike,
        whatever the conditions.
        """
        store = self.make_store()

        for key in (KEY, Key(b"in/a/folder"), Key(b"n" * 255)):
            self.error(KeyAbsent, lambda: store.open(key))  # noqa: B023
            self.error(KeyAbsent, lambda: store.stat(key))  # noqa: B023
            self.error(KeyAbsent, lambda: store.remove(key, only("x")))  # noqa: B023

    def test_empty_store_lists_nothing(self) -> None:
        """
        A listing of nothing is empty, as a stream, as a page, and again.
        """
        store = self.make_store()

        for prefix in (b"", b"no/such/"):
            for limit in (None, 10):
                listing = store.list(prefix, b"", limit)
                assert [] == [*self.result(listing.next_slice())]
                assert [] == [*self.result(listing.next_slice())]
                listing.close()
                listing.close()

    def test_close_ends_it(self) -> None:
        """
        A store closes after its uploads have ended.
        """
        store = self.make_store()
        self.put(store)

        self.result(store.close())


class StoreContract(UploadContract):
    """
    What a store that keeps values promises.
    """

    def value(self, store: IStore, key: Key = KEY) -> IValue:
        """
        Open a value.
        """
        return self.result(store.open(key))

    def body(self, value: IValue) -> bytes:
        """
        All bytes of an opened value, which is closed.
        """
        body = b""
        while len(body) < value.info.size:
            chunk = self.result(value.read(len(body), 100_000))
            assert chunk
            body += chunk
        value.close()
        value.close()
        return body

    def get(self, store: IStore, key: Key = KEY) -> bytes:
        """
        The bytes of a stored value.
        """
        return self.body(self.value(store, key))

    def walk(
        self,
        store: IStore,
        prefix: bytes = b"",
        after: bytes = b"",
        limit: int | None = None,
    ) -> Sequence[ValueInfo]:
        """
        A whole listing.
        """
        listing = store.list(prefix, after, limit)
        values: list[ValueInfo] = []
        while taken := self.result(listing.next_slice()):
            values += taken
        listing.close()
        return values

    def keys(
        self,
        store: IStore,
        prefix: bytes = b"",
        after: bytes = b"",
        limit: int | None = None,
    ) -> Sequence[bytes]:
        """
        The keys of a listing: as they come with a limit, else sorted.
        """
        keys = [info.key for info in self.walk(store, prefix, after, limit)]
        return keys if limit is not None else sorted(keys)

    # -- writing and reading --------------------------------------------------

    def test_value_comes_back(self) -> None:
        """
        What was written is read, and everything said of it agrees.
        """
        store = self.make_store()
        body = bytes(range(256)) * 1024

        published = self.put(store, KEY, body, metadata={"content-type": "a/b"})
        value = self.value(store)

        assert published.info == value.info
        assert published.info == self.result(store.stat(KEY))
        assert body[100:200] == self.result(value.read(100, 100))
        assert body == self.body(value)

    def test_value_fits_its_descriptor(self) -> None:
        """
        A descriptor, where there is one, holds the value from its start.
        """
        import os

        store = self.make_store()
        self.put(store, KEY, b"as a file")
        value = self.value(store)
        descriptor = value.fileno()

        if descriptor is not None:
            assert b"as a file" == os.pread(descriptor, 100, 0)
        value.close()
