"""
The tests of `kvd.store.admission`: file stores that have limits.
"""

from __future__ import annotations

import os
from collections import namedtuple
from unittest import mock

import pytest
from twisted.internet.defer import CancelledError, Deferred

from kvd.errors import PreconditionFailed, QuotaFull, StoreFault, ValueTooLarge
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.settings import Quota
from kvd.store.admission import SURVEY_SECONDS, WAIT_SECONDS
from kvd.store.contract.asking import ABSENT
from kvd.store.file import FileStore
from kvd.testing import StoreContract
from tests.store.bounded import BoundedCase
from tests.store.cases import KEY, MANY_VALUES

BLOCK = 4096
OTHER = Key(b"other")


class BoundedContractTests(StoreContract, BoundedCase):
    """
    A `FileStore` with limits is a store like any other, until they are reached.
    """

    max_size = 1 << 30
    min_free = 1
    many_values = MANY_VALUES

    def test_descriptor_continues_the_upload(self) -> None:
        """
        An upload has a descriptor only if its length is known: otherwise each chunk is
        counted before it is written.
        """
        store = self.open_bounded()
        assert store.begin_at_once(KEY, None).fileno() is None
        upload = store.begin_at_once(KEY, 2)
        upload.write(b"a")
        os.write(upload.fileno() or -1, b"b")
        upload.commit(UNCONDITIONAL)

        assert b"ab" == self.get(store, KEY)


class RefusingTests(BoundedCase):
    """
    A store that refuses what it has no room for.
    """

    max_size = 10 * BLOCK
    quotas = (Quota(b"ci/", 3 * BLOCK, False, None),)

    def test_upload_is_refused_before_it_begins(self) -> None:
        """
        The sentence says how much there is. What other uploads hold counts, whichever
        process they are in.
        """
        one, other = self.open_bounded(), self.open_bounded()
        upload = one.begin_at_once(KEY, 9 * BLOCK)

        with pytest.raises(QuotaFull, match=f"takes {9 * BLOCK} of at most"):
            other.begin(OTHER, BLOCK + 1)
        upload.discard()
        assert 0 == self.memory.taken(0)
        self.publish(other, OTHER, bytes(BLOCK + 1))
        assert 2 * BLOCK == self.memory.taken(0)
        assert [] == self.debris()

    def test_value_that_never_fits_is_too_large(self) -> None:
        """
        It is refused although the store is empty: with another error, as to wait or to
        remove something does not help.
        """
        store = self.open_bounded()

        with pytest.raises(ValueTooLarge, match="the store may take at most 40KiB"):
            store.begin(KEY, 10 * BLOCK + 1)
        with pytest.raises(ValueTooLarge, match="/ci/ may take at most 12KiB"):
            store.begin(Key(b"ci/x"), 3 * BLOCK + 1)

    def test_prefix_has_a_limit_of_its_own(self) -> None:
        """
        A prefix that is full leaves room for others.
        """
        store = self.open_bounded()
        self.publish(store, Key(b"ci/x"), bytes(3 * BLOCK))

        with pytest.raises(QuotaFull, match="/ci/ takes 12288 of at most 12288 bytes"):
            store.begin(Key(b"ci/y"), 0)
        self.publish(store, Key(b"c/x"), bytes(BLOCK))
        assert [4 * BLOCK, 3 * BLOCK] == [self.memory.taken(0), self.memory.taken(1)]

    def test_replaced_and_removed_values_give_back(self) -> None:
        """
        What counts in the end is what is there.
        """
        store = self.open_bounded()
        for size in (2 * BLOCK, 5 * BLOCK, 1, 0):
            self.publish(store, KEY, bytes(size))
            assert self.really_taken() == self.memory.taken(0)
        self.publish(store, OTHER)
        assert 2 == self.memory.values(0)
        store.remove(KEY, UNCONDITIONAL)
        store.remove(OTHER, UNCONDITIONAL)
        assert (0, 0) == (self.memory.taken(0), self.memory.values(0))

    def test_failed_commit_gives_back(self) -> None:
        """
        Whether a condition did not hold, or the length is not the one that was said.
        """
        store = self.open_bounded()
        self.publish(store)
        upload = store.begin_at_once(KEY, 1)
        upload.write(b"n")
        with pytest.raises(PreconditionFailed):
            upload.commit(ABSENT)
        with pytest.raises(StoreFault):
            store.begin_at_once(KEY, 1).commit(UNCONDITIONAL)

        assert BLOCK == self.memory.taken(0)
        assert 0 == self.memory.counts(0).held

    def test_failed_begin_gives_back(self) -> None:
        """
        If the file cannot be made, nothing is held.
        """
        store = self.open_bounded()
        with (
            mock.patch.object(store._shared.uploads, "create", side_effect=OSError),
            pytest.raises(StoreFault),
        ):
            store.begin(KEY, 1)

        assert 0 == self.memory.taken(0)

    def test_value_of_unknown_length_is_refused_when_it_passes_the_limit(self) -> None:
        """
        It holds what it has sent and a little more, which the commit gives back.
        """
        store = self.open_bounded()
        upload = store.begin_at_once(KEY, None)
        assert upload.fileno() is None, "each chunk is counted"
        for _ in range(10):
            upload.write(bytes(BLOCK))
            assert self.memory.taken(0) <= 10 * BLOCK
        with pytest.raises(ValueTooLarge):
            upload.write(b"x")
        upload.discard()
        assert 0 == self.memory.taken(0)

        held = store.begin_at_once(OTHER, BLOCK)
        upload = store.begin_at_once(KEY, None)
        with pytest.raises(QuotaFull):
            upload.write(bytes(10 * BLOCK))
        upload.discard()
        held.discard()
        assert 0 == self.memory.taken(0)

        upload = store.begin_at_once(KEY, None)
        upload.write(bytes(BLOCK + 1))
        upload.commit(UNCONDITIONAL)
        assert 2 * BLOCK == self.memory.taken(0)


