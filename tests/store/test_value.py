"""
The tests of `kvd.store.value`.
"""

import errno
import os
from unittest import mock

import pytest
from twisted.logger import capturedLogs

from kvd.errors import KeyAbsent, StoreFault
from kvd.model.conditions import UNCONDITIONAL
from kvd.store.attribute import NAME
from kvd.store.unwritten import _reporting
from tests.store.cases import KEY, FileStoreCase


class TornValueTests(FileStoreCase):
    """
    A torn value counts as absent.
    """

    def setUp(self) -> None:
        super().setUp()
        self.store = self.open_store()
        self.publish(self.store, body=b"12345")
        self.file = os.path.join(self.path, "key")

    def assert_absent(self, reason: str) -> None:
        """
        Check that the value is absent everywhere, and that each access is logged.
        """
        with capturedLogs() as events:
            self.error(KeyAbsent, lambda: self.store.open(KEY))
            self.error(KeyAbsent, lambda: self.store.stat(KEY))
            self.error(KeyAbsent, lambda: self.store.remove(KEY, UNCONDITIONAL))
            assert [] == [*self.walk(self.store)]
            assert [] == [*self.walk(self.store, limit=1)]
            assert self.publish(self.store).created

        assert 6 == len(events)
        assert {"warn"} == {event["log_level"].name for event in events}
        assert reason in events[0]["log_format"].format(**events[0])

    def test_other_length_is_absent(self) -> None:
        """
        A file that a power cut has left empty or cut short is not a value, though it
        has the date of one.
        """
        for length in (0, 4, 6):
            times = os.stat(self.file)
            os.truncate(self.file, length)
            os.utime(self.file, ns=(times.st_atime_ns, times.st_mtime_ns))
            self.assert_absent(f"it has {length} bytes and was written with 5")
            self.publish(self.store, body=b"12345")

    def test_torn_value_of_the_first_version_is_absent(self) -> None:
        """
        Its attribute has no time of publication.
        """
        os.setxattr(self.file, NAME, b"1 %032x 6\n" % 1)

        self.assert_absent("it has 5 bytes and was written with 6")

    def test_a_value_that_was_not_written_is_absent(self) -> None:
        """
        Whatever its length. True ones are in `tests.integration.store_power_cuts`.
        """
        double = "kvd.store.value.has_unwritten_parts"
        with mock.patch(double, side_effect=lambda _, status: status.st_size == 5):
            self.assert_absent("it has all 5 bytes, but some were never written")

    def test_a_file_system_that_does_not_report_is_not_asked(self) -> None:
        """
        Some would wait for the disk before they answer.
        """
        with (
            mock.patch.dict(_reporting, clear=True),
            mock.patch(
                "kvd.store.unwritten.reports_unwritten_parts", return_value=False
            ),
            mock.patch("os.lseek", side_effect=AssertionError),
        ):
            assert b"12345" == self.get(self.store, KEY)

    def test_unreadable_attribute_is_a_fault(self) -> None:
        """
        An error while the attribute is read is raised.
        """
        broken = OSError(errno.EIO, "broken")
        with mock.patch("os.getxattr", side_effect=broken):
            self.error(StoreFault, lambda: self.store.open(KEY))

    def test_failing_read_is_a_fault(self) -> None:
        """
        So is an error while the value is read, or an end that comes too early.
        """
        self.publish(self.store, body=b"x" * 10)
        value = self.store.open(KEY)
        self.addCleanup(value.close)
        with (
            mock.patch("os.pread", side_effect=OSError(errno.EIO, "broken")),
            pytest.raises(StoreFault, match="/key cannot be read: broken"),
        ):
            value.read(0, 5)
        os.truncate(self.file, 3)

        assert b"xxx" == value.read(0, 5)
        with pytest.raises(StoreFault, match="cut short"):
            value.read(3, 2)
