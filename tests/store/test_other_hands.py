"""
Files that other programs changed, copied and restored, as seen by the store, its
listings and a worker's cache.
"""

import os
import random
import shutil
import subprocess

from kvd.errors import KeyAbsent, PreconditionFailed
from kvd.model.conditions import UNCONDITIONAL, Conditions, EntityTags
from kvd.model.keys import Key
from kvd.model.values import ValueInfo
from kvd.store.attribute import NAME, encode
from kvd.store.contract.asking import holds
from tests.chance import new_seed
from tests.store.cases import KEY, FileStoreCase

TEXT = {"content-type": "text/plain"}


class OtherHandsCase(FileStoreCase):
    """
    A test case with a value that a worker has cached, and one that it has not.
    """

    def setUp(self) -> None:
        super().setUp()
        self.store = self.open_store()
        self.file = os.path.join(self.path, "key")

    def publish_text(self, body: bytes = b"value") -> ValueInfo:
        """
        Store a value with metadata, and read it once.
        """
        info = self.put(self.store, KEY, body, metadata=TEXT).info
        assert body == self.get(self.store)
        return info

    def look(self, key: Key = KEY) -> ValueInfo:
        """
        The description of a value, the same from all sources.
        """
        store = self.open_store()
        info = self.result(store.stat(key))
        assert info == self.result(self.store.stat(key))
        for limit in (None, 9):
            listed = [each for each in self.walk(store, limit=limit) if each.key == key]
            assert [info] == listed
        body = self.get(store, key)
        assert body == self.get(self.store, key)
        assert info.size == len(body)
        return info

    def run_tool(self, *arguments: str) -> None:
        """
        Run a program; fail with its name if it is missing.
        """
        assert shutil.which(arguments[0]), f"{arguments[0]} is not installed"
        subprocess.run(arguments, check=True, stdin=subprocess.DEVNULL)


class ChangedTests(OtherHandsCase):
    """
    A file that another program has changed is foreign: it has an entity tag of its own
    and no metadata, and is read, replaced and deleted like any foreign file.
    """

    def assert_foreign(self, old: ValueInfo) -> None:
        """
        Check that the value is foreign now, for all stores that knew it.
        """
        info = self.look()
        assert old.etag != info.etag
        assert {} == info.metadata
        stale = Conditions(if_none_match=EntityTags(frozenset({old.etag})))
        assert not stale.is_unchanged(info)
        upload = self.result(self.store.begin(KEY, None))
        self.error(PreconditionFailed, lambda: upload.commit(holds(old.etag)))
        self.error(PreconditionFailed, lambda: self.store.remove(KEY, holds(old.etag)))
        self.result(self.store.remove(KEY, holds(info.etag)))
        self.error(KeyAbsent, lambda: self.store.stat(KEY))

    def write(self, body: bytes) -> None:
        """
        Write to the file as `cp` does, which keeps its attribute.
        """
        with open(self.file, "wb") as file:
            file.write(body)
        assert os.getxattr(self.file, NAME)

    def test_it_was_written_over(self) -> None:
        """
        With content of the same length, of another, or none.
        """
        for body in (b"VALUE", b"longer value", b"v", b""):
            info = self.publish_text()
            self.write(body)
            assert body == self.get(self.open_store())
            assert body == self.get(self.store)
            self.assert_foreign(info)

    def test_it_was_written_over_at_once(self) -> None:
        """
        However soon after its publication.
        """
        for _ in range(200):
            info = self.publish_text()
            self.write(b"VALUE")
            assert info.etag != self.result(self.store.stat(KEY)).etag

    def test_a_part_of_it_was_changed(self) -> None:
        """
        Or something was appended.
        """
        for mode, body in (("r+b", b"value"), ("ab", b"more")):
            info = self.publish_text()
            with open(self.file, mode) as file:
                file.write(body)
            self.assert_foreign(info)

    def test_cp_over_a_value(self) -> None:
        """
        The source may be a value or a file: its content is copied, kvd's attribute is
        not.
        """
        self.publish(self.store, Key(b"other"), b"other")
        self.place("file", b"other")
        for name in ("other", "file"):
            info = self.publish_text()
            self.run_tool("cp", os.path.join(self.path, name), self.file)
            assert b"other" == self.get(self.store)
            self.assert_foreign(info)

    def test_it_is_replaced_as_any_value(self) -> None:
        """
        The reply says that there was one.
        """
        self.publish_text()
        self.write(b"by others")

        assert not self.publish(self.store, body=b"ours").created
        assert b"ours" == self.get(self.open_store())

    def test_its_name_and_mode_are_not_its_content(self) -> None:
        """
        A value that was renamed, linked, or given another mode or owner is the same.
        """
        info = self.publish_text()
        os.chmod(self.file, 0o640)
        os.link(self.file, self.file + "-linked")
        assert info.etag == self.look().etag
        assert info.etag == self.look(Key(b"key-linked")).etag
        os.rename(self.file, self.file + "-moved")
        moved = self.look(Key(b"key-moved"))

        assert (info.etag, info.metadata) == (moved.etag, moved.metadata)

    def test_values_of_the_first_version_are_read(self) -> None:
        """
        Their attributes have no time of publication.
        """
        self.place("key", b"value")
        os.setxattr(self.file, NAME, b"1 %032x 5\ncontent-type: text/plain\n" % 7)
        info = self.look()
        assert (f"{7:032x}", TEXT) == (info.etag, info.metadata)
        assert info.changed == os.stat(self.file).st_mtime
        self.publish(self.store, body=b"new")

        assert os.getxattr(self.file, NAME).startswith(b"2 ")


