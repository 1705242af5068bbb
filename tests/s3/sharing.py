"""
Several stores in one bucket, in a real engine and in the double of it.
"""

from __future__ import annotations

from kvd.model.keys import Key
from kvd.model.values import Folder
from kvd.s3 import listing
from kvd.testing import StoreContract
from tests.s3.cases import EngineCase


class SharedBucket(EngineCase, StoreContract):
    """
    A store lists its own values, whatever else is in the bucket.
    """

    def test_prefix_below_another_one(self) -> None:
        """
        The names of the inner store are between those of the outer one, where the
        engine has its own order: SeaweedFS lists what is in ``b/`` before ``b.c``.
        """
        self.patch(listing, "PAGE_KEYS", 2)
        outer = self.make_store()
        inner = self.make_store(f"{outer._prefix}b/")
        theirs = [Key(b"%d" % number) for number in range(7)]
        ours = [Key(name) for name in (b"a", b"b-x", b"b/c", b"b/d", b"b0", b"z")]
        for store, keys in ((inner, theirs), (outer, ours)):
            for key in keys:
                self.put(store, key, b"")

        assert ours == self.keys(outer)
        assert theirs == self.keys(inner)
        for number, key in enumerate(ours):
            assert ours[number + 1 :][:2] == self.keys(outer, after=key, limit=2)
        folders = [Key(b"a"), Key(b"b-x"), Folder(b"b/"), Key(b"b0"), Key(b"z")]
        assert folders == [
            each if isinstance(each, Folder) else each.key
            for each in self.entries(outer, b"", limit=100)
        ]
