"""
Tests for `kvd.net.readahead`.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import pytest
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kvd.net.readahead import (
    PIECE_BYTES,
    Readahead,
    is_in_memory,
    is_in_memory_in_python,
)
from tests.page_cache import cached_pages, evict
from tests.store.cases import DISK

BODY = bytes(range(256)) * 4096
ASKED = "kvd.net.readahead.is_in_memory"


def new_file(directory: str) -> int:
    """
    A descriptor of a new file without a name, all of which is on the disk.
    """
    descriptor, path = tempfile.mkstemp(dir=directory)
    with open(descriptor, "wb") as file:
        file.write(BODY)
        file.flush()
        os.fsync(file.fileno())
    opened = os.open(path, os.O_RDONLY)
    os.unlink(path)
    return opened


def new_file_on_disk() -> int:
    """
    The same, on a disk, which /tmp may not be: what tmpfs holds is always in memory.
    """
    return new_file(DISK)


IN_MEMORY = pytest.mark.parametrize(
    "form", [is_in_memory, is_in_memory_in_python], ids=["compiled", "Python"]
)


@contextmanager
def file_with(*offsets: int) -> Iterator[int]:
    """
    A file of which nothing is in memory but the pages with these bytes. It is asked
    once for what is missing, since the kernel may begin to read that.
    """
    descriptor = new_file_on_disk()
    try:
        # So that the kernel reads no more than what is asked for.
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        evict(descriptor)
        for offset in offsets:
            os.pread(descriptor, 1, offset)
        pages = {offset // mmap.PAGESIZE for offset in offsets}
        assert len(pages) == cached_pages(descriptor)
        yield descriptor
    finally:
        os.close(descriptor)


def is_denied(
    form: Callable[[int, int, int], bool], file: int, first: int, count: int
) -> bool:
    """
    Whether a part that is not in memory is said not to be; or was read before it was
    said, since the kernel begins to read what it is asked for.
    """
    before = cached_pages(file)
    return not form(file, first, count) or before < cached_pages(file)


def test_what_is_compiled_is_used() -> None:
    """
    Otherwise nothing is compared here.
    """
    assert is_in_memory is not is_in_memory_in_python


@IN_MEMORY
def test_a_part_is_in_memory_if_its_ends_are(
    form: Callable[[int, int, int], bool],
) -> None:
    """
    Not if one of them is not.
    """
    first, count = 300_000, 500_000
    last = first + count - 1
    with file_with(first, last) as file:
        assert form(file, first, count)
    for offsets in ((), (first,), (last,), (first, last - 9000), (first + 9000, last)):
        with file_with(*offsets) as file:
            assert is_denied(form, file, first, count)


@IN_MEMORY
def test_one_byte_is_both_ends(form: Callable[[int, int, int], bool]) -> None:
    """
    Wherever it is.
    """
    with file_with(0, len(BODY) - 1) as file:
        assert form(file, 0, 1)
        assert form(file, len(BODY) - 1, 1)
        assert is_denied(form, file, len(BODY) // 2, 1)


@IN_MEMORY
def test_what_the_kernel_cannot_say_counts_as_in_memory(
    form: Callable[[int, int, int], bool],
) -> None:
    """
    As with a file system that is in memory; and where sending fails too.
    """
    file = new_file("/dev/shm")
    assert form(file, 0, len(BODY))
    assert form(file, -2, 1)
    os.close(file)
    assert form(file, 0, len(BODY))


class ReadaheadTests(SynchronousTestCase):
    """
    `Readahead` reads in a thread what would have to be waited for.
    """

    def setUp(self) -> None:
        self.descriptor = new_file_on_disk()
        self.addCleanup(os.close, self.descriptor)
        self.work: list[Callable[[], None]] = []
        self.readahead = Readahead(self.begin)

    def begin(self, work: Callable[[], None]) -> Deferred[None]:
        """
        What a thread would do, on request.
        """
        self.work.append(work)
        done: Deferred[None] = Deferred()
        return done

    def test_what_is_in_memory_is_sent_at_once(self) -> None:
        """
        No thread is asked.
        """
        os.pread(self.descriptor, len(BODY), 0)

        assert self.readahead.ensure(self.descriptor, 0, len(BODY)) is None
        assert [] == self.work

    def test_what_is_not_is_read_by_a_thread(self) -> None:
        """
        All of the part, nothing else, and in pieces.
        """
        preadv = os.preadv
        read: list[tuple[int, int]] = []

        def some(descriptor: int, buffers: list[bytearray], offset: int) -> int:
            got = preadv(descriptor, buffers, offset)
            read.append((offset, got))
            return got

        with mock.patch(ASKED, return_value=False) as asked:
            assert self.readahead.ensure(self.descriptor, 500_000, 500_000) is not None
        asked.assert_called_once_with(self.descriptor, 500_000, 500_000)
        with mock.patch("os.preadv", some):
            self.work.pop()()
        assert 500_000 == read[0][0]
        assert 500_000 <= sum(got for _, got in read) < 700_000
        assert max(got for _, got in read) <= PIECE_BYTES

    def test_a_file_that_is_gone_meanwhile_is_no_failure(self) -> None:
        """
        Its descriptor may be closed by then, or be somebody else's; and it may
        have become shorter.
        """
        with mock.patch(ASKED, return_value=False):
            other = os.dup(self.descriptor)
            self.readahead.ensure(other, 0, len(BODY))
            self.readahead.ensure(self.descriptor, len(BODY), 100)
        os.close(other)
        assert 2 == len(self.work)
        for work in self.work:
            work()

    def test_the_kernel_reports_what_is_in_memory(self) -> None:
        """
        A file that was dropped from memory is not there, once it is read it is.
        """
        evict(self.descriptor)
        reading = self.readahead.ensure(self.descriptor, 0, len(BODY))
        # The kernel begins to read what it is asked for.
        assert reading is not None or cached_pages(self.descriptor)
        for work in self.work:
            work()
        assert self.readahead.ensure(self.descriptor, 0, len(BODY)) is None
