"""
Tests of `kvd.moving.fallback`: two stores that look like one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from kvd.errors import KeyAbsent, KeyConflict, PreconditionFailed
from kvd.interfaces import IListing, IStore, IStreamedUpload
from kvd.model.conditions import UNCONDITIONAL, Conditions, EntityTags
from kvd.model.keys import Key
from kvd.model.values import NO_METADATA, Metadata, Published, ValueInfo
from kvd.moving.copying import ABSENT, exactly
from kvd.moving.fallback import FallbackStore
from kvd.moving.mirror import Choices, Counts, Mirror
from kvd.store.contract.asking import Asking, T
from kvd.store.contract.listing import ListingContract
from kvd.store.memory import SLICE_VALUES
from kvd.store.waiting import resolved
from kvd.testing import MemoryStore, StoreContract
from tests.moving.test_mirror import put
from tests.near.test_store import streamed_upload

KEY = Key(b"key")
PRESENT = Conditions(if_match=EntityTags(any=True))


class FallbackStoreTests(StoreContract, SynchronousTestCase):
    """
    `FallbackStore` is a store like the others.
    """

    many_values = 3 * SLICE_VALUES

    def make_store(self) -> IStore:
        return FallbackStore(MemoryStore(), MemoryStore(), Clock())


class LaterFallbackStoreTests(StoreContract, SynchronousTestCase):
    """
    The same when the answers of both come later.
    """

    many_values = 3 * SLICE_VALUES

    def setUp(self) -> None:
        self.clock = Clock()

    def make_store(self) -> IStore:
        return FallbackStore(
            MemoryStore(self.clock), MemoryStore(self.clock), self.clock
        )

    def wait_for(self, answer: Deferred[T]) -> None:
        for _ in range(100):
            self.clock.advance(0)


class SplitListingTests(ListingContract, SynchronousTestCase):
    """
    Listings are those of one store, wherever the values are: of any three, one is in
    both, newer in the store; one is in the fallback alone, and one in the store alone.
    """

    many_values = 3 * SLICE_VALUES

    def make_store(self) -> IStore:
        self.new, self.old = MemoryStore(), MemoryStore()
        self.stored = 0
        return FallbackStore(self.new, self.old, Clock())

    def put(
        self,
        store: IStore,
        key: Key = KEY,
        body: bytes = b"value",
        conditions: Conditions = UNCONDITIONAL,
        metadata: Metadata = NO_METADATA,
    ) -> Published:
        published = super().put(store, key, body, conditions, metadata)
        place = self.stored % 3
        self.stored += 1
        if place == 0:
            info, _ = self.new.values[key]
            self.old.values[key] = replace(info, etag="older", size=0), b""
        elif place == 1:
            self.old.values[key] = self.new.values.pop(key)
        return published


class WatchedStore(MemoryStore):
    """
    A store in memory that counts its open listings.
    """

    def __init__(self) -> None:
        super().__init__()
        self.listings = 0

    def list(self, prefix: bytes, after: bytes, limit: int | None) -> IListing:
        self.listings += 1
        return _WatchedListing(self, super().list(prefix, after, limit))


@implementer(IListing)
class _WatchedListing:
    def __init__(self, store: WatchedStore, listing: IListing) -> None:
        self._store = store
        self._is_open = True
        self.next_slice = listing.next_slice
        self._listing = listing

    def close(self) -> None:
        self._store.listings -= self._is_open
        self._is_open = False
        self._listing.close()


class BothTests(Asking, SynchronousTestCase):
    """
    What is in the fallback is found, and does not come back once it is gone.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.new = WatchedStore()
        self.old = WatchedStore()
        self.store = FallbackStore(self.new, self.old, self.clock)

    def wait_for(self, answer: Deferred[T]) -> None:
        self.clock.advance(0)

    def first_two(self, after: bytes = b"") -> Sequence[tuple[bytes, int]]:
        """
        The keys and sizes of the first two values.
        """
        listing = self.store.list(b"", after, 2)
        page = self.result(listing.next_slice())
        listing.close()
        return [(info.key, info.size) for info in page]

    def streamed(self) -> Sequence[tuple[bytes, int]]:
        """
        The keys and sizes of all values, in the order in which they come.
        """
        listing = self.store.list(b"", b"", None)
        found: list[ValueInfo] = []
        while taken := self.result(listing.next_slice()):
            found += taken
        listing.close()
        return [(info.key, info.size) for info in found]

    def test_an_upload_goes_on_as_it_would_without_the_fallback(self) -> None:
        """
        Inside the kernel, if it can.
        """
        upload = self.result(self.store.begin(KEY, 5))
        assert IStreamedUpload(upload, None) is None
        upload.discard()
        begun = streamed_upload()
        with mock.patch.object(self.new, "begin", return_value=begun):
            upload = self.result(self.store.begin(KEY, 5))

        assert begun is IStreamedUpload(upload)

    def test_a_value_of_the_fallback_is_read(self) -> None:
        """
        Until there is a newer one.
        """
        put(self.old, b"key", b"old")
        assert b"old" == self.body(self.value(self.store))

        published = self.put(self.store, KEY, b"new")
        assert not published.created
        assert b"new" == self.body(self.value(self.store))
        assert published.info == self.result(self.store.stat(KEY))
        assert b"old" == self.old.values[KEY][1]

    def test_a_removed_value_is_gone_from_both(self) -> None:
        """
        Wherever it was.
        """
        for here, there in ((b"1", None), (None, b"2"), (b"1", b"2")):
            if here is not None:
                put(self.new, b"key", here)
            if there is not None:
                put(self.old, b"key", there)
            self.result(self.store.remove(KEY, PRESENT))
            assert {} == self.new.values == self.old.values
            with pytest.raises(KeyAbsent):
                self.result(self.store.remove(KEY, UNCONDITIONAL))
            with pytest.raises(KeyAbsent):
                self.result(self.store.open(KEY))

    def test_a_failed_condition_removes_nothing(self) -> None:
        """
        It is about the value that is read.
        """
        for here in (None, b"1"):
            put(self.old, b"key", b"2")
            old = self.old.values[KEY][0].etag
            if here is not None:
                put(self.new, b"key", here)
            with pytest.raises(PreconditionFailed):
                self.result(
                    self.store.remove(KEY, exactly("other" if here is None else old))
                )
            assert b"2" == self.old.values[KEY][1]

    def test_conditions_of_uploads_are_about_both(self) -> None:
        """
        A value of the fallback is one that is there.
        """
        put(self.old, b"key", b"old")
        old = self.old.values[KEY][0].etag
        with pytest.raises(PreconditionFailed):
            self.put(self.store, KEY, b"new", conditions=ABSENT)
        with pytest.raises(PreconditionFailed):
            self.put(self.store, KEY, b"new", conditions=exactly("other"))
        assert {} == self.new.values
        assert 0 == self.new.uploads

        self.put(self.store, KEY, b"new", conditions=exactly(old))
        assert b"new" == self.body(self.value(self.store))
        with pytest.raises(PreconditionFailed):
            self.put(self.store, KEY, b"newer", conditions=exactly(old))

    def test_a_key_of_the_fallback_is_no_folder(self) -> None:
        """
        Nor is a folder there a key.
        """
        put(self.old, b"a/b", b"1")
        for key in (b"a", b"a/b/c"):
            with pytest.raises(KeyConflict):
                self.result(self.store.begin(Key(key), 1))
        assert 0 == self.new.listings == self.old.listings

    def test_pages_have_both(self) -> None:
        """
        Each key once, with the value that is read.
        """
        for key in (b"a", b"c", b"e"):
            put(self.old, key, b"old")
        for key in (b"b", b"c"):
            put(self.new, key, b"newer")

        assert [(b"a", 3), (b"b", 5)] == self.first_two()
        assert [(b"c", 5), (b"e", 3)] == self.first_two(after=b"b")
        assert [] == self.first_two(after=b"e")
        assert [(b"a", 3), (b"b", 5), (b"c", 5), (b"e", 3)] == sorted(self.streamed())
        assert 0 == self.new.listings == self.old.listings

    def test_a_new_value_is_listed_behind_many_that_were_copied(self) -> None:
        """
        Those fill whole slices, of which nothing is left.
        """
        keys = [b"%03d" % number for number in range(2 * SLICE_VALUES)]
        for key in keys:
            put(self.old, key, b"old")
            put(self.new, key, b"newer")
        put(self.new, b"new", b"v")

        assert [*((key, 5) for key in keys), (b"new", 1)] == self.streamed()


