"""
The tests of `kvd.store.listing` and `kvd.store.walk`.
"""

import errno
import math
import os
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import capturedLogs

from kvd.errors import StoreFault
from kvd.model.keys import MAX_KEY_BYTES, Key
from kvd.model.values import ValueInfo
from kvd.store import attribute, walk
from kvd.store import listing as module
from kvd.store.listing import Page
from kvd.store.walk import Batch
from tests.descriptors import Descriptors
from tests.exploring import exploring
from tests.store.cases import FileStoreCase
from tests.store.stepped import SteppedPool

SEGMENTS = st.sampled_from([b"a", b"a-", b"a0", b"b", b"\xff"])
KEYS = st.lists(SEGMENTS, min_size=1, max_size=3).map(b"/".join)


@exploring()
@given(st.dictionaries(KEYS, st.booleans()), KEYS | st.just(b""), st.integers(1, 5))
def test_page_has_the_smallest_keys(
    stored: dict[bytes, bool], after: bytes, limit: int
) -> None:
    """
    In whatever order keys and folders appear, and however many turn out not to be
    values, the page has the first values, and no folder with one of them is skipped.
    """

    def look(key: Key) -> ValueInfo | None:
        return ValueInfo(key, 0, "", 0.0) if stored[key] else None

    page = Page(after, limit, look)
    walking = True
    while walking:
        for key in stored:
            ends = [end for end in range(len(key)) if key[end] == 0x2F]
            folders = [key[:end] for end in ends] + [key[: end + 1] for end in ends]
            if all(page.span.may_have(prefix) for prefix in [*folders, key]):
                page.take(Batch(-1, b"", [key]))
        walking = page.walk_again()

    values = sorted(key for key, whole in stored.items() if whole and key > after)
    assert values[:limit] == [info.key for info in page.hand_on(ended=True)]


def test_page_has_each_key_once() -> None:
    """
    Even if the walk met it twice because it was replaced meanwhile.
    """
    page = Page(b"", 3, lambda key: ValueInfo(key, 0, "", 0.0))
    for key in (b"b", b"a", b"b", b"c", b"b"):
        page.take(Batch(-1, b"", [key]))
    page.walk_again()

    assert [b"a", b"b", b"c"] == [info.key for info in page.hand_on(ended=True)]


