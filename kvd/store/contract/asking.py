"""
Calls of a store and their answers, for the contract.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from kvd.interfaces import Answer, IStore, IUpload, IValue
from kvd.model.conditions import UNCONDITIONAL, Conditions, EntityTags
from kvd.model.keys import MAX_KEY_BYTES, Key
from kvd.model.values import (
    NO_METADATA,
    Entry,
    Metadata,
    Published,
    ValueInfo,
    entry_key,
)
from kvd.store.level import has_values, list_folder

T = TypeVar("T")

KEY: Final = Key(b"key")

ABSENT: Final = Conditions(if_none_match=EntityTags(any=True))
"""
The condition that the key holds no value.
"""

PRESENT: Final = Conditions(if_match=EntityTags(any=True))
"""
The condition that the key holds a value.
"""


def holds(etag: str) -> Conditions:
    """
    The condition that the key holds the value with an entity tag.
    """
    return Conditions(if_match=EntityTags(strong=frozenset({etag})))


class Asking:
    """
    A test case with a store.
    """

    has_descriptors = False
    """
    Whether uploads and values are files with descriptors; small values may come from
    memory all the same. The tests of such a store set this.
    """

    has_folders = True
    """
    Whether a key cannot be a folder of other keys, as in a file system. In a store
    without folders both can have values.
    """

    max_key_bytes = MAX_KEY_BYTES
    """
    The longest keys of segments of letters that are tried.
    """

    many_values = 300
    """
    How many values are more than a slice of a listing has; up to 500.
    """

    def make_store(self) -> IStore:
        """
        Make a new, empty store, and schedule its cleanup.
        """
        raise NotImplementedError

    def wait_for(self, answer: Deferred[T]) -> None:
        """
        Let time pass until a Deferred has fired; not needed if they fire at once.
        """

    def debris(self) -> Sequence[object]:
        """
        What uploads have left behind in the store, if that is visible.
        """
        return []

    def result(self, answer: Answer[T]) -> T:
        """
        The result of an answer, a Deferred or not. A failure is raised.
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
        The text of the exception that a call must raise or answer with.
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
        conditions: Conditions = UNCONDITIONAL,
    ) -> IUpload:
        """
        Begin an upload.
        """
        return self.result(store.begin(key, length, metadata, conditions))

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
        upload = self.begin(store, key, len(body), metadata, conditions)
        self.result(upload.write(body))
        return self.result(upload.commit(conditions))

    def value(self, store: IStore, key: Key = KEY) -> IValue:
        """
        Open a value.
        """
        return self.result(store.open(key))

    def body(self, value: IValue) -> bytes:
        """
        All bytes of an open value, which is then closed.
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
        All values of a listing.
        """
        listing = store.list(prefix, after, limit)
        values: list[ValueInfo] = []
        while taken := self.result(listing.next_slice()):
            values += taken
        listing.close()
        return values

    def entries(
        self,
        store: IStore,
        prefix: bytes = b"",
        after: bytes = b"",
        limit: int | None = None,
    ) -> Sequence[Entry]:
        """
        What is in one folder: in the order of the listing if there is a limit, else
        sorted.
        """
        listing = list_folder(store, prefix, after, limit)
        entries: list[Entry] = []
        while taken := self.result(listing.next_slice()):
            entries += taken
        listing.close()
        return entries if limit is not None else sorted(entries, key=entry_key)

    def has_values(self, store: IStore, prefix: bytes) -> bool:
        """
        Whether the store has a value whose key begins with a prefix.
        """
        return self.result(has_values(store, prefix))

    def keys(
        self,
        store: IStore,
        prefix: bytes = b"",
        after: bytes = b"",
        limit: int | None = None,
    ) -> Sequence[bytes]:
        """
        The keys of a listing: in its order if there is a limit, else sorted.
        """
        keys = [info.key for info in self.walk(store, prefix, after, limit)]
        return keys if limit is not None else sorted(keys)