class MovingTests(SynchronousTestCase):
    """
    A client notices nothing of the copying.
    """

    def test_random_requests_while_values_are_copied(self) -> None:
        """
        All answers come at random times. A client that does one thing after the other
        reads what it has written. What it has removed may appear again while it is
        copied, but not for long. In the end the store has everything.
        """
        seed = random.randrange(1 << 32)
        print(f"{seed=}")
        for number in range(150):
            self.run_once(random.Random(seed + number))

    def run_once(self, chance: random.Random) -> None:
        """
        Begin with some values in the fallback.
        """
        clock = Clock()
        new, old = MemoryStore(clock), MemoryStore(clock)

        def answer(act: Callable[[], T]) -> Deferred[T]:
            return deferLater(clock, chance.choice((0.0, 1.0, 2.0, 5.0)), act)

        for memory in (new, old):
            self.patch(memory, "answer", answer)
        client = Client(FallbackStore(new, old, clock), chance)
        for key in client.keys:
            if chance.random() < 0.8:
                put(old, key, b"old " + key)
                client.old[key] = client.expected[key] = b"old " + key

        def copied() -> Deferred[Counts]:
            mirror = Mirror(old, new, Choices(), clock, lambda *_: None)
            return Deferred.fromCoroutine(mirror.run())

        asking, copying = Deferred.fromCoroutine(client.ask_often()), copied()
        self.pump(clock, asking, copying)
        self.pump(clock, copied())
        assert client.expected == {key: body for key, (_, body) in new.values.items()}
        assert 0 == new.uploads

    def pump(self, clock: Clock, *running: Deferred[Any]) -> None:
        """
        Let time pass until some work has ended.
        """
        for _ in range(5_000):
            if all(each.called for each in running):
                break
            clock.advance(1.0)
        for each in running:
            self.successResultOf(each)


