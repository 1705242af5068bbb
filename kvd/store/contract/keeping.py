"""
What a store that keeps values promises.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from kvd.errors import KeyAbsent, KeyConflict, PreconditionFailed, StoreFault
from kvd.interfaces import Answer, IValue
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import MAX_SEGMENT_BYTES, Key
from kvd.model.values import LEAST_METADATA_BYTES
from kvd.store.contract.asking import ABSENT, KEY, PRESENT, Asking, holds
from kvd.store.copying import copy_bytes


class ValueContract(Asking):
    """
    A value is wholly old, wholly new, or absent.
    """

    # -- what comes back ------------------------------------------------------

    def test_value_comes_back(self) -> None:
        """
        What was written is read, and all descriptions of it agree.
        """
        store = self.make_store()
        body = bytes(range(256)) * 1024

        published = self.put(store, KEY, body, metadata={"content-type": "a/b"})
        value = self.value(store)

        assert verifyObject(IValue, value)
        assert published.info == value.info
        assert published.info == self.result(store.stat(KEY))
        assert body[100:200] == self.result(value.read(100, 100))
        assert body == self.body(value)

    def test_descriptor_holds_the_value(self) -> None:
        """
        In a store with descriptors each large value has one, and the file holds that
        value; in other stores no value has one.
        """
        store = self.make_store()
        body = bytes(range(256)) * 4096
        self.put(store, KEY, body)
        value = self.value(store)
        descriptor = value.fileno()

        assert self.has_descriptors == (descriptor is not None)
        if descriptor is not None:
            assert body == os.pread(descriptor, 2 * len(body), 0)
        value.close()

    def test_descriptor_continues_the_upload(self) -> None:
        """
        What is written to an upload's descriptor follows what was written to the
        upload; in a store without descriptors it has none.
        """
        store = self.make_store()
        upload = self.begin(store)
        self.result(upload.write(b"written, "))
        descriptor = upload.fileno()
        assert self.has_descriptors == (descriptor is not None)
        if descriptor is None:
            self.result(upload.write(b"spliced"))
        else:
            os.write(descriptor, b"spliced")

        assert 16 == self.result(upload.commit(UNCONDITIONAL)).info.size
        assert b"written, spliced" == self.get(store)

    def test_empty_value_is_a_value(self) -> None:
        """
        An empty value is stored and found, even if nothing was written.
        """
        store = self.make_store()
        self.put(store, KEY, b"")
        self.result(self.begin(store, Key(b"other")).commit(UNCONDITIONAL))

        assert b"" == self.get(store)
        assert 0 == self.result(store.stat(Key(b"other"))).size

    def test_metadata_comes_back(self) -> None:
        """
        Metadata of any text, and as large as every store keeps, is kept; a new value
        has its own.
        """
        store = self.make_store()
        metadata = {
            "content-type": 'text/plain; charset="utf-8"',
            "content-language": "",
            "content-disposition": ": \u00e9 \u00ff :",
            "x-amz-meta-any.thing": "\u00e9",
            "dav.executable": "T",
        }
        used = sum(len(name) + len(value.encode()) for name, value in metadata.items())
        room = LEAST_METADATA_BYTES - used - len("cache-control")
        metadata["cache-control"] = "v" * room

        self.put(store, metadata=metadata)
        assert metadata == self.result(store.stat(KEY)).metadata

        self.put(store)
        assert {} == self.result(store.stat(KEY)).metadata

    def test_time_of_change_is_that_of_publication(self) -> None:
        """
        An upload that was overtaken by another becomes the newer value.
        """
        store = self.make_store()
        slow = self.begin(store)
        self.result(slow.write(b"slow"))
        fast = self.put(store, body=b"fast").info
        published = self.result(slow.commit(UNCONDITIONAL)).info

        assert fast.changed <= published.changed
        assert published == self.result(store.stat(KEY))

    def test_time_of_change_stays(self) -> None:
        """
        The time of change of a value is always the same.
        """
        store = self.make_store()
        changed = self.put(store).info.changed
        self.put(store, Key(b"other"))

        assert changed == self.result(store.stat(KEY)).changed

    # -- old and new ----------------------------------------------------------

    def test_upload_is_unseen_before_its_commit(self) -> None:
        """
        Until the commit the key has no value, or its old one.
        """
        store = self.make_store()
        upload = self.begin(store)
        self.result(upload.write(b"new"))
        self.error(KeyAbsent, lambda: store.open(KEY))
        self.put(store, body=b"old")

        assert b"old" == self.get(store)
        assert [KEY] == self.keys(store)
        assert not self.result(upload.commit(UNCONDITIONAL)).created
        assert b"new" == self.get(store)

    def test_discarded_upload_leaves_the_old_value(self) -> None:
        """
        A discarded upload changes nothing.
        """
        store = self.make_store()
        self.put(store, body=b"old")
        upload = self.begin(store)
        self.result(upload.write(b"new"))
        upload.discard()

        assert b"old" == self.get(store)
        assert [] == self.debris()

    def test_upload_whose_client_has_left_is_not_kept(self) -> None:
        """
        Its Deferred is cancelled, unless it has fired already. The old value stays, and
        nothing is left behind.
        """
        store = self.make_store()
        self.put(store, body=b"old")
        began = store.begin(KEY, 3)
        if isinstance(began, Deferred):
            began.cancel()
            began.addCallback(lambda upload: upload.discard())
            began.addErrback(lambda failure: failure.trap(CancelledError))
        else:
            began.discard()

        assert b"old" == self.get(store)
        assert [] == self.debris()

    def test_value_whose_client_has_left_is_not_left_open(self) -> None:
        """
        Its Deferred is cancelled, or that of a read. Others get the value.
        """
        store = self.make_store()
        self.put(store, body=b"value")
        opening = store.open(KEY)
        if isinstance(opening, Deferred):
            opening.cancel()
            opening.addCallback(lambda value: value.close())
            opening.addErrback(lambda failure: failure.trap(CancelledError))
        else:
            opening.close()
        value = self.result(store.open(KEY))
        reading = value.read(0, 5)
        if isinstance(reading, Deferred):
            reading.cancel()
            reading.addErrback(lambda failure: failure.trap(CancelledError))
        value.close()

        assert b"value" == self.get(store)

    def test_wrong_length_is_not_published(self) -> None:
        """
        An upload with more or fewer bytes than announced fails.
        """
        store = self.make_store()

        for length in (2, 4):
            upload = self.begin(store, length=length)
            self.result(upload.write(b"abc"))
            self.error(StoreFault, lambda: upload.commit(UNCONDITIONAL))  # noqa: B023

        self.error(KeyAbsent, lambda: store.open(KEY))
        assert [] == self.debris()

    def test_reader_keeps_its_value(self) -> None:
        """
        An open value can be read to the end after it was replaced and removed.
        """
        store = self.make_store()
        old = self.put(store, body=b"old value").info
        first = self.value(store)
        self.put(store, body=b"new")
        second = self.value(store)
        self.result(store.remove(KEY, UNCONDITIONAL))

        assert old == first.info
        assert b"old value" == self.body(first)
        assert b"new" == self.body(second)

    def test_removed_value_is_gone(self) -> None:
        """
        A removed value is absent, cannot be removed again, and can be stored again.
        """
        store = self.make_store()
        self.put(store)
        self.result(store.remove(KEY, UNCONDITIONAL))

        self.error(KeyAbsent, lambda: store.open(KEY))
        self.error(KeyAbsent, lambda: store.remove(KEY, UNCONDITIONAL))
        assert [] == self.keys(store)
        assert self.put(store).created

    # -- conditions -----------------------------------------------------------

    def test_create_once(self) -> None:
        """
        Of two uploads that may only create, the first commit wins.
        """
        store = self.make_store()
        first, second = self.begin(store), self.begin(store)
        self.result(first.write(b"first"))
        self.result(second.write(b"second"))

        assert self.result(second.commit(ABSENT)).created
        self.error(PreconditionFailed, lambda: first.commit(ABSENT))
        assert b"second" == self.get(store)
        assert [] == self.debris()

    def test_compare_and_swap(self) -> None:
        """
        ``If-Match`` replaces only the value that it names.
        """
        store = self.make_store()
        old = self.put(store, body=b"old").info.etag
        new = self.put(store, body=b"new", conditions=holds(old)).info.etag
        late = self.begin(store)

        self.error(PreconditionFailed, lambda: late.commit(holds(old)))
        assert b"new" == self.get(store)
        assert not self.put(store, conditions=PRESENT).created
        self.error(PreconditionFailed, lambda: store.remove(KEY, holds(new)))
        assert [] == self.debris()

    def test_remove_what_was_meant(self) -> None:
        """
        A removal with ``If-Match`` removes the value that it names.
        """
        store = self.make_store()
        etag = self.put(store).info.etag
        self.error(PreconditionFailed, lambda: store.remove(KEY, holds("other")))
        self.result(store.remove(KEY, holds(etag)))

        self.error(KeyAbsent, lambda: store.stat(KEY))

    # -- keys -----------------------------------------------------------------

    def test_keys_at_the_limits(self) -> None:
        """
        The longest keys and segments, the most segments, and every byte that
        a key may have are kept apart.
        """
        store = self.make_store()
        segment = b"s" * MAX_SEGMENT_BYTES
        longest = self.max_key_bytes
        keys = [
            Key(segment),
            Key(((b"t" * 254 + b"/") * 4 + b"tttt")[:longest]),
            Key(b"d/" * (longest // 2 - 1) + b"d"),
            Key(bytes(b for b in range(0x20, 0x7F) if b != 0x2F)),
            Key(bytes(range(0x80, 0x100))),
            Key(b"%2F"),
            Key(b"..."),
            Key(b"-rf"),
            Key(b"in/.kvd"),
        ]
        assert longest == len(keys[1])
        for number, key in enumerate(keys):
            self.put(store, key, b"%d" % number)

        assert sorted(keys) == self.keys(store)
        assert sorted(keys) == self.keys(store, limit=100)
        for number, key in enumerate(keys):
            assert b"%d" % number == self.get(store, key)
            self.result(store.remove(key, UNCONDITIONAL))
        assert [] == self.keys(store)

    def test_key_that_is_a_folder_conflicts(self) -> None:
        """
        A key that is a folder of other keys cannot have a value; in a store without
        folders it can.
        """
        store = self.make_store()
        if not self.has_folders:
            self.put(store, Key(b"a/b/c"), b"below")
            self.put(store, Key(b"a"), b"above")
            assert b"below" == self.get(store, Key(b"a/b/c"))
            assert b"above" == self.get(store, Key(b"a"))
            self.error(KeyAbsent, lambda: store.open(Key(b"a/b")))
            return
        early = self.begin(store, Key(b"a/b"))
        self.put(store, Key(b"a/b/c"))

        self.error(KeyConflict, lambda: store.begin(Key(b"a"), None))
        self.error(KeyConflict, lambda: early.commit(UNCONDITIONAL))
        self.error(KeyAbsent, lambda: store.open(Key(b"a")))
        self.error(KeyAbsent, lambda: store.remove(Key(b"a/b"), UNCONDITIONAL))
        assert [] == self.debris()

    def test_key_that_leads_through_a_value_conflicts(self) -> None:
        """
        A key below a value cannot have a value; in a store without folders it can.
        """
        store = self.make_store()
        if not self.has_folders:
            self.put(store, Key(b"a"), b"above")
            self.put(store, Key(b"a/b"), b"below")
            self.result(store.remove(Key(b"a"), UNCONDITIONAL))
            assert b"below" == self.get(store, Key(b"a/b"))
            return
        early = self.begin(store, Key(b"a/b/c"))
        self.put(store, Key(b"a"), b"file")

        self.error(KeyConflict, lambda: store.begin(Key(b"a/b"), None))
        self.error(KeyConflict, lambda: early.commit(UNCONDITIONAL))
        self.error(KeyAbsent, lambda: store.open(Key(b"a/b")))
        self.error(KeyAbsent, lambda: store.remove(Key(b"a/b"), UNCONDITIONAL))
        assert b"file" == self.get(store, Key(b"a"))
        assert [] == self.debris()

    def test_emptied_folder_is_free(self) -> None:
        """
        Once the last key below it is removed, the name of a folder is a free key, and
        vice versa.
        """
        store = self.make_store()
        self.put(store, Key(b"a/b/c"))
        self.result(store.remove(Key(b"a/b/c"), UNCONDITIONAL))
        self.put(store, Key(b"a"))
        self.result(store.remove(Key(b"a"), UNCONDITIONAL))

        assert self.put(store, Key(b"a/b")).created

    # -- copies ---------------------------------------------------------------

    def test_value_is_copied(self) -> None:
        """
        A copy has the bytes of the value, and is published like any upload.
        """
        store = self.make_store()
        body = bytes(range(256)) * 4100
        self.put(store, KEY, body)
        value = self.value(store)
        metadata = {"content-type": "a/b"}
        upload = self.begin(store, Key(b"to/copy"), len(body), metadata, ABSENT)
        copying = copy_bytes(value, upload, _there, _Immediate())
        answer: Answer[bool] = Deferred.fromCoroutine(_true_after(copying))
        assert self.result(answer)

        self.error(KeyAbsent, lambda: store.open(Key(b"to/copy")))
        copied = self.result(upload.commit(ABSENT))
        assert body == self.get(store, Key(b"to/copy"))
        assert {"content-type": "a/b"} == copied.info.metadata
        assert copied.info.etag != value.info.etag
        assert body == self.body(value) == self.get(store, KEY)
        assert [] == self.debris()


async def _true_after(work: Coroutine[Any, Any, None]) -> bool:
    await work
    return True


def _there(descriptor: int, offset: int, count: int) -> None:
    """
    All of the file is in memory.
    """


class _Immediate(Clock):
    """
    What is to be called later is called at once.
    """

    def callLater(  # type: ignore[override]
        self, when: float, what: Callable[..., object], *args: object, **kwargs: object
    ) -> IDelayedCall:
        call = super().callLater(when, what, *args, **kwargs)
        self.advance(when)
        return call
