"""
The tests of `kvd.store.sleep`.
"""

from __future__ import annotations

import time

import pytest
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kvd.errors import BadSetting
from kvd.interfaces import IStore, IStoreMaker
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.store.sleep import maker, read_times, time_for
from kvd.testing import UploadContract


class SleepStoreContractTests(UploadContract, SynchronousTestCase):
    """
    The sleep store accepts values like any other.
    """

    def make_store(self) -> IStore:
        return maker.open_store("1ms", "disk")


class SleepStoreTests(SynchronousTestCase):
    """
    The sleep store blocks its worker.
    """

    def test_a_put_takes_the_time_of_its_key(self) -> None:
        """
        At its end; nothing else takes time.
        """
        slept: list[float] = []
        self.patch(time, "sleep", slept.append)
        store = maker.open_store("3x10ms,210ms", "disk")
        self.addCleanup(store.close)
        expected = []
        for number in range(20):
            key = Key(f"a/{number}".encode())
            expected.append(time_for([0.01] * 3 + [0.21], key))
            upload = store.begin(key, 2)
            upload.write(b"ab")
            assert number == len(slept)
            upload.commit(UNCONDITIONAL)

        assert expected == slept
        assert {0.01, 0.21} == set(slept)

    def test_its_maker_provides_the_interface(self) -> None:
        """
        And keeps the times as they were written.
        """
        assert verifyObject(IStoreMaker, maker)
        assert "3x10ms,210ms" == maker.resolve("3x10ms,210ms")


def test_times_are_repeated_as_often_as_stated() -> None:
    """
    Once, if no number is given.
    """
    assert [0.01, 0.01, 0.21] == read_times("2x10ms,210ms")
    assert [1.0, 0.002] == read_times("1,2ms")


@pytest.mark.parametrize("text", ["", "slow", "0x10ms", "x10ms", "10ms,", "61s"])
def test_what_is_no_time_is_refused(text: str) -> None:
    """
    With examples.
    """
    with pytest.raises(BadSetting, match=r"such as sleep:10ms or"):
        maker.resolve(text)
