"""
Tests for `kvd.http.fast_path`: small values that are stored.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import SkipTest, mock

from kvd.http.fast_path import CLOSES, SERVED
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.store import attribute
from kvd.store.epochs import begin_epoch
from kvd.store.replaced import MOST_KEPT
from kvd.store.unwritten import has_no_place
from kvd.store.uploads import key_of
from tests.descriptors import Descriptors
from tests.http.fast_path.cases import (
    FallbackCase,
    FastPathCase,
    attribute_of,
    field,
    put,
)
from tests.store.cases import few_descriptors


class StoringTests(FastPathCase):
    """
    A small body that has come whole is stored and published at once.
    """

    def stored(self, key: str, body: bytes, fields: bytes = b"") -> bytes:
        """
        Store a value and look at what is there; the reply.
        """
        reply = self.served(put(key, body, fields))
        value = self.open_store().open(Key(key.encode()))
        assert body == self.body(self.result(value))
        assert field(reply, "ETag") == f'"{value.info.etag}"'
        assert [] == self.debris()
        return reply

    def test_a_new_key_is_created(self) -> None:
        """
        201, and all that the ordinary way says.
        """
        reply = self.stored("k", b"value")

        assert re.fullmatch(
            rb"HTTP/1\.1 201 Created\r\nDate: [^\r]{29}\r\n"
            rb'ETag: "[0-9a-f]{32}"\r\nKvd-Durability: process\r\n'
            rb"Content-Length: 0\r\n\r\n",
            reply,
        )

    def test_a_value_is_replaced(self) -> None:
        """
        204, another entity tag, and no length, as RFC 9110 has it.
        """
        created = self.stored("k", b"value")
        reply = self.stored("k", b"other")

        assert reply.startswith(b"HTTP/1.1 204 No Content\r\n")
        assert None is field(reply, "Content-Length")
        assert field(created, "ETag") != field(reply, "ETag")

    def test_new_keys_and_known_ones_in_turn(self) -> None:
        """
        What the one before was makes no difference; in the root and in a folder.
        """
        for folder in ("", "a/", "a/b/"):
            for number in range(4):
                for key in (f"{folder}k{number}", f"{folder}k0"):
                    known = os.path.exists(os.path.join(self.path, key))
                    reply = self.stored(key, os.urandom(9))
                    assert reply.startswith(b"HTTP/1.1 20%d " % (4 if known else 1))

    def test_any_size_that_comes_in_one_piece(self) -> None:
        """
        From nothing on.
        """
        for size in (0, 1, 1000, 60 * 1024):
            # From a socket that holds so much.
            self.stored(f"{size}", os.urandom(size))

    def test_its_metadata_is_kept(self) -> None:
        """
        In the very bytes of the ordinary way.
        """
        fields = b"Content-Type: text/plain\r\nContent-Encoding: br\r\n"
        self.stored("k", b"value", fields)
        lines = attribute.encode_metadata(
            {"content-encoding": "br", "content-type": "text/plain"}
        )
        path = os.path.join(self.path, "k")
        found = attribute_of(path)
        assert found is not None
        etag = found[2:34].decode()
        published_us = os.stat(path).st_mtime_ns // 1000

        assert attribute.encode(etag, 5, published_us, lines) == found

    def test_its_mode_is_that_of_all_values(self) -> None:
        """
        Whatever the umask says.
        """
        self.publish(self.store, Key(b"ordinary"), b"v")
        self.stored("k", b"v")
        modes = {
            stat.S_IMODE(os.stat(os.path.join(self.path, name)).st_mode)
            for name in ("k", "ordinary")
        }

        assert 1 == len(modes)

    def test_connections_end_as_the_client_asks(self) -> None:
        """
        Which the reply repeats.
        """
        table = [
            (1, b"Connection: close\r\n", SERVED | CLOSES, "close"),
            (0, b"", SERVED | CLOSES, "close"),
            (0, b"Connection: keep-alive\r\n", SERVED, "keep-alive"),
        ]
        for minor, fields, outcome, said in table:
            assert outcome == self.serve(put("k", b"v", fields, minor))
            assert said == field(self.reply(), "Connection")

    def test_no_two_have_the_same_entity_tag(self) -> None:
        """
        However many are made from one draw of chance.
        """
        tags = [field(self.served(put("k", b"v")), "ETag") or "" for _ in range(300)]

        # Nor parts of it.
        for start in range(1, 33, 8):
            assert 300 == len({tag[start : start + 8] for tag in tags})

    def test_a_folder_that_is_there_is_used(self) -> None:
        """
        However deep, and however long its name.
        """
        for folder in ("a", "b/c/d", "x" * 63, "y" * 64, "z" * 200):
            self.publish(self.store, Key(f"{folder}/first".encode()), b"v")
            self.stored(f"{folder}/k", b"value")
            self.stored(f"{folder}/k", b"other")

    def test_many_folders_are_used(self) -> None:
        """
        More than are held open, and none of them stays so without limit.
        """
        folders = Descriptors(self.path)
        for _ in range(2):
            for number in range(300):
                self.served(put(f"folder{number}/k", b"%d" % number))
        assert folders.more <= 256
        for number in range(300):
            key = Key(b"folder%d/k" % number)
            assert b"%d" % number == self.get(self.store, key)

    def test_missing_folders_are_made(self) -> None:
        """
        As many as it takes; each is as if the ordinary way had made it.
        """
        self.publish(self.store, Key(b"ordinary/k"), b"v")
        mark = os.getxattr(os.path.join(self.path, "ordinary"), "user.kvd")
        mode = os.stat(os.path.join(self.path, "ordinary")).st_mode
        for folder in ("a", "a/b", "c/d/e", "/".join("f" * 60)):
            self.stored(f"{folder}/k", b"value")
            self.stored(f"{folder}/other", b"value")
            while folder:
                path = os.path.join(self.path, folder)
                assert mode == os.stat(path).st_mode
                assert mark == os.getxattr(path, "user.kvd")
                folder = folder.rpartition("/")[0]

    def test_folders_that_are_made_are_pruned_as_others(self) -> None:
        """
        With the last of their values, and made again.
        """
        for _ in range(3):
            self.served(put("a/b/c", b"value"))
            self.result(self.store.remove(Key(b"a/b/c"), UNCONDITIONAL))
            assert [] == self.found()

    def test_it_is_not_older_than_the_one_before(self) -> None:
        """
        Though the clock was set back.
        """
        self.served(put("k", b"value"))
        path = os.path.join(self.path, "k")
        for ahead_us in (3_600_000_000, 999_999, 1):
            date_us = (time.time_ns() // 10**9) * 1_000_000 + 5_000_000 + ahead_us
            text = attribute.encode("a" * 32, os.stat(path).st_size, date_us, b"")
            os.setxattr(path, attribute.NAME, text)
            os.utime(path, ns=(0, 1000 * date_us))
            self.served(put("k", b"other"))
            assert 1000 * date_us == os.stat(path).st_mtime_ns
            assert date_us / 1e6 == self.result(self.store.stat(Key(b"k"))).changed
            # Out of an archive, which has kept no parts of a second.
            os.utime(path, (0, date_us // 1_000_000))
            self.served(put("k", b"later"))
            assert 1000 * date_us == os.stat(path).st_mtime_ns

    def test_the_date_of_another_program_does_not_bind(self) -> None:
        """
        A file whose attribute has metadata that kvd keeps with no value is not kvd's.
        """
        self.served(put("k", b"value"))
        path = os.path.join(self.path, "k")
        for line in (b"age: 1\n", b"Expires: 1\n", b"x-: 1\n", b"dav.: 1\n"):
            date_us = (time.time_ns() // 1000) + 3_600_000_000
            text = attribute.encode("a" * 32, os.stat(path).st_size, date_us, line)
            os.setxattr(path, attribute.NAME, text)
            os.utime(path, ns=(0, 1000 * date_us))
            request = put("k", b"other")
            if self.serve(request) == request:
                # It is left to Python.
                self.keep("k", b"other")
            assert os.stat(path).st_mtime_ns < 1000 * date_us, line


class ExchangingTests(StoringTests):
    """
    See there; values are replaced as on ext4.
    """

    exchanges = True


class LimitedTests(FastPathCase):
    """
    Of what is refused, nothing is stored.
    """

    def setUp(self) -> None:
        self.limits = type(self.limits)(value_bytes=5)
        super().setUp()

    def test_longer_ones_than_allowed_are_left(self) -> None:
        """
        To be refused.
        """
        self.served(put("k", b"12345"))
        self.assert_left(put("k", b"123456"))


class InTheWayTests(FastPathCase):
    """
    Where it is not as simple, the upload is discarded and the request left alone.
    """

    def path_of(self, name: str) -> str:
        """
        A file below the root.
        """
        return os.path.join(self.path, name)

    def test_a_lack_of_descriptors(self) -> None:
        """
        However many are left, nothing else is: no upload, and no folder made in vain.
        """
        outcomes = []
        request = put("a/b/c/k", b"value")
        for free in range(8):
            with few_descriptors(free):
                outcomes.append(self.serve(request))
            if outcomes[-1] == SERVED:
                assert ["a/b/c/k"] == self.found()
                self.result(self.store.remove(Key(b"a/b/c/k"), UNCONDITIONAL))
            assert [] == self.found()
            assert [] == self.debris()
        assert {request, SERVED} == set(outcomes)

    def test_a_folder_has_gone(self) -> None:
        """
        It was held open; a new one of its name is another.
        """
        self.publish(self.store, Key(b"a/first"), b"v")
        self.served(put("a/k", b"old"))
        shutil.rmtree(self.path_of("a"))
        self.served(put("a/b/k", b"v"))
        self.served(put("a/k", b"older"))
        shutil.rmtree(self.path_of("a"))
        os.mkdir(self.path_of("a"))
        self.served(put("a/k", b"new"))

        assert ["a/k"] == self.found()
        assert b"new" == self.get(self.open_store(), Key(b"a/k"))

    def test_a_folder_was_moved(self) -> None:
        """
        What has its name now counts, unless that is a link or a value.
        """
        self.publish(self.store, Key(b"a/first"), b"v")
        self.served(put("a/k", b"old"))
        os.rename(self.path_of("a"), self.path_of("moved"))
        os.symlink("moved", self.path_of("a"))
        self.assert_left(put("a/k", b"v"))
        self.assert_left(put("a/new/k", b"v"))
        os.unlink(self.path_of("a"))
        self.publish(self.store, Key(b"a"), b"v")
        self.assert_left(put("a/k", b"v"))

    def test_a_link_is_on_the_way(self) -> None:
        """
        Further down, too; nothing leads out of the store.
        """
        os.mkdir(self.path_of("a"))
        os.symlink("/tmp", self.path_of("a/b"))
        os.symlink("/tmp", self.path_of("c"))
        for key in ("a/b/k", "a/b/c/k", "c/k"):
            self.assert_left(put(key, b"v"))

    def test_the_key_is_something_else(self) -> None:
        """
        A folder, a link, a pipe, or a file of others.
        """
        os.mkdir(self.path_of("folder"))
        os.symlink("nowhere", self.path_of("link"))
        os.mkfifo(self.path_of("pipe"))
        self.place("file")
        for key in ("folder", "link", "pipe", "file"):
            self.assert_left(put(key, b"v"))
        # Even if it says that it is one.
        size = os.stat(self.path_of("folder")).st_size
        changed_us = 1_000_000_000_000_001
        os.utime(self.path_of("folder"), ns=(0, 1000 * changed_us))
        said = attribute.encode("a" * 32, size, changed_us, b"")
        os.setxattr(self.path_of("folder"), attribute.NAME, said)
        self.assert_left(put("folder", b"v"))

    def test_what_is_there_was_never_written(self) -> None:
        """
        A value that lost its content in a power cut counts as absent, so the reply is
        201; whole values are replaced as before.
        """
        self.served(put("k", b"value"))
        self.lose_content("k")

        self.assert_left(put("k", b"other"))
        self.served(put("whole", b"value"))
        assert self.served(put("whole", b"other")).startswith(b"HTTP/1.1 204 ")

    def test_what_is_there_is_no_whole_value(self) -> None:
        """
        It is torn, or of others, or was written by an earlier kvd, or a later one.
        """
        self.served(put("k", b"value", b"Content-Type: text/plain\r\n"))
        path = self.path_of("k")
        good = attribute_of(path)
        assert good is not None
        etag = good[2:34]
        date = good[36 : good.index(b"\n")]
        bad = [
            b"",
            b"2",
            good[:33],
            good[:34],
            good[:36],
            b"1 " + etag + b" 5\n",
            b"1" + good[1:],
            b"3" + good[1:],
            b"2 " + etag.upper().replace(b"0", b"A") + good[34:],
            b"2 " + b"g" * 32 + good[34:],
            b"2 " + b"/" * 32 + good[34:],
            b"2 " + b":" * 32 + good[34:],
            b"2 " + b"`" * 32 + good[34:],
            good.replace(b" 5 ", b" 05 "),
            good.replace(b" 5 ", b" 6 "),
            good.replace(b" 5 ", b"  5 "),
            good.replace(date, date[:-1]),
            good.replace(date, date + b"0"),
            good.replace(date, b" 0" + date[1:]),
            good.replace(date, b""),
            good.replace(date, b" 1.000000"),
            good[:-1],
            good + b"x",
            good + b"x\n",
            good + b": x\n",
            good + b"x:y\n",
            good + b"x:\n",
            good + b"\n",
            good + b"age: 1\n",
            good + b"Expires: a\n",
            good + b"x-: a\n",
            good + b"x-a:b: c\n",
            good + b"dav.: a\n",
            good + b"9.a: a\n",
            good + b"expires: a\nage: 1\n",
            good + b"expires: a\rb\n",
            good + b"expires: a\xff\n",
            good + b"expires: \xc4\x80\n",
            good + b"expires: \xc3\n",
            good + b"expires: " + b"x" * 1400 + b"\n",
        ]
        for text in bad:
            os.setxattr(path, attribute.NAME, text)
            self.assert_left(put("k", b"v"))
        # Others may have given it such a date.
        times = os.stat(path)
        os.setxattr(path, attribute.NAME, good)
        for changed_ns in (-1, times.st_mtime_ns + 1, times.st_mtime_ns - 1000):
            os.utime(path, ns=(0, changed_ns))
            self.assert_left(put("k", b"v"))
        for more in (
            *(b"", b"expires: \n", b"expires: y: z\n", b"x-a.b: \t\xc2\x80\xc3\xbf\n"),
            b"dav.executable: T\nexpires: 0\n",
        ):
            os.utime(path, ns=(0, times.st_mtime_ns))
            os.setxattr(path, attribute.NAME, good + more)
            assert self.served(put("k", b"value")).startswith(b"HTTP/1.1 204 ")
        os.truncate(path, 4)
        self.assert_left(put("k", b"v"))

    def test_another_process_has_the_key_locked(self) -> None:
        """
        It is not waited for, and the lock is free afterwards.
        """
        self.served(put("k", b"old"))
        self.while_locked(Key(b"k"), lambda: self.assert_left(put("k", b"new")))

        self.served(put("k", b"new"))
        self.while_locked(Key(b"k"), lambda: None)
        self.while_locked(Key(b"k"), lambda: self.served(put("other", b"new")))

    def test_the_folder_of_uploads_was_removed(self) -> None:
        """
        By somebody who cleans up. A new key does not need it, unless its file has to
        have a name from the beginning.
        """
        self.served(put("known", b"v"))
        self.served(put("known", b"v"))
        for name in os.listdir(self.path_of(".kvd")):
            if name not in ("attributes", "lock"):
                shutil.rmtree(self.path_of(f".kvd/{name}"))
        self.assert_left(put("k", b"v"))

    def test_there_is_no_folder_of_uploads_yet(self) -> None:
        """
        The ordinary way makes it. From then on, none is left alone; a store that was
        used before is as good.
        """
        self.store = self.open_store()
        self.fast_path = self.make_fast_path(self.make_process(self.store))
        self.assert_left(put("k", b"v"))
        self.publish(self.store, Key(b"other"), b"v")
        self.served(put("k", b"v"))
        self.fast_path = self.make_fast_path(self.make_process(self.store))
        self.served(put("k", b"v"))

    def test_the_store_is_closed(self) -> None:
        """
        Nothing is done with descriptors that may be others' by then, and none is
        held.
        """
        files = Descriptors(self.path)
        self.store = self.open_store()
        self.fast_path = self.make_fast_path(self.make_process(self.store))
        self.publish(self.store, Key(b"a/b"), b"v")
        self.keep("k", b"v")
        self.served(put("a/k", b"v"))
        self.store.close()

        assert 0 == files.more
        self.assert_left(put("a/k", b"v"))
        self.assert_left(put("k", b"v"))


class InTheWayOfExchangesTests(InTheWayTests):
    """
    See there; values are replaced as on ext4.
    """

    exchanges = True


class KeepingTests(StoringTests):
    """
    See there; on a disk, replaced values are kept for a while.
    """

    keeps = True
    exchanges = True

    def kept(self) -> dict[bytes, bytes]:
        """
        What is kept for each key.
        """
        kept = self.store.fast_path_state.kept
        assert kept is not None
        bodies = {}
        for key, name in kept.items():
            if name:
                assert key == key_of(name)
                file = os.open(name, os.O_RDONLY, dir_fd=self.uploads())
                bodies[bytes(key)] = os.read(file, 100)
                os.close(file)
        return bodies

    def uploads(self) -> int:
        """
        The folder of uploads.
        """
        return self.store.fast_path_state.uploads.descriptor

    def test_what_is_replaced_first_is_kept(self) -> None:
        """
        Whether the fast path replaced it or not; what comes in its place meanwhile is
        not.
        """
        self.publish(self.store, Key(b"a/b.c"), b"first")
        self.served(put("a/b.c", b"second"))
        self.served(put("a/b.c", b"third"))
        self.publish(self.store, Key(b"a/b.c"), b"fourth")
        self.publish(self.store, Key(b"k"), b"first")
        self.publish(self.store, Key(b"k"), b"second")
        self.served(put("k", b"third"))
        assert {b"a/b.c": b"first", b"k": b"first"} == self.kept()
        assert 2 == len(os.listdir(self.uploads()))

        with mock.patch("kvd.store.writeback.sync_all"):
            self.clock.pump([1.0] * 5)
        assert {} == self.kept()
        assert [] == os.listdir(self.uploads())
        self.served(put("k", b"fourth"))
        assert {b"k": b"third"} == self.kept()

    def test_what_is_created_is_synced(self) -> None:
        """
        There is nothing to keep.
        """
        with mock.patch("kvd.store.writeback.sync_all") as sync:
            self.clock.pump([1.0] * 5)
            before = sync.call_count
            self.served(put("new", b"value"))
            assert {} == self.kept()
            self.clock.pump([1.0] * 5)
            assert before + 1 == sync.call_count


class SharingTests(FastPathCase):
    """
    What was never synced is not kept, whoever published it (`kvd.store.epochs`).
    """

    keeps = True
    exchanges = True
    has_epochs = True
    needs_disk = True

    def setUp(self) -> None:
        super().setUp()
        self.place("new")
        with open(os.path.join(self.path, "new"), "rb") as new:
            if not has_no_place(new.fileno(), 1):
                raise SkipTest("this takes a file system such as ext4")
        for patched in (
            mock.patch("kvd.store.epochs.BATCH_SECONDS", 0),
            mock.patch("kvd.store.writeback.sync_all"),
        ):
            patched.start()
            self.addCleanup(patched.stop)

        self.written: set[bytes] = set()

    def kept(self) -> list[bytes]:
        """
        What is kept for the key, by whichever process.
        """
        return [
            path.read_bytes()
            for path in Path(self.path, ".kvd").glob("*/*")
            if key_of(os.fsencode(path.name)) == b"k"
        ]

    def replace(self, publish: Callable[[bytes], object], body: bytes) -> None:
        """
        Replace the value of the key. The file system may write it to the disk at any
        moment, for instance since another program syncs; it is noted if that has
        happened by the end.
        """
        with open(os.path.join(self.path, "k"), "rb") as replaced:
            before = replaced.read()
            publish(body)
            if not has_no_place(replaced.fileno(), len(before)):
                self.written.add(before)

    def test_either_way(self) -> None:
        """
        The fast path stamps values for other processes, and reads their stamps. Of the
        values of one epoch, only those that were written to the disk may be kept.
        """
        other = self.open_store()

        def one_way(body: bytes) -> None:
            self.served(put("k", body))

        other_way = partial(self.publish, other, Key(b"k"))
        self.served(put("k", b"synced"))
        self.clock.pump([1.0] * 5)
        other_way(b"1")
        self.replace(one_way, b"2")
        self.replace(other_way, b"3")
        self.replace(one_way, b"4")
        self.replace(one_way, b"5")
        assert {b"synced"} == {*self.kept()} - self.written
        self.clock.pump([1.0] * 5)
        assert [] == self.kept()
        one_way(b"6")
        one_way(b"7")
        self.replace(other_way, b"8")
        assert {b"5"} == {*self.kept()} - self.written
        assert b"8" == self.get(self.store, Key(b"k"))

    def test_a_sync_that_began_meanwhile(self) -> None:
        """
        May have reached it.
        """
        self.served(put("k", b"1"))
        begin_epoch(self.store.fast_path_state.lock.descriptor)
        self.served(put("k", b"2"))
        assert [b"1"] == self.kept()

    def test_a_stamp_that_is_no_longer_true(self) -> None:
        """
        The access time was changed, or the value was written by others' syncs.
        """
        path = os.path.join(self.path, "k")

        def touch() -> None:
            os.utime(path, ns=(1, os.stat(path).st_mtime_ns))

        def sync() -> None:
            with open(path, "rb") as file:
                os.fsync(file)

        for act in (touch, sync):
            self.served(put("k", b"1"))
            act()
            self.served(put("k", b"2"))
            assert [b"1"] == self.kept(), act
            os.unlink(path)
            self.clock.pump([1.0] * 5)


class StoringFallbackTests(FallbackCase, StoringTests):
    """
    See there; without the fast path.
    """


class ExchangingFallbackTests(FallbackCase, ExchangingTests):
    """
    See there; without the fast path.
    """


class KeepingFallbackTests(FallbackCase, KeepingTests):
    """
    See there; without the fast path.
    """


class SharingFallbackTests(FallbackCase, SharingTests):
    """
    See there; without the fast path.
    """


class NotKeptTests(FastPathCase):
    """
    Where what is replaced cannot be kept, the request is left alone.
    """

    keeps = True
    exchanges = True

    def test_too_long_a_key_is_left(self) -> None:
        """
        The ordinary way syncs what takes the place of what it cannot keep.
        """
        folder = "x" * 150
        self.publish(self.store, Key(f"{folder}/first".encode()), b"v")
        self.served(put(f"{folder}/{'y' * 80}", b"v"))
        self.assert_left(put(f"{folder}/{'y' * 120}", b"v"))

    def test_too_many_are_left(self) -> None:
        """
        But for keys of which something is kept: that is as much as before.
        """
        kept = self.store.fast_path_state.kept
        assert kept is not None
        kept.update((Key(b"%d" % number), b"") for number in range(MOST_KEPT - 1))
        self.served(put("k", b"v"))
        self.assert_left(put("l", b"v"))
        self.served(put("7", b"v"))


class OtherLockTests(FastPathCase):
    """
    A lock is one only if everybody finds it.
    """

    def test_a_removed_or_replaced_one_is_left(self) -> None:
        """
        To the ordinary way, which opens the one that is there now; then the fast path
        uses it too.
        """
        self.served(put("k", b"1"))
        lock = os.path.join(self.path, ".kvd", "lock")
        another = put("k", b"5")
        for is_replaced in (False, True):
            os.unlink(lock)
            if is_replaced:
                self.place(".kvd/lock", b"")
            self.assert_left(put("k", b"2"))
            self.publish(self.store, Key(b"k"), b"3")
            self.served(put("k", b"4"))
            assert b"4" == self.get(self.store, Key(b"k"))
            assert another == self.while_locked(Key(b"k"), lambda: self.serve(another))
