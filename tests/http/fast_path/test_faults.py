"""
Tests for `kvd.http.fast_path`: what the kernel refuses.
"""

from __future__ import annotations

import ctypes
import errno
import io
import os
import resource
import struct
import unittest
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from kvd.model.keys import Key
from tests.descriptors import Descriptors
from tests.http.fast_path import test_puts
from tests.http.fast_path.cases import FastPathCase, put
from tests.processes import in_child

NOBODY = 65534


class RefusedTests(FastPathCase):
    """
    Whatever fails is left to the ordinary way, which fails too and says why.
    """

    def setUp(self) -> None:
        super().setUp()
        self.publish(self.store, Key(b"a/first"), b"v")
        self.served(put("a/k", b"value"))

    @contextmanager
    def nobody(self) -> Iterator[None]:
        """
        Act as a user without privileges, to whom the folder of uploads belongs.
        """
        if os.geteuid() != 0:
            yield
            return
        for folder, _, _ in os.walk(os.path.join(self.path, ".kvd")):
            os.chown(folder, NOBODY, -1)
        os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(0)

    def test_a_write_that_is_cut_short(self) -> None:
        """
        As on a disk that fills up.
        """
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            request = put("a/k", bytes(1001))
            assert request == self.serve(request)
            self.served(put("a/k", bytes(1000)))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        assert [] == self.debris()
        assert bytes(1000) == self.get(self.open_store(), Key(b"a/k"))

    def test_a_folder_that_may_not_be_written(self) -> None:
        """
        The upload is removed again.
        """
        folder = os.path.join(self.path, "a")
        os.chmod(self.path, 0o755)
        os.chmod(folder, 0o555)
        self.addCleanup(os.chmod, folder, 0o755)
        with self.nobody():
            self.assert_left(put("a/k", b"other"))
            self.assert_left(put("a/new", b"other"))

    def test_a_value_that_may_not_be_read(self) -> None:
        """
        Nobody can say whether it is one.
        """
        os.chmod(self.path, 0o755)
        os.chmod(os.path.join(self.path, "a"), 0o777)
        os.chmod(os.path.join(self.path, "a", "k"), 0)
        with self.nobody():
            request = put("a/k", b"other")
            for _ in range(2):
                assert request == self.serve(request)
            assert [] == self.debris()

    def test_a_folder_of_uploads_that_may_not_be_written(self) -> None:
        """
        Nothing begins.
        """
        for folder, _, _ in os.walk(os.path.join(self.path, ".kvd")):
            os.chmod(folder, 0o555)
            self.addCleanup(os.chmod, folder, 0o755)
        with self.nobody():
            self.assert_left(put("a/k", b"other"))


# Load the number of the system call; if it is a certain one, answer with an error
# (seccomp(2)); let all else pass.
_FILTER = "HBBI" * 4
_GETXATTRAT, _LINKAT, _RENAMEAT2 = 464, 265, 316
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2


def forbid(number: int, error: int) -> None:
    """
    From now on, in this process, a system call fails.
    """
    program = struct.pack(
        _FILTER,
        *(0x20, 0, 0, 0),
        *(0x15, 0, 1, number),
        *(0x06, 0, 0, 0x50000 | error),
        *(0x06, 0, 0, 0x7FFF0000),
    )
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(program)
    described = struct.pack("HxxxxxxQ", 4, ctypes.addressof(buffer))
    assert 0 == libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    assert 0 == libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, described, 0, 0)
    assert (-1, error) == (libc.syscall(number), ctypes.get_errno())


def stored_without(number: int, error: int) -> str:
    """
    Run the tests of uploads where a system call fails, in this process.

    Returns:
        What they say if they fail.
    """
    forbid(number, error)
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(test_puts.InTheWayTests)
    suite.addTest(test_puts.StoringTests("test_a_value_is_replaced"))
    suite.addTest(test_puts.StoringTests("test_new_keys_and_known_ones_in_turn"))
    files = Descriptors("/", "socket:")
    said = io.StringIO()
    result = unittest.TextTestRunner(said).run(suite)
    assert 0 == files.more
    assert result.testsRun > 2
    return "" if result.wasSuccessful() else said.getvalue()


def assert_stored_without(number: int, *errors: int) -> None:
    """
    Run the tests of uploads where a system call fails.
    """
    for error in errors:
        assert "" == in_child(partial(stored_without, number, error))


def test_kernels_without_getxattrat() -> None:
    """
    Linux before 6.13, or a filter of system calls: values are looked at by opening
    them.
    """
    assert_stored_without(_GETXATTRAT, errno.ENOSYS, errno.EPERM)


def test_kernels_that_give_no_name_to_a_nameless_file() -> None:
    """
    Linux before 6.10 without privileges, and some file systems: the file of a new key
    has a name from its beginning.
    """
    assert_stored_without(_LINKAT, errno.ENOENT, errno.EOPNOTSUPP)


def test_file_systems_that_always_replace() -> None:
    """
    NFS and some others: what has a name is looked at before it is replaced.
    """
    assert_stored_without(_RENAMEAT2, errno.EINVAL, errno.EPERM)
