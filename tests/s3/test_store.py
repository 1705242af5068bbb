"""
The tests of `kvd.s3.store`.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvd.s3 import listing
from kvd.testing import StoreContract
from tests.s3.cases import EngineCase


class ObjectStoreTests(EngineCase, StoreContract):
    """
    `ObjectStore` is a store.
    """

    has_folders = False
    max_key_bytes = 1000
    many_values = 30

    def setUp(self) -> None:
        self.patch(listing, "SLICE_KEYS", 10)
        super().setUp()

    def debris(self) -> Sequence[object]:
        """
        Uploads that the engine still knows.
        """
        return [*self.memory.uploads]
