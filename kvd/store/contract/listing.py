"""
What a store promises of its listings.
"""

from __future__ import annotations

from kvd.interfaces import IListing
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.model.values import Folder, entry_key
from kvd.store.contract.asking import Asking
from kvd.store.level import list_folder

# "-" < "." < "/" < "0": the order of whole keys is not that of folders.
KEYS = [
    b"a",
    b"b-x",
    b"b.x",
    b"b/c",
    b"b/c-d",
    b"b/d/e",
    b"b/d/f",
    b"b0",
    b"c/\xff",
    b"c\xff/x",
]


class ListingContract(Asking):
    """
    A listing has each value that stays exactly once.
    """

    def test_everything_is_listed(self) -> None:
        """
        Without a prefix all values are listed, as a stream and as a page.
        """
        store = self.make_store()
        for key in KEYS:
            self.put(store, Key(key))

        assert sorted(KEYS) == self.keys(store)
        assert sorted(KEYS) == self.keys(store, limit=len(KEYS))
        assert sorted(KEYS) == self.keys(store, limit=1000)

    def test_listing_says_what_stat_says(self) -> None:
        """
        A listed value has its size, entity tag, time and metadata.
        """
        store = self.make_store()
        info = self.put(store, Key(b"a/b"), metadata={"content-type": "a/b"}).info

        assert [info] == [*self.walk(store)]
        assert [info] == [*self.walk(store, limit=1)]

    def test_prefix_is_a_folder(self) -> None:
        """
        Only keys below the prefix are listed; if no key has or could have the prefix,
        the listing is empty.
        """
        store = self.make_store()
        for key in KEYS:
            self.put(store, Key(key))

        for limit in (None, 100):
            assert [b"b/c", b"b/c-d", b"b/d/e", b"b/d/f"] == self.keys(
                store, b"b/", limit=limit
            )
            assert [b"b/d/e", b"b/d/f"] == self.keys(store, b"b/d/", limit=limit)
            for prefix in (b"a/", b"x/", b"b/d/e/", b"../", b"b/../b/", b"//"):
                assert [] == self.keys(store, prefix, limit=limit)
            assert [] == self.keys(store, b"n" * 300 + b"/", limit=limit)

    def test_pages_continue(self) -> None:
        """
        Pages of any size, each after the last key of the one before, contain all keys
        in the order of their bytes; a short page is the last.
        """
        store = self.make_store()
        for key in KEYS:
            self.put(store, Key(key))

        for limit in (1, 2, 3, 7):
            found: list[bytes] = []
            while len(page := self.keys(store, b"", (found or [b""])[-1], limit)):
                assert len(page) == min(limit, len(KEYS) - len(found))
                found += page
            assert sorted(KEYS) == found

    def test_page_begins_after_any_key(self) -> None:
        """
        The start of a page need not be a stored key, nor a valid one.
        """
        store = self.make_store()
        for key in KEYS:
            self.put(store, Key(key))

        for after in (b"", b"b", b"b/", b"b/c", b"b/d/ee", b"b\xff", b"\xff", b"a\0"):
            expected = [key for key in sorted(KEYS) if key > after]
            assert expected[:3] == self.keys(store, b"", after, 3)
            assert [key for key in expected if key.startswith(b"b/")] == self.keys(
                store, b"b/", after, 100
            )

    def test_many_values_come_in_slices(self) -> None:
        """
        More values than fit into a slice are all listed, each once; a walk that was
        closed early returns no more.
        """
        store = self.make_store()
        keys = [b"%03d/x" % number for number in range(self.many_values)]
        for key in keys:
            self.put(store, Key(key), b"")

        assert keys == self.keys(store)
        listing = store.list(b"", b"", None)
        assert 0 < len(self.result(listing.next_slice())) < self.many_values
        listing.close()
        assert [] == [*self.result(listing.next_slice())]

    def test_walks_do_not_meet(self) -> None:
        """
        Simultaneous walks are independent.
        """
        store = self.make_store()
        keys = [b"%03d" % number for number in range(2 * self.many_values)]
        for key in keys:
            self.put(store, Key(key), b"")
        walks = [store.list(b"", b"", None) for _ in range(3)]
        found: dict[IListing, list[bytes]] = {walk: [] for walk in walks}
        while walks:
            assert keys[:5] == self.keys(store, limit=5)
            for walk in [*walks]:
                taken = self.result(walk.next_slice())
                found[walk] += [info.key for info in taken]
                if not taken:
                    walks.remove(walk)

        assert [keys, keys, keys] == [sorted(each) for each in found.values()]

    def test_values_come_and_go_during_a_walk(self) -> None:
        """
        A value that stays during a walk is listed exactly once, whatever else is
        published and removed.
        """
        store = self.make_store()
        numbers = range(self.many_values)
        stay = [b"stay/%03d" % number for number in numbers]
        go = [b"go/%03d" % number for number in numbers]
        for key in stay + go:
            self.put(store, Key(key), b"")
        listing = store.list(b"", b"", None)
        found = [info.key for info in self.result(listing.next_slice())]
        for key in go:
            self.result(store.remove(Key(key), UNCONDITIONAL))
            self.put(store, Key(b"come/" + key), b"")
        while taken := self.result(listing.next_slice()):
            found += [info.key for info in taken]
        listing.close()

        assert stay == sorted(key for key in found if key.startswith(b"stay/"))

    def test_one_folder_is_listed_without_what_is_below(self) -> None:
        """
        The values in it as they are described elsewhere, and each folder once, in the
        order of bytes where that matters.
        """
        store = self.make_store()
        infos = {key: self.put(store, Key(key)).info for key in KEYS}
        root = [
            infos[b"a"],
            infos[b"b-x"],
            infos[b"b.x"],
            Folder(b"b/"),
            infos[b"b0"],
            Folder(b"c/"),
            Folder(b"c\xff/"),
        ]
        inner = [infos[b"b/c"], infos[b"b/c-d"], Folder(b"b/d/")]

        for limit in (None, len(root), 100):
            assert root == self.entries(store, b"", limit=limit)
        for limit in (None, 100):
            assert inner == self.entries(store, b"b/", limit=limit)
            for prefix in (b"a/", b"x/", b"b/c/", b"../", b"//"):
                assert [] == self.entries(store, prefix, limit=limit)

    def test_pages_of_a_folder_continue(self) -> None:
        """
        Each after the last entry of the one before, or after any other name; a short
        page is the last.
        """
        store = self.make_store()
        for key in KEYS:
            self.put(store, Key(key))
        root = self.entries(store)

        for limit in (1, 2, 3, 7):
            found = self.entries(store, b"", b"", limit)
            while len(found) % limit == 0 and len(found) < len(root):
                found = [
                    *found,
                    *self.entries(store, b"", entry_key(found[-1]), limit),
                ]
            assert root == found
        for after in (b"b", b"b/", b"b/c", b"b/d/ee", b"b\xff", b"\xff"):
            expected = [entry for entry in root if entry_key(entry) > after]
            assert expected[:3] == self.entries(store, b"", after, 3)

    def test_large_folder_comes_in_slices(self) -> None:
        """
        Each value and folder once, and a walk that is closed returns no more.
        """
        store = self.make_store()
        numbers = range(self.many_values)
        for number in numbers:
            self.put(store, Key(b"f/%03d/x" % number), b"")
            self.put(store, Key(b"f/v%03d" % number), b"")

        names = [entry_key(entry) for entry in self.entries(store, b"f/")]
        expected = [b"f/%03d/" % number for number in numbers]
        assert expected + [b"f/v%03d" % number for number in numbers] == names
        assert [Folder(b"f/")] == self.entries(store)
        listing = list_folder(store, b"f/")
        assert 0 < len(self.result(listing.next_slice())) <= 2 * self.many_values
        listing.close()
        assert [] == [*self.result(listing.next_slice())]

    def test_removed_folder_is_not_listed(self) -> None:
        """
        A folder is there as long as it has a value.
        """
        store = self.make_store()
        for key in (b"a/b/c", b"a/d"):
            self.put(store, Key(key))
        self.result(store.remove(Key(b"a/b/c"), UNCONDITIONAL))

        assert [b"a/d"] == [entry_key(entry) for entry in self.entries(store, b"a/")]
        self.result(store.remove(Key(b"a/d"), UNCONDITIONAL))
        assert [] == self.entries(store)

    def test_prefix_of_a_value_is_known_without_a_listing(self) -> None:
        """
        A folder is there if it has a value at any depth, and only then.
        """
        store = self.make_store()
        for prefix in (b"", b"a/", b"a/b/"):
            assert not self.has_values(store, prefix)
        for key in (b"a/b/c/d", b"a/b/e", b"ab"):
            self.put(store, Key(key), b"")

        for prefix in (b"", b"a/", b"a/b/", b"a/b/c/"):
            assert self.has_values(store, prefix)
        for prefix in (b"b/", b"a/b/c/d/", b"a/c/", b"ab/", b"a/b/e/"):
            assert not self.has_values(store, prefix)
        self.result(store.remove(Key(b"a/b/c/d"), UNCONDITIONAL))
        assert not self.has_values(store, b"a/b/c/")
        assert self.has_values(store, b"a/")
        self.result(store.remove(Key(b"a/b/e"), UNCONDITIONAL))
        assert not self.has_values(store, b"a/")
        assert self.has_values(store, b"")
