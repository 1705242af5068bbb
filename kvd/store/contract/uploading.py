"""
What every store promises for uploads, even one that keeps nothing.
"""

from __future__ import annotations

from zope.interface.verify import verifyObject

from kvd.errors import KeyAbsent, PreconditionFailed
from kvd.interfaces import IListing, IStore, IUpload
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.store.contract.asking import KEY, PRESENT, Asking, holds


class UploadContract(Asking):
    """
    A store accepts values and describes what it has published.
    """

    def test_provides_the_interfaces(self) -> None:
        """
        The store and its objects provide their interfaces.
        """
        store = self.make_store()
        upload = self.begin(store)

        assert verifyObject(IStore, store)
        assert verifyObject(IUpload, upload)
        assert verifyObject(IListing, store.list(b"", b"", None))
        upload.discard()

    def test_names_its_durability(self) -> None:
        """
        The store names the durability of its answers.
        """
        assert self.make_store().durability in ("disk", "process", "engine", "none")

    def test_commit_describes_what_was_published(self) -> None:
        """
        A commit answers with the key, size, metadata and entity tag of the value.
        """
        store = self.make_store()

        published = self.put(store, KEY, b"12345", metadata={"content-type": "a/b"})

        assert published.created
        assert (KEY, 5) == (published.info.key, published.info.size)
        assert {"content-type": "a/b"} == published.info.metadata
        assert published.info.etag

    def test_entity_tags_are_unique_per_write(self) -> None:
        """
        The same bytes under the same key get a new entity tag.
        """
        store = self.make_store()

        first, second = self.put(store), self.put(store)

        assert first.info.etag != second.info.etag

    def test_length_may_be_unknown(self) -> None:
        """
        If no length was given, the size of a value is the number of bytes written.
        """
        upload = self.begin(self.make_store(), length=None)
        for chunk in (b"some ", b"", b"chunks"):
            self.result(upload.write(chunk))

        assert 11 == self.result(upload.commit(UNCONDITIONAL)).info.size

    def test_discard_may_be_repeated(self) -> None:
        """
        A second discard, or one after a commit, does nothing.
        """
        store = self.make_store()
        discarded = self.begin(store)
        self.result(discarded.write(b"half"))
        discarded.discard()
        discarded.discard()
        committed = self.begin(store)
        self.result(committed.commit(UNCONDITIONAL))
        committed.discard()

        assert [] == self.debris()

    def test_absent_value_does_not_match(self) -> None:
        """
        ``If-Match`` fails for a key without a value, even if it is ``*``.
        """
        store = self.make_store()

        for conditions in (holds("some-tag"), PRESENT):
            upload = self.begin(store)
            self.error(PreconditionFailed, lambda: upload.commit(conditions))  # noqa: B023

        assert [] == self.debris()

    def test_absent_value_is_absent_everywhere(self) -> None:
        """
        Opening, describing and removing an absent value fail in the same way, whatever
        the conditions.
        """
        store = self.make_store()

        for key in (KEY, Key(b"in/a/folder"), Key(b"n" * 255)):
            self.error(KeyAbsent, lambda: store.open(key))  # noqa: B023
            self.error(KeyAbsent, lambda: store.stat(key))  # noqa: B023
            self.error(KeyAbsent, lambda: store.remove(key, holds("x")))  # noqa: B023

    def test_empty_store_lists_nothing(self) -> None:
        """
        A listing without values is empty, as a stream, as a page, and when asked again.
        """
        store = self.make_store()

        for prefix in (b"", b"no/such/"):
            for limit in (None, 10):
                listing = store.list(prefix, b"", limit)
                assert [] == [*self.result(listing.next_slice())]
                assert [] == [*self.result(listing.next_slice())]
                listing.close()
                listing.close()

    def test_close_ends_it(self) -> None:
        """
        A store closes after its uploads have ended.
        """
        store = self.make_store()
        self.put(store)

        self.result(store.close())
