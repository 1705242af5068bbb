"""
The tests of `kvd.store.null`.
"""

import os
from unittest import mock

import pytest
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kvd.errors import BadSetting, StoreFault, StoreUnusable
from kvd.interfaces import IStore, IStoreMaker
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.store.null import NullStore, maker
from kvd.testing import UploadContract

KEY = Key(b"key")


class NullStoreContractTests(UploadContract, SynchronousTestCase):
    """
    `NullStore` accepts values like any other store.
    """

    def make_store(self) -> IStore:
        return maker.open_store("", "disk")


class NullStoreTests(SynchronousTestCase):
    """
    `NullStore` keeps nothing.
    """

    def setUp(self) -> None:
        self.store = NullStore()
        self.addCleanup(self.store.close)

    def test_promises_nothing(self) -> None:
        """
        Its durability is none.
        """
        assert "none" == self.store.durability

    def test_committed_value_is_absent(self) -> None:
        """
        A committed value is not there, and each commit creates it again.
        """
        for _ in range(2):
            upload = self.store.begin(KEY, 3)
            upload.write(b"abc")
            assert upload.commit(UNCONDITIONAL).created

        assert () == self.store.list(b"", b"", None).next_slice()

    def test_chunks_may_be_spliced(self) -> None:
        """
        The descriptor of an upload is /dev/null itself; the size is then the announced
        length.
        """
        upload = self.store.begin(KEY, 12)
        upload.write(b"part")

        assert os.fstat(upload.fileno()).st_rdev == os.stat(os.devnull).st_rdev
        assert 12 == upload.commit(UNCONDITIONAL).info.size

    def test_failing_write_is_a_fault(self) -> None:
        """
        An error of the descriptor is raised as a fault of the store.
        """
        upload = self.store.begin(KEY, None)
        broken = mock.patch("os.write", side_effect=OSError(5, "Input/output error"))
        with broken, pytest.raises(StoreFault) as fault:
            upload.write(b"x")

        assert (
            "/dev/null cannot be written: Input/output error." == fault.value.sentence
        )


class NullStoreMakerTests(SynchronousTestCase):
    """
    The null store has no location.
    """

    def test_provides_its_interface(self) -> None:
        """
        The maker is one.
        """
        assert verifyObject(IStoreMaker, maker)

    def test_location_is_refused(self) -> None:
        """
        The setting ends with the colon; the refusal quotes what follows it.
        """
        assert "" == maker.resolve("")

        with pytest.raises(BadSetting) as refusal:
            maker.resolve("./values")
        assert "./values" in refusal.value.sentence

    def test_missing_device_is_reported_at_the_start(self) -> None:
        """
        Without /dev/null the store is unusable.
        """
        maker.prepare("")
        missing = mock.patch(
            "os.open", side_effect=FileNotFoundError(2, "No such file")
        )
        with missing, pytest.raises(StoreUnusable):
            maker.prepare("")