class Client:
    """
    Does one thing after the other, and knows what it should find.
    """

    def __init__(self, store: IStore, chance: random.Random) -> None:
        self.keys = [Key(b"%d" % number) for number in range(4)]
        self.old: dict[Key, bytes] = {}
        """What the fallback had in the beginning."""
        self.expected: dict[Key, bytes] = {}
        self._store = store
        self._chance = chance
        self._brief: dict[Key, bytes] = {}
        """What was removed, and may appear again until `Mirror` has looked."""

    async def ask_often(self) -> None:
        """
        Some requests, and a listing after each.
        """
        requests = (self.read, self.read, self.publish, self.publish, self.remove)
        for number in range(8):
            key = self._chance.choice(self.keys)
            conditions = UNCONDITIONAL
            if key in self.expected and self._chance.random() < 0.3:
                conditions = exactly((await resolved(self._store.stat(key))).etag)
            try:
                await self._chance.choice(requests)(key, b"%d" % number, conditions)
            except KeyAbsent:
                assert key not in self.expected
            except PreconditionFailed:
                # It was copied since, and has another entity tag.
                assert conditions != UNCONDITIONAL
            await self.list()

    async def read(self, key: Key, _: bytes, __: Conditions) -> None:
        """
        Read what was written last.
        """
        value = await resolved(self._store.open(key))
        found = await resolved(value.read(0, 100))
        assert found == self.expected.get(key, self._brief.get(key))

    async def publish(self, key: Key, body: bytes, conditions: Conditions) -> None:
        """
        Write another value.
        """
        upload = await resolved(self._store.begin(key, len(body)))
        await resolved(upload.write(body))
        published = await resolved(upload.commit(conditions))
        if key not in self._brief:
            assert published.created == (key not in self.expected)
        self.expected[key] = body

    async def remove(self, key: Key, _: bytes, conditions: Conditions) -> None:
        """
        Remove the value.
        """
        await resolved(self._store.remove(key, conditions))
        assert key in self.expected or key in self._brief
        self.expected.pop(key, None)
        # Also where another was written in its place meanwhile: the copy of the old one
        # may have been on its way.
        if key in self.old:
            self._brief[key] = self.old[key]

    async def list(self) -> None:
        """
        List each key once, in either way.
        """
        listing = self._store.list(b"", b"", self._chance.choice((None, 9)))
        listed: list[bytes] = []
        while taken := await resolved(listing.next_slice()):
            listed += [info.key for info in taken]
        assert len(listed) == len(set(listed))
        assert set(self.expected) <= set(listed)
        assert set(listed) <= {*self.expected, *self._brief}