class ForgedTests(OtherHandsCase):
    """
    An attribute that kvd does not write makes a file foreign.
    """

    def forge(self, lines: bytes) -> None:
        """
        Write an attribute, with the true date and length of the file.
        """
        status = os.stat(self.file)
        date_us = status.st_mtime_ns // 1000
        text = encode("a" * 32, status.st_size, date_us, lines)
        os.utime(self.file, ns=(0, 1000 * date_us))
        os.setxattr(self.file, NAME, text)

    def test_a_valid_attribute_is_believed(self) -> None:
        """
        A program that may write it may write the value too.
        """
        self.place("key", b"value")
        self.forge(b"content-type: text/plain\n")

        assert ("a" * 32, TEXT) == (self.look().etag, self.look().metadata)

    def test_an_invalid_attribute_makes_a_file_foreign(self) -> None:
        """
        It can be read and deleted, and has an entity tag of its own.
        """
        for lines in (
            b"content-type: a\rset-cookie: b\n",
            b"content-type: a\0b\n",
            "content-type: \N{SNOWMAN}\n".encode(),
            b"content-type: \xff\n",
            b"transfer-encoding: chunked\n",
            b"content-length: 1\n",
            b"connection: close\n",
            b"set-cookie: a\n",
            b"Content-Type: a\n",
            b"no colon\n",
            b"unended: ",
        ):
            self.place("key", b"value")
            self.forge(lines)
            info = self.look()
            assert "a" * 32 != info.etag
            assert {} == info.metadata
            assert b"value" == self.get(self.open_store())
            self.result(self.store.remove(KEY, holds(info.etag)))

    def test_any_damage(self) -> None:
        """
        If any byte of the attribute is changed, cut off or added, the value is as it
        was written, or foreign; its metadata is never anything else.
        """
        seed = new_seed()
        chance = random.Random(seed)
        info = self.publish_text()
        good = os.getxattr(self.file, NAME)
        for place in range(len(good)):
            for text in (
                good[:place]
                + bytes([good[place] ^ 1 << chance.randrange(8)])
                + good[place + 1 :],
                good[:place],
                good[:place] + chance.randbytes(1) + good[place:],
            ):
                os.setxattr(self.file, NAME, text)
                try:
                    found = self.result(self.open_store().stat(KEY))
                except KeyAbsent:
                    # Its length is said to be another.
                    continue
                assert 5 == found.size, seed
                for value in found.metadata.values():
                    value.encode("latin-1")
                    assert not {"\r", "\n", "\0"} & set(value), seed
        assert info.size == 5


