"""
Tests for `kvd.http.fast_path`: values that it has published itself, and that are
replaced again (``kvd/native/known.c``).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from unittest import mock

from kvd.model.keys import Key
from kvd.store import attribute
from tests.http.fast_path.cases import FallbackCase, FastPathCase, field, put

DAY_NS = 86_400 * 10**9


class KnownCase(FastPathCase):
    """
    A key whose value was replaced before, by the same process.
    """

    @property
    def file(self) -> str:
        """
        The file of the value.
        """
        return os.path.join(self.path, "k")

    def replace(self) -> None:
        """
        The fast path writes the key twice, so it knows what it has.
        """
        for body in (b"first", b"value"):
            self.served(put("k", body))

    def date_ns(self) -> int:
        """
        The date of the value.
        """
        return os.stat(self.file).st_mtime_ns


class KnownTests(KnownCase):
    """
    It is replaced by what kvd knows.
    """

    def test_it_is_replaced_again(self) -> None:
        """
        Each value has an entity tag of its own, and no earlier date.
        """
        self.replace()
        tags = set()
        for number in range(5):
            before = self.date_ns()
            reply = self.served(put("k", b"%d" % number))
            assert reply.startswith(b"HTTP/1.1 204 ")
            assert before <= self.date_ns()
            tags.add(field(reply, "ETag"))
            info = self.store.stat(Key(b"k"))
            assert field(reply, "ETag") == f'"{info.etag}"'
        assert 5 == len(tags)
        assert [] == self.debris()

    def test_date_of_another_process_binds(self) -> None:
        """
        Whatever this one knows; and then its own binds, which was later.
        """
        self.replace()
        later_ns = (self.date_ns() + DAY_NS) // 1000 * 1000
        with mock.patch("time.time_ns", return_value=later_ns):
            self.publish(self.open_store(), Key(b"k"), b"later")
        assert later_ns == self.date_ns()
        for body in (b"1", b"2", b"3"):
            self.served(put("k", body))
            assert later_ns <= self.date_ns()

    def test_removed_key_is_new_again(self) -> None:
        """
        201, once.
        """
        self.replace()
        os.unlink(self.file)
        for status in (b"201", b"204", b"204"):
            assert self.served(put("k", b"v")).startswith(b"HTTP/1.1 " + status)


class ChangedTests(KnownCase):
    """
    What another program has made of it is not for the fast path.
    """

    def change(self, act: Callable[[], object]) -> None:
        """
        A program changes the file, and gives it its date again.
        """
        self.replace()
        status = os.stat(self.file)
        act()
        os.utime(self.file, ns=(status.st_atime_ns, status.st_mtime_ns))
        self.assert_left(put("k", b"new"))
        os.unlink(self.file)

    def test_whatever_was_changed(self) -> None:
        """
        Its attribute, its content, or its file.
        """

        def take_its_place() -> None:
            os.rename(self.file, f"{self.file}2")
            with open(self.file, "xb") as file:
                file.write(b"value")
            os.unlink(f"{self.file}2")

        for act in (
            lambda: os.removexattr(self.file, attribute.NAME),
            lambda: os.setxattr(self.file, attribute.NAME, b"1 what is that"),
            lambda: os.truncate(self.file, 4),
            take_its_place,
        ):
            self.change(act)


class KnownFallbackTests(FallbackCase, KnownTests):
    """
    It is the same without the fast path.
    """
