"""
What every store promises, as tests: whoever writes a store mixes these into a
test case of theirs.

    class ShelfTests(StoreContract, SynchronousTestCase):
        def make_store(self) -> IStore:
            return ShelfStore(...)

`UploadContract` holds even for a store that keeps nothing; `StoreContract` is
for all others. A store whose answers take time overrides `wait_for`; one whose values
have descriptors sets `has_descriptors`.
"""

from kvd.store.contract.keeping import ValueContract
from kvd.store.contract.listing import ListingContract
from kvd.store.contract.uploading import UploadContract

__all__ = ["StoreContract", "UploadContract"]


class StoreContract(UploadContract, ValueContract, ListingContract):
    """
    Everything that a store promises which keeps values.
    """
