"""
Tests for `kvd.net.readahead`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kvd.net.readahead import PIECE_BYTES, Readahead

BODY = bytes(range(256)) * 4096


class ReadaheadTests(SynchronousTestCase):
    """
    `Readahead` reads in a thread what would have to be waited for.
    """

    def setUp(self) -> None:
        # On a disk, which /tmp may not be: what tmpfs holds is always in memory.
        descriptor, path = tempfile.mkstemp(dir="/var/tmp")
        with open(descriptor, "wb") as file:
            file.write(BODY)
            file.flush()
            os.fsync(file.fileno())
        self.descriptor = os.open(path, os.O_RDONLY)
        os.unlink(path)
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
        Whichever end of the part is missing; all of it, nothing else, and in pieces.
        """
        preadv = os.preadv
        for missing in (500_000, 999_999):
            read: list[tuple[int, int]] = []

            def some(
                descriptor: int,
                buffers: list[bytearray],
                offset: int,
                flags: int = 0,
                missing: int = missing,
                read: list[tuple[int, int]] = read,
            ) -> int:
                if flags == os.RWF_NOWAIT:
                    if offset == missing:
                        raise BlockingIOError
                    return 1
                got = preadv(descriptor, buffers, offset)
                read.append((offset, got))
                return got

            with mock.patch("os.preadv", some):
                assert (
                    self.readahead.ensure(self.descriptor, 500_000, 500_000) is not None
                )
                self.work.pop()()
            assert 500_000 == read[0][0]
            assert 500_000 <= sum(got for _, got in read) < 700_000
            assert max(got for _, got in read) <= PIECE_BYTES

    def test_a_kernel_that_cannot_report_is_not_waited_for(self) -> None:
        """
        As a file system that is in memory.
        """
        with mock.patch("os.preadv", side_effect=OSError(95, "not supported")):
            assert self.readahead.ensure(self.descriptor, 0, 1) is None

    def test_a_file_that_is_gone_meanwhile_is_no_failure(self) -> None:
        """
        Its descriptor may be closed by then, or be somebody else's; and it may
        have become shorter.
        """
        with mock.patch("os.preadv", side_effect=BlockingIOError):
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
        os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        assert self.readahead.ensure(self.descriptor, 0, len(BODY)) is not None
        self.work.pop()()
        assert self.readahead.ensure(self.descriptor, 0, len(BODY)) is None