class BackupTests(OtherHandsCase):
    """
    Tools that keep attributes and times keep values intact.
    """

    def setUp(self) -> None:
        super().setUp()
        self.values = {}
        for number in range(10):
            key = Key(b"folder/%d" % number)
            info = self.put(self.store, key, b"%d" % number, metadata=TEXT).info
            self.values[key] = info
        self.copy = self.path + "-copy"
        os.mkdir(self.copy)
        self.addCleanup(shutil.rmtree, self.copy)

    def restored(self, *arguments: str) -> dict[Key, ValueInfo]:
        """
        Describe what is there after a tool has copied the folder and put it back.
        """
        self.run_tool(*arguments)
        shutil.rmtree(os.path.join(self.path, "folder"))
        os.rename(os.path.join(self.copy, "folder"), os.path.join(self.path, "folder"))
        store = self.open_store()
        found = {info.key: info for info in self.walk(store)}
        for key in found:
            assert self.get(store, key) == key.rpartition(b"/")[2]
            assert found[key] == self.result(self.store.stat(key))
        return found

    def assert_kept(self, *arguments: str) -> None:
        """
        Check that everything about the values is unchanged.
        """
        assert self.values == self.restored(*arguments)

    def assert_foreign(self, *arguments: str) -> None:
        """
        Check that the values are there, but foreign.
        """
        found = self.restored(*arguments)
        assert found.keys() == self.values.keys()
        for key, info in found.items():
            assert {} == info.metadata
            assert self.values[key].etag != info.etag

    def tar(self, *options: str) -> list[str]:
        """
        A command that packs the folder and unpacks the copy.
        """
        create = ["tar", *options, "-cC", self.path, "folder"]
        extract = ["tar", *options, "-xC", self.copy]
        return ["sh", "-c", f"{' '.join(create)} | {' '.join(extract)}"]

    def test_cp_archive(self) -> None:
        """
        `cp -a` keeps all.
        """
        self.assert_kept("cp", "-a", os.path.join(self.path, "folder"), self.copy)

    def test_cp_recursive(self) -> None:
        """
        `cp -r` keeps nothing but the content.
        """
        self.assert_foreign("cp", "-r", os.path.join(self.path, "folder"), self.copy)

    def test_rsync_with_attributes(self) -> None:
        """
        `rsync -aX` keeps all.
        """
        self.assert_kept("rsync", "-aX", os.path.join(self.path, "folder"), self.copy)

    def test_rsync_without_attributes(self) -> None:
        """
        `rsync -a` keeps times, but not attributes.
        """
        self.assert_foreign("rsync", "-a", os.path.join(self.path, "folder"), self.copy)

    def test_tar_with_attributes(self) -> None:
        """
        `tar --xattrs` keeps all.
        """
        self.assert_kept(*self.tar("--xattrs"))

    def test_tar_without_attributes(self) -> None:
        """
        `tar` alone does not.
        """
        self.assert_foreign(*self.tar())

    def test_whole_seconds(self) -> None:
        """
        If times are kept in whole seconds.
        """
        folder = os.path.join(self.path, "folder")
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            second = int(os.stat(path).st_mtime)
            os.utime(path, (second, second))

        self.assert_kept("cp", "-a", folder, self.copy)


class TimeTests(OtherHandsCase):
    """
    A foreign file may have any time.
    """

    def test_times_beyond_all_calendars(self) -> None:
        """
        They are limited to the range of an HTTP date; all can be listed.
        """
        listed = {}
        for seconds in (
            -(2**62) // 10**9,
            -(2**37),
            -(2**31),
            -1,
            0,
            2**33,
            2**38,
            2**33 - 1,
        ):
            self.place("key")
            os.utime(self.file, (seconds, seconds))
            listed[seconds] = self.look().changed
            self.result(self.store.remove(KEY, UNCONDITIONAL))

        for seconds, changed in listed.items():
            assert -62135596800 <= changed <= 253402300799, seconds


class LeftoverTests(OtherHandsCase):
    """
    NFS, and FUSE without ``hard_remove``, give another name to a file that is removed
    while it is open.
    """

    NAMES = (".nfs000000000000002a00000001", ".fuse_hidden0000002a00000001")

    def test_a_removed_value_is_not_listed(self) -> None:
        """
        Not under the name that it has until it is closed.
        """
        for name in self.NAMES:
            for folder in (b"", b"folder/"):
                key = Key(folder + b"k")
                self.publish(self.store, key)
                value = self.value(self.store, key)
                path = os.path.join(self.path, os.fsdecode(folder))
                os.rename(path + "k", path + name)
                self.error(KeyAbsent, lambda: self.store.open(key))  # noqa: B023
                for limit in (None, 9):
                    assert [] == [*self.walk(self.store, limit=limit)]
                assert b"v" == self.body(value)
                os.unlink(path + name)

    def test_other_names_are_listed(self) -> None:
        """
        However similar they are.
        """
        names = [name + "0" for name in self.NAMES] + [name[:-1] for name in self.NAMES]
        names += ["x" + name for name in self.NAMES] + [".nfs", ".fuse_hidden"]
        for name in names:
            self.publish(self.store, Key(name.encode()))

        listed = [info.key.decode() for info in self.walk(self.store, limit=99)]
        assert sorted(names) == listed
