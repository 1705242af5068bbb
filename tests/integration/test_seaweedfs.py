"""
The store over a real engine: SeaweedFS, started once, and what it has in common with
the double of it (`tests.s3.memory_engine`).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvd.s3 import listing
from kvd.s3.store import ObjectStore
from kvd.testing import StoreContract
from tests.s3 import contract
from tests.s3.cases import EngineCase
from tests.s3.seaweedfs import SeaweedFS

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def seaweedfs() -> Iterator[SeaweedFS]:
    """
    One node.
    """
    with tempfile.TemporaryDirectory() as folder:
        engine = SeaweedFS(Path(folder))
        try:
            engine.start()
            yield engine
        finally:
            engine.stop()


class SeaweedFSCase(EngineCase):
    """
    A test case with SeaweedFS, which takes as long as it takes.
    """

    step_seconds = turn_seconds = 0.01

    @pytest.fixture(autouse=True)
    def _with_engine(self, seaweedfs: SeaweedFS) -> None:
        self.seaweedfs = seaweedfs

    def setUp(self) -> None:
        super().setUp()
        self.urls[:] = self.seaweedfs.urls

    def make_store(self, prefix: str = "") -> ObjectStore:
        """
        A store of its own.
        """
        return super().make_store(prefix or f"tests/{os.urandom(8).hex()}/")


class SeaweedFSContractTests(contract.EngineContract, SeaweedFSCase):
    """
    SeaweedFS behaves as the double.
    """


class SeaweedFSStoreTests(SeaweedFSCase, StoreContract):
    """
    `ObjectStore` in SeaweedFS is a store.
    """

    has_folders = False
    max_key_bytes = 980
    many_values = 30

    def setUp(self) -> None:
        self.patch(listing, "SLICE_KEYS", 10)
        super().setUp()
