"""
Tests of `kvd.moving`: one store becomes a copy of another.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from itertools import product
from typing import Any
from unittest import mock

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from kvd.errors import ConditionUnsupported, KvdError, StoreFault
from kvd.interfaces import Answer, IConditionalStore, IStore, IUpload
from kvd.model.conditions import UNCONDITIONAL, Conditions
from kvd.model.keys import Key
from kvd.model.values import Metadata, ValueInfo
from kvd.moving.comparing import Pairs
from kvd.moving.copying import CopyDiffers
from kvd.moving.mirror import Choices, Counts, Mirror
from kvd.store.attribute import new_etag
from kvd.testing import MemoryStore

TYPE = {"content-type": "text/plain"}


def put(
    store: MemoryStore,
    key: bytes,
    body: bytes,
    changed: float = 1.0,
    metadata: Metadata = TYPE,
) -> None:
    """
    Give a key a value that was published at some time.
    """
    info = ValueInfo(Key(key), len(body), new_etag(), changed, metadata)
    store.values[Key(key)] = info, body


def bodies(store: MemoryStore) -> dict[bytes, bytes]:
    """
    All values.
    """
    return {key: body for key, (_, body) in store.values.items()}


class MirrorCase(SynchronousTestCase):
    """
    Two stores in memory, which answer at once.
    """

    clock_of_stores: Clock | None = None

    def setUp(self) -> None:
        self.clock = Clock()
        if self.clock_of_stores is not None:
            self.clock_of_stores = self.clock
        self.source = MemoryStore(self.clock_of_stores)
        self.destination = MemoryStore(self.clock_of_stores)
        self.failures: dict[bytes, str] = {}

    def report(self, key: Key, error: KvdError) -> None:
        """
        A key failed.
        """
        self.failures[key] = error.sentence

    def begin(self, **chosen: Any) -> Deferred[Counts]:
        """
        Begin to copy the source.
        """
        mirror = Mirror(
            self.source, self.destination, Choices(**chosen), self.clock, self.report
        )
        return Deferred.fromCoroutine(mirror.run())

    def finish(self, running: Deferred[Counts]) -> Counts:
        """
        Let everything happen that waits for the clock.
        """
        for _ in range(100_000):
            if running.called:
                break
            self.clock.advance(0.001)
        counts: Counts = self.successResultOf(running)
        return counts

    def copy(self, **chosen: Any) -> Counts:
        """
        Copy the source.
        """
        return self.finish(self.begin(**chosen))


class MirrorTests(MirrorCase):
    """
    `Mirror` brings what the destination does not have.
    """

    def test_values_come_with_their_metadata(self) -> None:
        """
        Of any size, in any folder.
        """
        put(self.source, b"empty", b"")
        put(self.source, b"a/b/c", b"small", metadata={"cache-control": "no-store"})
        put(self.source, b"a/large", random.Random(1).randbytes(3_000_001))

        counts = self.copy()

        assert Counts(copied=3, bytes=3_000_006) == counts
        assert bodies(self.source) == bodies(self.destination)
        for key, (info, _) in self.source.values.items():
            assert info.metadata == self.destination.values[key][0].metadata
        assert 0 == self.destination.uploads

    def test_what_was_copied_is_not_copied_again(self) -> None:
        """
        Only what is new, or was replaced.
        """
        put(self.source, b"a", b"1")
        put(self.source, b"b", b"1")
        self.copy()
        etag = self.destination.values[Key(b"a")][0].etag
        put(self.source, b"b", b"2", changed=4e9)
        put(self.source, b"c", b"3")

        assert Counts(copied=2, bytes=2, equal=1) == self.copy()

        assert bodies(self.source) == bodies(self.destination)
        assert etag == self.destination.values[Key(b"a")][0].etag

    def test_a_newer_value_stays(self) -> None:
        """
        Unless the operator wants it replaced.
        """
        put(self.source, b"k", b"old", changed=1)
        put(self.destination, b"k", b"newer", changed=2)

        assert Counts(newer=1) == self.copy()
        assert {b"k": b"newer"} == bodies(self.destination)
        assert Counts(copied=1, bytes=3) == self.copy(overwrites=True)
        assert {b"k": b"old"} == bodies(self.destination)

    def test_a_value_that_comes_meanwhile_stays(self) -> None:
        """
        Between the listing of the destination and the publication, where a value is new
        and where it replaces another.
        """
        for there in (None, b"listed"):
            self.destination.values.clear()
            put(self.source, b"k", b"copy", changed=2)
            if there is not None:
                put(self.destination, b"k", there, changed=1)
            waiting: list[Callable[[], None]] = []
            self.destination.delay_commits = waiting
            running = self.begin()
            for _ in range(10):
                self.clock.advance(0.001)
            put(self.destination, b"k", b"came", changed=3)
            [publish] = waiting
            publish()

            assert Counts(newer=1) == self.finish(running)
            assert {b"k": b"came"} == bodies(self.destination)
            self.destination.delay_commits = None

    def test_what_the_source_lacks_is_removed_if_wanted(self) -> None:
        """
        Below the prefix.
        """
        put(self.destination, b"a/gone", b"1")
        put(self.destination, b"other", b"1")

        assert Counts() == self.copy()
        assert Counts(removed=1) == self.copy(deletes=True, prefix=b"a/")
        assert {b"other": b"1"} == bodies(self.destination)

    def test_a_dry_run_changes_nothing(self) -> None:
        """
        It counts what would be done.
        """
        put(self.source, b"a", b"12")
        put(self.destination, b"b", b"1")

        counts = self.copy(deletes=True, changes_nothing=True)

        assert Counts(copied=1, bytes=2, removed=1) == counts
        assert {b"b": b"1"} == bodies(self.destination)

    def test_digests_find_a_copy_that_is_none(self) -> None:
        """
        It looks like one, by its size and time; the operator decides.
        """
        put(self.source, b"k", b"right", changed=1)
        put(self.destination, b"k", b"wrong", changed=2)

        assert Counts(equal=1) == self.copy()
        assert Counts(newer=1) == self.copy(compares_digests=True)
        counts = self.copy(compares_digests=True, overwrites=True)
        assert Counts(copied=1, bytes=5) == counts
        assert Counts(equal=1) == self.copy(compares_digests=True)
        assert {b"k": b"right"} == bodies(self.destination)

    def test_random_stores(self) -> None:
        """
        Afterwards the destination has each value of the source, or a newer one; what
        only it had is there, or was removed if wanted. A second run does nothing.
        """
        seed = random.randrange(1 << 32)
        print(f"{seed=}")
        chance = random.Random(seed)
        for _ in range(30):
            self.source.values.clear()
            self.destination.values.clear()
            for store in (self.source, self.destination):
                for _ in range(chance.randrange(12)):
                    # No key is the folder of another.
                    key = chance.choice((b"%d", b"a-%d", b"a/%d", b"b/c/%d"))
                    put(
                        store,
                        key % chance.randrange(9),
                        chance.randbytes(chance.randrange(4)),
                        float(chance.randrange(1, 4)),
                    )
            here, there = dict(self.source.values), dict(self.destination.values)
            deletes = chance.random() < 0.5
            with mock.patch("kvd.moving.comparing.PAGE_VALUES", chance.choice((1, 3))):
                self.copy(deletes=deletes)
                again = self.copy(deletes=deletes)
            assert (0, 0, 0) == (again.copied, again.removed, again.failed)
            expected = {} if deletes else {k: there[k][1] for k in there}
            for key, (info, body) in here.items():
                newer = key in there and there[key][0].changed > info.changed
                expected[key] = there[key][1] if newer else body
            assert expected == bodies(self.destination)


class LaterMirrorTests(MirrorTests):
    """
    The same with stores that answer later.
    """

    clock_of_stores = Clock()


@implementer(IStore)
class Altering(MemoryStore):
    """
    A store that keeps other bytes than it gets.
    """

    def begin(
        self,
        key: Key,
        length: int | None,
        metadata: Metadata = TYPE,
        conditions: Conditions = UNCONDITIONAL,
    ) -> Answer[IUpload]:
        upload: Any = super().begin(key, length, metadata, conditions)
        write = upload.write
        upload.write = lambda chunk: write(chunk.swapcase())
        return upload  # type: ignore[no-any-return]


@implementer(IConditionalStore)
class Unconditional(MemoryStore):
    """
    A store that refuses conditions, as kvd's over OpenStack Swift does.
    """

    def keeps_conditions(self) -> Answer[bool]:
        return False

    def begin(
        self,
        key: Key,
        length: int | None,
        metadata: Metadata = TYPE,
        conditions: Conditions = UNCONDITIONAL,
    ) -> Answer[IUpload]:
        self._expect(conditions)
        return super().begin(key, length, metadata, conditions)

    def remove(self, key: Key, conditions: Conditions) -> Answer[None]:
        self._expect(conditions)
        return super().remove(key, conditions)

    def _expect(self, conditions: Conditions) -> None:
        if conditions != UNCONDITIONAL:
            raise ConditionUnsupported("The engine does not keep it.")


class UnconditionalTests(MirrorCase):
    """
    A destination that keeps no conditions.
    """

    def setUp(self) -> None:
        super().setUp()
        self.destination = Unconditional()
        put(self.source, b"a", b"1")

    def test_nothing_is_copied(self) -> None:
        """
        What others write there meanwhile could be replaced: one sentence says what to
        do, and not one for each key.
        """
        failure = self.failureResultOf(self.begin(), ConditionUnsupported)

        assert "give --overwrite" in failure.value.sentence
        assert {} == self.failures
        assert {} == bodies(self.destination)
        assert Counts(copied=1, bytes=1) == self.copy(changes_nothing=True)

    def test_it_becomes_a_copy_if_it_may_be_overwritten(self) -> None:
        """
        And what the source lacks is removed, if that is wanted.
        """
        put(self.destination, b"b", b"2")

        counts = self.copy(overwrites=True, deletes=True)
        assert Counts(copied=1, bytes=1, removed=1) == counts
        assert {b"a": b"1"} == bodies(self.destination)


class FaultTests(MirrorCase):
    """
    One key that fails does not keep the others from being copied.
    """

    def test_a_value_that_cannot_be_read(self) -> None:
        """
        Nothing of it is published.
        """
        put(self.source, b"a", b"x" * 3_000_000)
        put(self.source, b"b", b"y")
        self.source.break_reads_at = 1_500_000

        counts = self.copy()

        assert Counts(copied=1, bytes=1, failed=1) == counts
        assert {b"b": b"y"} == bodies(self.destination)
        assert {b"a": "The value cannot be read any further."} == self.failures
        assert 0 == self.destination.uploads

    def test_a_value_that_cannot_be_written(self) -> None:
        """
        Its upload is discarded.
        """
        put(self.source, b"a", b"x")
        self.destination.fail_writes = StoreFault("The engine is away.")

        assert Counts(failed=1) == self.copy()
        assert {b"a": "The engine is away."} == self.failures
        assert 0 == self.destination.uploads

    def test_a_key_that_is_a_folder_there(self) -> None:
        """
        Engines may keep both, folders cannot.
        """
        put(self.source, b"a", b"x")
        put(self.destination, b"a/b", b"y")

        assert Counts(failed=1) == self.copy()
        assert [b"a"] == list(self.failures)

    def test_a_copy_that_reads_back_differently(self) -> None:
        """
        It is reported with both digests, unless nobody looks.
        """
        self.destination = Altering()
        put(self.source, b"a", b"x")

        assert Counts(failed=1) == self.copy()
        assert "reads back with" in self.failures[b"a"]
        assert issubclass(CopyDiffers, KvdError)
        self.destination.values.clear()
        assert Counts(copied=1, bytes=1) == self.copy(verifies=False)

    def test_a_value_that_goes_meanwhile(self) -> None:
        """
        It is neither copied nor a failure, at the source and at the destination.
        """
        put(self.source, b"a", b"x")
        put(self.destination, b"b", b"x")
        for store in (self.source, self.destination):
            listed = store.list

            def list_and_remove(
                *args: Any, store: MemoryStore = store, listed: Any = listed
            ) -> Any:
                listing = listed(*args)
                store.values.clear()
                return listing

            self.patch(store, "list", list_and_remove)

        assert Counts() == self.copy(deletes=True)
        assert {} == self.failures

    def test_a_listing_that_breaks_off(self) -> None:
        """
        Then the end is not known, and nothing may be removed for it.
        """
        put(self.source, b"a", b"x")
        put(self.destination, b"b", b"x")
        broken = mock.Mock()
        broken.next_slice.side_effect = StoreFault("The listing cannot go on.")
        self.patch(self.source, "list", lambda *_: broken)

        self.failureResultOf(self.begin(deletes=True), StoreFault)
        assert {b"b": b"x"} == bodies(self.destination)

    def test_a_mistake_is_no_failure_of_a_key(self) -> None:
        """
        It ends the run, after what was underway.
        """
        put(self.source, b"a", b"x")
        self.destination.fail_writes = ZeroDivisionError()
        running = self.begin()
        self.clock.advance(0)

        self.failureResultOf(running, ZeroDivisionError)

    def test_an_interruption_leaves_no_uploads(self) -> None:
        """
        Whether it comes as an exception or the work is closed.
        """
        for interrupt, values in product(("cancel", "close"), (4, 9)):
            self.source.values.clear()
            for number in range(values):
                put(self.source, b"%d" % number, b"x" * 3_000_000)
            mirror = Mirror(
                self.source, self.destination, Choices(), self.clock, self.report
            )
            work: Coroutine[Deferred[Any], Any, Counts] = mirror.run()
            running = Deferred.fromCoroutine(work)
            assert 4 == self.destination.uploads
            act: Callable[[], None] = {
                "cancel": running.cancel,
                "close": work.close,
            }[interrupt]
            act()
            assert 0 == self.destination.uploads
            if interrupt == "cancel":
                self.failureResultOf(running, CancelledError)
        assert {} == bodies(self.destination)
        assert {} == self.failures

    def test_an_interruption_at_any_moment(self) -> None:
        """
        Also while a listing is read, or a value is verified: nothing goes on.
        """
        for steps in range(40):
            clock = Clock()
            source, destination = MemoryStore(clock, 1.0), MemoryStore(clock, 1.0)
            for number in range(9):
                put(source, b"%d" % number, b"x")
            mirror = Mirror(source, destination, Choices(), clock, self.report)
            work: Coroutine[Deferred[Any], Any, Counts] = mirror.run()
            running = Deferred.fromCoroutine(work)
            for _ in range(steps):
                clock.advance(1.0)
            if running.called:
                assert bodies(source) == bodies(destination)
                return
            work.close()
            assert [] == clock.getDelayedCalls()[1:]
        raise AssertionError("it never ended")


class PairTests(MirrorCase):
    """
    `Pairs` finds each key once, in the order of its bytes.
    """

    def test_order(self) -> None:
        """
        The order is that of whole keys, not of folders.
        """
        for key in (b"a/b", b"a-b", b"c"):
            put(self.source, key, b"")
        for key in (b"a/b", b"a", b"d"):
            put(self.destination, key, b"")

        async def collect() -> list[tuple[bytes, bool, bool]]:
            found: list[tuple[bytes, bool, bool]] = []
            pairs = Pairs(self.source, self.destination, b"")
            while (pair := await pairs.next()) is not None:
                here, there = pair.source is not None, pair.destination is not None
                found.append((pair.key, here, there))
            return found

        assert [
            (b"a", False, True),
            (b"a-b", True, False),
            (b"a/b", True, True),
            (b"c", True, False),
            (b"d", False, True),
        ] == self.successResultOf(Deferred.fromCoroutine(collect()))