class WaitingTests(BoundedCase):
    """
    A store that makes room.
    """

    max_size = 200 * BLOCK
    evicts = True

    def full(self) -> FileStore:
        """
        A store that has no room left.
        """
        store = self.open_bounded()
        self.publish(store, KEY, bytes(200 * BLOCK))
        return store

    def test_upload_waits_for_room(self) -> None:
        """
        It begins when there is room, and the evictor sees meanwhile how much it wants.
        """
        store = self.full()
        began = store.begin(OTHER, BLOCK)
        assert isinstance(began, Deferred)
        self.clock.advance(0.1)

        assert BLOCK == self.memory.counts(0).wanted
        store.remove(KEY, UNCONDITIONAL)
        self.clock.advance(0.1)
        upload = self.successResultOf(began)
        assert BLOCK == self.memory.taken(0)
        assert 0 == self.memory.counts(0).wanted
        upload.discard()
        assert 0 == self.memory.taken(0)

    def test_upload_is_refused_if_no_room_is_made_in_time(self) -> None:
        """
        It wants nothing any more then.
        """
        self.memory.surveyed = True
        began = self.full().begin(OTHER, 1)
        assert isinstance(began, Deferred)
        self.wait(WAIT_SECONDS)

        self.failureResultOf(began, QuotaFull)
        assert 0 == self.memory.counts(0).wanted

    def wait(self, seconds: float) -> None:
        """
        Let time pass in which an upload looks for room again and again.
        """
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end:
            self.clock.advance(0.1)

    def test_upload_waits_until_a_new_evictor_has_looked(self) -> None:
        """
        It may be busy for long, since it looks at all values; then it has its usual
        time to make room.
        """
        began = self.full().begin(OTHER, 1)
        assert isinstance(began, Deferred)
        self.wait(6 * WAIT_SECONDS)
        self.assertNoResult(began)
        self.take_steps(self.evictor())
        assert self.memory.surveyed
        self.wait(1)

        self.successResultOf(began).discard()

    def test_upload_is_refused_in_time_once_the_evictor_has_looked(self) -> None:
        """
        If it found nothing that it can remove.
        """
        began = self.full().begin(OTHER, 1)
        assert isinstance(began, Deferred)
        self.wait(2 * WAIT_SECONDS)
        self.memory.surveyed = True
        self.wait(WAIT_SECONDS - 1)
        self.assertNoResult(began)
        self.wait(2)

        self.failureResultOf(began, QuotaFull)

    def test_upload_does_not_wait_for_ever_for_an_evictor_that_looks(self) -> None:
        """
        It may not run at all.
        """
        began = self.full().begin(OTHER, 1)
        assert isinstance(began, Deferred)
        self.wait(SURVEY_SECONDS + 1)

        self.failureResultOf(began, QuotaFull)

    def test_upload_whose_client_leaves_wants_nothing_any_more(self) -> None:
        """
        At once: nothing is removed for it, and it does not begin when there is room.
        """
        store = self.full()
        began = store.begin(OTHER, BLOCK)
        assert isinstance(began, Deferred)
        began.cancel()

        self.failureResultOf(began, CancelledError)
        assert 0 == self.memory.counts(0).wanted
        store.remove(KEY, UNCONDITIONAL)
        self.clock.advance(1)
        assert 0 == self.memory.taken(0)
        assert [] == self.debris()

    def test_value_of_unknown_length_waits_in_the_middle(self) -> None:
        """
        The chunk that found no room is written when there is some; if its client left
        meanwhile, it is not.
        """
        for leaves in (False, True):
            store = self.open_bounded()
            self.publish(store, KEY, bytes(199 * BLOCK))
            store.remove(KEY, UNCONDITIONAL)
            growing = store.begin_at_once(OTHER, None)
            self.publish(store, KEY, bytes(180 * BLOCK))
            written = growing.write(bytes(30 * BLOCK))
            assert isinstance(written, Deferred)
            self.assertNoResult(written)
            if leaves:
                growing.discard()
            store.remove(KEY, UNCONDITIONAL)
            self.clock.advance(1)

            assert self.successResultOf(written) is None
            if leaves:
                assert 0 == self.memory.taken(0)
            else:
                growing.commit(UNCONDITIONAL)
                assert 30 * BLOCK == self.really_taken() == self.memory.taken(0)
                store.remove(OTHER, UNCONDITIONAL)

    def test_value_of_unknown_length_that_never_fits_waits_for_nothing(self) -> None:
        """
        It is refused when it passes the limit, and nothing is removed for the rest.
        """
        store = self.open_bounded()
        upload = store.begin_at_once(OTHER, None)
        upload.write(bytes(200 * BLOCK))
        with pytest.raises(ValueTooLarge):
            upload.write(b"x")
        assert 0 == self.memory.counts(0).wanted
        upload.discard()
        assert 0 == self.memory.taken(0)

    def test_only_a_limit_that_evicts_lets_wait(self) -> None:
        """
        Nobody makes room below a prefix that refuses.
        """
        refusing = Quota(b"ci/", BLOCK, False, None)
        self.quotas = (refusing,)
        self.setUp()
        store = self.open_bounded()
        self.publish(store, Key(b"ci/x"))

        with pytest.raises(QuotaFull):
            store.begin(Key(b"ci/y"), 1)