class FileListingTests(FileStoreCase):
    """
    A walk is read in a thread, slice by slice.
    """

    def setUp(self) -> None:
        super().setUp()
        # A busy machine would end slices early.
        self.patch(module, "SLICE_SECONDS", math.inf)
        self.pool = SteppedPool()
        self.store = self.open_store(off_reactor=self.pool)
        self.opened = Descriptors(self.path)

    def assert_all_closed(self) -> None:
        """
        Check that the walk has left no descriptor open.
        """
        assert 0 == self.opened.more

    def test_slice_is_read_off_the_reactor(self) -> None:
        """
        Nothing is read before the thread does it; at the end everything is closed.
        """
        self.place("a/b")
        listing = self.store.list(b"", b"", None)
        answer = listing.next_slice()
        assert isinstance(answer, Deferred)
        self.assertNoResult(answer)
        self.pool.step()
        (info,) = self.successResultOf(answer)

        assert b"a/b" == info.key
        self.assert_all_closed()
        assert () == listing.next_slice()

    def test_time_ends_a_slice(self) -> None:
        """
        When the time is up, the values found so far are returned; if there are none,
        the thread continues, since an empty slice is the end.
        """
        for number in range(3):
            self.place(f"{number}/value")
        self.patch(module, "SLICE_SECONDS", 0.0)
        listing = self.store.list(b"", b"", None)
        found = []
        for _ in range(3):
            answer = listing.next_slice()
            assert isinstance(answer, Deferred)
            self.pool.finish()
            found += [info.key for info in self.successResultOf(answer)]
        page = self.store.list(b"", b"", 10).next_slice()
        assert isinstance(page, Deferred)
        self.pool.finish()

        assert sorted(found) == [info.key for info in self.successResultOf(page)]
        assert 3 == len(found)
        listing.close()
        self.assert_all_closed()

    def test_page_is_filled_up(self) -> None:
        """
        Files that are not values do not make a page shorter.
        """
        for number in range(20):
            self.place(f"{number:02}")
            if number < 10:
                path = os.path.join(self.path, f"{number:02}")
                torn = b"1 %032x 1\n" % number
                os.setxattr(path, attribute.NAME, torn)
        page = self.walk(self.open_store(), limit=5)

        assert [b"10", b"11", b"12", b"13", b"14"] == [info.key for info in page]

    def test_a_page_enters_no_folder_in_vain(self) -> None:
        """
        In whatever order the file system lists them: once the first folders have filled
        the page, the others are skipped.
        """
        names = [f"{number:02}" for number in range(20)]
        for name in [*names[1::2], *reversed(names[::2])]:
            for inner in range(4):
                self.place(f"{name}/{inner}")
        entered = []
        enter = walk._open_inner

        def noting(folder: int, name: bytes, key: bytes) -> int | None:
            entered.append(name.decode())
            return enter(folder, name, key)

        self.patch(walk, "_open_inner", noting)
        page = self.walk(self.open_store(), limit=2)

        assert [b"00/0", b"00/1"] == [info.key for info in page]
        assert names[: len(entered)] == entered
        assert len(entered) <= 3

        self.patch(walk, "WAITING_FOLDERS", 2)
        self.patch(walk, "BATCH_NAMES", 3)
        page = self.walk(self.open_store(), limit=9)
        assert [b"00/0", b"01/0", b"02/0"] == [info.key for info in page][::4]

    def test_close_between_slices_ends_the_walk(self) -> None:
        """
        Whether it has begun or not.
        """
        # Else it may be up, on a busy machine, before a slice is full.
        self.patch(module, "SLICE_SECONDS", 3600.0)
        for number in range(300):
            self.place(f"folder/{number}")
        begun, unbegun = (self.store.list(b"folder/", b"", None) for _ in range(2))
        answer = begun.next_slice()
        self.pool.finish()
        assert isinstance(answer, Deferred)
        assert module.SLICE_VALUES == len(self.successResultOf(answer))
        for listing in (begun, unbegun):
            listing.close()
            listing.close()
            assert () == listing.next_slice()

        self.assert_all_closed()

    def test_close_while_a_slice_is_read_waits_for_it(self) -> None:
        """
        The thread has folders open and stops soon; then everything is closed, and the
        answer is the end or what was read.
        """
        for number in range(300):
            self.place(f"folder/{number}")
        listing = self.store.list(b"", b"", None)
        answer = listing.next_slice()
        assert isinstance(answer, Deferred)
        listing.close()
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.pool.finish()

        self.assert_all_closed()

    def test_store_may_be_closed_before(self) -> None:
        """
        A listing outlives its store.
        """
        self.place("a/b")
        listing = self.store.list(b"a/", b"", None)
        self.store.close()
        answer = listing.next_slice()
        self.pool.finish()
        assert isinstance(answer, Deferred)

        assert [b"a/b"] == [info.key for info in self.successResultOf(answer)]

    def test_what_no_request_can_name_is_not_listed(self) -> None:
        """
        kvd's own files, control bytes, and names that are too long for a key.
        """
        self.place("good")
        self.place(".kvd-probe")
        self.place("in/.kvd")
        self.place("new\nline")
        self.place("control\x7f/value")
        long = b"/".join([b"n" * 200] * 5) + b"/" + b"n" * (MAX_KEY_BYTES - 1004)
        deep = os.open(self.path, os.O_RDONLY)
        for name in long.split(b"/"):
            os.mkdir(name, dir_fd=deep)
            inner = os.open(name, os.O_RDONLY, dir_fd=deep)
            os.close(deep)
            deep = inner
        os.close(os.open(b"value", os.O_CREAT | os.O_WRONLY, dir_fd=deep))
        os.close(deep)

        store = self.open_store()
        assert [b"good", b"in/.kvd"] == sorted(info.key for info in self.walk(store))
        assert [] == [*self.walk(store, b".kvd/")]

    def test_what_vanishes_meanwhile_is_skipped(self) -> None:
        """
        A value or folder that has disappeared when it is opened is not listed.
        """
        self.place("a/b")
        self.place("c")
        store = self.open_store()
        gone = FileNotFoundError(errno.ENOENT, "gone")
        with mock.patch("kvd.store.walk.open_value", side_effect=gone):
            assert [] == [*self.walk(store)]
        with mock.patch("os.open", side_effect=gone):
            assert [] == [*self.walk(store, limit=5)]

    def test_folder_that_vanishes_is_skipped(self) -> None:
        """
        A folder that is pruned between being found and being entered.
        """
        self.place("a/b")
        self.place("c")
        store, opened = self.open_store(), os.open

        def prune_first(name: bytes, flags: int, *, dir_fd: int) -> int:
            if name == b"a":
                raise FileNotFoundError(errno.ENOENT, "gone")
            return opened(name, flags, dir_fd=dir_fd)

        with mock.patch("os.open", prune_first):
            assert [b"c"] == [info.key for info in self.walk(store)]

    def test_what_may_not_be_read_is_logged(self) -> None:
        """
        The ``lost+found`` of a file system does not prevent the listing of the rest.
        """
        self.place("lost+found/x")
        self.place("secret")
        self.place("value")
        store, opened = self.open_store(), os.open

        def refuse(name: bytes, flags: int, *, dir_fd: int) -> int:
            if name in (b"lost+found", b"secret"):
                raise PermissionError(errno.EACCES, "Permission denied")
            return opened(name, flags, dir_fd=dir_fd)

        with mock.patch("os.open", refuse), capturedLogs() as events:
            assert [b"value"] == [info.key for info in self.walk(store)]
        assert ["lost%2Bfound", "secret"] == sorted(event["key"] for event in events)

    def test_value_that_cannot_be_described_ends_the_walk(self) -> None:
        """
        A listing must not silently leave out values.
        """
        self.place("value")
        store = self.open_store()
        broken = OSError(errno.EIO, "broken")
        for limit in (None, 1):
            listing = store.list(b"", b"", limit)
            with mock.patch("os.getxattr", side_effect=broken):
                self.error(StoreFault, listing.next_slice)

    def test_failure_ends_the_walk(self) -> None:
        """
        A walk that cannot continue reports that, and closes everything.
        """
        self.place("a/b")
        for call in ("os.scandir", "os.open"):
            listing = self.store.list(b"a/", b"", None)
            with mock.patch(call, side_effect=OSError(errno.EIO, "broken")):
                answer = listing.next_slice()
                self.pool.finish()
            assert isinstance(answer, Deferred)
            failure = self.failureResultOf(answer, StoreFault)
            assert "The listing cannot go on: broken." == failure.value.sentence
            assert () == listing.next_slice()

        self.assert_all_closed()
