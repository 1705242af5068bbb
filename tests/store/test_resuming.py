"""
Tests for `kvd.store.resuming` and `kvd.store.resumption`: uploads that several requests
write.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest

from kvd.errors import (
    BadRequest,
    PreconditionFailed,
    StoreBusy,
    StoreFault,
    UploadAbsent,
)
from kvd.interfaces import IResumableUpload
from kvd.model.conditions import UNCONDITIONAL, Conditions, EntityTags
from kvd.model.keys import Key
from kvd.model.uploads import UploadRecord
from kvd.store import resuming
from kvd.store.file import FileStore
from kvd.store.resumption import SWEEP_EVERY_SECONDS
from kvd.store.uploads import sweep
from tests.store.cases import KEY, FileStoreCase, placing_in_python

RECORD = UploadRecord(KEY, 6, {"content-type": "text/plain"}, user="ann")


class ResumingTests(FileStoreCase):
    """
    An upload is begun by one process and finished by another.
    """

    def begun(
        self, store: FileStore, record: UploadRecord = RECORD
    ) -> IResumableUpload:
        """
        Begin an upload.
        """
        upload = self.result(store.resumable.begin(record))
        assert upload is not None
        return upload

    def resume(
        self, store: FileStore, identity: str, length: int | None = None
    ) -> IResumableUpload:
        """
        Go on, as its user.
        """
        return store.resumable.resume(identity, KEY, "ann", length)

    def half(self, store: FileStore, record: UploadRecord = RECORD) -> str:
        """
        Write the first half of one, which is at rest then.
        """
        upload = self.begun(store, record)
        self.result(upload.write(b"abc"))
        upload.suspend()
        return upload.identity

    def test_another_process_finishes_it(self) -> None:
        """
        The value is that of both, with its metadata; nothing of it was seen before.
        """
        identity = self.half(self.open_store())
        assert [] == self.found()

        second = self.open_store()
        record, size = second.resumable.look(identity, KEY, "ann")
        assert (RECORD, 3) == (record, size)
        upload = self.resume(second, identity)
        assert 3 == upload.offset
        self.result(upload.write(b"def"))
        published = self.result(upload.commit(record.conditions))

        assert published.created
        value = self.result(second.open(KEY))
        self.addCleanup(value.close)
        assert b"abcdef" == value.read(0, 9)
        assert {"content-type": "text/plain"} == value.info.metadata
        assert ["key"] == self.found()
        assert 1 == os.stat(os.path.join(self.path, "key")).st_nlink

    def test_it_is_told_that_it_is_done(self) -> None:
        """
        To a client that did not get the reply; it can not be written to any more.
        """
        store = self.open_store()
        identity = self.half(store)
        upload = self.resume(store, identity)
        self.result(upload.write(b"def"))
        self.result(upload.commit(UNCONDITIONAL))

        record, size = store.resumable.look(identity, KEY, "ann")
        assert (True, 6) == (record.done, size)
        with pytest.raises(UploadAbsent):
            self.resume(store, identity)
        store.resumable.cancel(identity, KEY, "ann")
        assert [] == self.debris()
        assert b"abcdef" == self.get(store)

    def test_one_request_writes_at_a_time(self) -> None:
        """
        Also in different processes; the others are told to try again.
        """
        first, second = self.open_store(), self.open_store()
        upload = self.begun(first)
        for store in (first, second):
            with pytest.raises(StoreBusy):
                self.resume(store, upload.identity)
            with pytest.raises(StoreBusy):
                store.resumable.cancel(upload.identity, KEY, "ann")
        upload.suspend()
        self.resume(second, upload.identity).suspend()

    def test_it_is_its_users(self) -> None:
        """
        And of its key; others cannot tell that there is one.
        """
        store = self.open_store()
        identity = self.half(store)
        for name, key, user in (
            (identity, KEY, "bob"),
            (identity, KEY, None),
            (identity, Key(b"other"), "ann"),
            ("0" * 32, KEY, "ann"),
            ("../lock", KEY, "ann"),
            (identity + ".json", KEY, "ann"),
            ("", KEY, "ann"),
        ):
            with pytest.raises(UploadAbsent):
                store.resumable.look(name, key, user)
            with pytest.raises(UploadAbsent):
                store.resumable.resume(name, key, user, None)
            with pytest.raises(UploadAbsent):
                store.resumable.cancel(name, key, user)

    def test_its_length_is_said_once(self) -> None:
        """
        Later, if the client does not know it at first; never another one.
        """
        store = self.open_store()
        identity = self.half(store, UploadRecord(KEY, None, user="ann"))
        with pytest.raises(BadRequest, match="has 3 bytes; with this request"):
            self.resume(store, identity, 2)
        self.resume(store, identity, 5).suspend()
        assert 5 == store.resumable.look(identity, KEY, "ann")[0].length
        for length in (4, 6):
            with pytest.raises(BadRequest, match="3 of 5 bytes"):
                self.resume(store, identity, length)
        upload = self.resume(store, identity)
        self.result(upload.write(b"de"))
        assert 5 == self.result(upload.commit(UNCONDITIONAL)).info.size

    def test_a_condition_is_decided_at_the_end(self) -> None:
        """
        An upload that is refused then is gone.
        """
        store = self.open_store()
        only_new = Conditions(if_none_match=EntityTags(any=True))
        identity = self.half(store, UploadRecord(KEY, 3, {}, only_new, "ann"))
        self.put(store)
        upload = self.resume(store, identity)
        with pytest.raises(PreconditionFailed):
            self.result(upload.commit(upload.record.conditions))
        with pytest.raises(UploadAbsent):
            store.resumable.look(identity, KEY, "ann")
        assert [] == self.debris()

    def test_a_fault_leaves_it(self) -> None:
        """
        The client can try again to complete it.
        """
        store = self.open_store()
        identity = self.half(store, UploadRecord(KEY, 3, user="ann"))
        upload = self.resume(store, identity)
        broken = mock.patch("os.setxattr", side_effect=OSError(5, "broken"))
        with placing_in_python(), broken, pytest.raises(StoreFault):
            self.result(upload.commit(UNCONDITIONAL))
        assert (3, False) == (
            store.resumable.look(identity, KEY, "ann")[1],
            store.resumable.look(identity, KEY, "ann")[0].done,
        )
        self.result(self.resume(store, identity).commit(UNCONDITIONAL))
        assert b"abc" == self.get(store)

    def test_a_file_with_two_names_is_not_written_to(self) -> None:
        """
        A process may be killed after it has published the file, before it has removed
        its first name.
        """
        store = self.open_store()
        identity = self.half(store)
        os.link(self.file(identity), os.path.join(self.path, "key"))
        with pytest.raises(UploadAbsent):
            self.resume(store, identity)
        assert (0, 0) == self.folder_of(store).sweep()
        assert ["key"] == self.found()

    def test_those_of_the_last_start_of_the_machine_are_gone(self) -> None:
        """
        A power cut may have torn them.
        """
        identity = self.half(self.open_store())
        with mock.patch("kvd.store.resuming.boot_id", return_value="another"):
            store = self.open_store()
        with pytest.raises(UploadAbsent):
            store.resumable.look(identity, KEY, "ann")
        assert (0, 0) == self.folder_of(store).sweep()
        assert [] == self.debris()

    def test_they_expire(self) -> None:
        """
        So long after the last byte; not while they are written to.
        """
        store = self.open_store()
        identity = self.half(store)
        upload = self.begun(store)
        for name in (identity, upload.identity):
            then = os.stat(self.file(name)).st_mtime - RECORD.lifetime_seconds - 1
            os.utime(self.file(name), (then, then))
        with pytest.raises(UploadAbsent):
            store.resumable.look(identity, KEY, "ann")
        assert 1 == self.folder_of(store).sweep()[0]
        assert os.path.exists(self.file(upload.identity))
        assert not os.path.exists(self.file(identity))
        upload.discard()

    def test_they_are_removed_by_whoever_has_the_store_open(self) -> None:
        """
        From time to time, and when it is opened, whoever began them.
        """
        identity = self.half(self.open_store())
        another = self.open_store()
        then = os.stat(self.file(identity)).st_mtime - RECORD.lifetime_seconds - 1
        os.utime(self.file(identity), (then, then))
        self.clock.advance(SWEEP_EVERY_SECONDS)
        assert [] == self.debris()
        another.close()

        identity = self.half(self.open_store())
        os.utime(self.file(identity), (then, then))
        self.open_store()
        assert [] == self.debris()

    def test_uploads_of_the_dead_are_swept_without_them(self) -> None:
        """
        The folder belongs to no process.
        """
        store = self.open_store()
        identity = self.half(store)
        sweep(self.folder(".kvd"))
        assert 3 == store.resumable.look(identity, KEY, "ann")[1]

    def test_there_are_not_too_many(self) -> None:
        """
        Further ones cannot be resumed.
        """
        store = self.open_store()
        with mock.patch.object(resuming, "MOST_UPLOADS", 1):
            self.half(store)
            assert store.resumable.begin(RECORD) is None

    def test_those_at_rest_have_a_share_of_the_limit(self) -> None:
        """
        Also if nobody has said how long they get, and whichever process writes to them.
        """
        unknown = replace(RECORD, length=None)
        first, second = self.open_store(), self.open_store()
        for store in (first, second):
            resumable: Any = store.resumable
            resumable._limit_of = lambda key: 3 * resuming.LIMIT_SHARE
        kept = self.half(first, unknown)
        removed = self.half(second, unknown)

        assert 3 == first.resumable.look(kept, KEY, "ann")[1]
        with pytest.raises(UploadAbsent):
            first.resumable.look(removed, KEY, "ann")
        upload = self.resume(second, kept)
        self.result(upload.write(b"d"))
        upload.suspend()
        assert [] == self.debris()

    def test_what_others_have_written_is_no_upload(self) -> None:
        """
        Whatever it says.
        """
        store = self.open_store()
        identity = self.half(store)
        about = self.file(identity + ".json")
        with open(about, encoding="ascii") as file:
            said: dict[str, Any] = json.load(file)
        for text in (
            "",
            "[]",
            "{",
            json.dumps({**said, "version": 2}),
            json.dumps({**said, "key": None}),
            json.dumps({**said, "if-match": 1}),
        ):
            with open(about, "w", encoding="ascii") as file:
                file.write(text)
            with pytest.raises(UploadAbsent):
                store.resumable.look(identity, KEY, "ann")

    def file(self, name: str) -> str:
        """
        The path of a file in the folder of uploads.
        """
        return os.path.join(self.path, ".kvd", "resumable", name)

    def folder_of(self, store: FileStore) -> resuming.ResumableFolder:
        """
        The folder, as a store knows it.
        """
        found: resuming.ResumableFolder = store.resumable._folder
        return found


class ResumingOnDiskTests(ResumingTests):
    """
    The same where a value is synced before its reply.
    """

    durability = "disk"