class MinFreeTests(BoundedCase):
    """
    A store that leaves some of its disk free.
    """

    min_free = 1_000_000

    def test_upload_leaves_so_much_free(self) -> None:
        """
        The refusal says what there is room for.
        """
        store = self.open_bounded()
        real = os.fstatvfs(store._root)
        Space = namedtuple("Space", "f_bavail f_frsize f_blocks")
        few = Space(300, BLOCK, real.f_blocks or 1)
        with mock.patch("kvd.store.file.os.fstatvfs", return_value=few):
            room = 300 * BLOCK - self.min_free
            with pytest.raises(QuotaFull, match=f"room for {room}"):
                store.begin(KEY, room + 1)
            store.begin_at_once(KEY, room).discard()
            with (
                mock.patch.object(store, "_min_free", 301 * BLOCK),
                pytest.raises(QuotaFull, match="room for 0"),
            ):
                store.begin(KEY, None)
            upload = store.begin_at_once(KEY, None)
            upload.write(bytes(room))
        none = Space(240, BLOCK, real.f_blocks or 1)
        with (
            mock.patch("kvd.store.file.os.fstatvfs", return_value=none),
            pytest.raises(QuotaFull, match="less than 1000000 bytes"),
        ):
            upload.write(bytes(2 << 20))
        upload.discard()
