"""
The tests of `kvd.store.sidecars`. The contract of stores holds with them too
(`tests.store.test_file`), and what a power cut leaves is in
`tests.integration.store_power_cuts`.
"""

import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from itertools import count
from random import Random
from types import SimpleNamespace
from typing import Any, Final
from unittest import mock

import pytest
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from kvd.errors import KeyAbsent, StoreFault, StoreFull
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.model.values import ValueInfo
from kvd.store.file import FileStore
from kvd.store.file_maker import maker
from kvd.store.locks import KeyLocks, LockFile
from kvd.store.placing import seal_in_python
from kvd.store.removing import STAYS, Protected, Remover
from kvd.store.sidecars import SWEPT_SECONDS, Sidecars, path_of
from kvd.store.sync import Syncs
from kvd.store.waiting import Underway
from tests.chance import new_seed
from tests.exploring import TIMES
from tests.store.cases import KEY, FileStoreCase, FolderCase

DURABILITIES: Final = "process", "disk"
TEXT = "text/plain"
OTHER = Key(b"folder/a b")


def type_of(info: ValueInfo) -> str | None:
    """
    The content type of a value; None if it has no metadata.
    """
    return info.metadata.get("content-type")


@contextmanager
def whole_seconds() -> Iterator[None]:
    """
    A file system that keeps no fractions of a second.
    """
    utime = os.utime

    def set_seconds(file: Any, *, ns: tuple[int, int]) -> None:
        utime(file, ns=(ns[0] // 10**9 * 10**9, ns[1] // 10**9 * 10**9))

    with mock.patch("os.utime", set_seconds):
        yield


@contextmanager
def inexact_times() -> Iterator[None]:
    """
    A file system that keeps times as numbers with a floating point.
    """
    utime = os.utime

    def set_inexactly(file: Any, *, ns: tuple[int, int]) -> None:
        utime(file, ns=(ns[0], round(ns[1] / 10**9 * 2**22) * 10**9 // 2**22))

    with mock.patch("os.utime", set_inexactly):
        yield


class Killed(Exception):
    """
    A process ends here.
    """


class SidecarCase(FileStoreCase):
    """
    A case with a store in a folder whose file system keeps no attributes.
    """

    keeps_attributes = False

    def setUp(self) -> None:
        super().setUp()
        self.store = self.open_store()

    def publish_as(
        self, content_type: str, body: bytes = b"value", key: Key = KEY
    ) -> ValueInfo:
        """
        Store a value with a content type.
        """
        upload = self.result(
            self.store.begin(key, len(body), {"content-type": content_type})
        )
        upload.write(body)
        info: ValueInfo = self.result(upload.commit(UNCONDITIONAL)).info
        return info

    def sidecar_of(self, key: Key = KEY) -> str:
        """
        The path of a value's sidecar.
        """
        status = os.stat(os.path.join(os.fsencode(self.path), key))
        return os.path.join(self.path, os.fsdecode(path_of(key, status)))

    def all_sidecars(self) -> list[str]:
        """
        Those that there are.
        """
        return sorted(
            os.path.join(folder, name)
            for folder, _, names in os.walk(
                os.path.join(self.path, ".kvd", "attributes")
            )
            for name in names
        )

    def sweep_all(self, later_seconds: float = SWEPT_SECONDS + 60) -> None:
        """
        Let uploads end some time later until all have been looked at.
        """
        sidecars = Sidecars(self.folder())
        for _ in range(2 * 256):
            sidecars.sweep(time.time() + later_seconds, 9)

    @contextmanager
    def killed_at_publication(self) -> Iterator[None]:
        """
        What is published meanwhile is as a process leaves it that is killed just
        before.
        """
        with (
            mock.patch.object(self.store._tree, "publish", self.killed),
            mock.patch.object(Sidecars, "remove_at"),
            pytest.raises(Killed),
        ):
            yield

    def killed(self, *args: Any, synced: bool = False) -> None:
        """
        In place of the publication: what comes before it, and the end.
        """
        *_, file, write = args
        seal_in_python(file.descriptor, 0, file.seal_with(0), write)
        raise Killed

    def assert_foreign(self, key: Key = KEY) -> None:
        """
        The value counts as one of another program's, however it is looked at.
        """
        info = self.store.stat(key)
        assert {} == info.metadata
        assert "-" in info.etag
        assert info in [*self.walk(self.store)]
        assert info in [*self.walk(self.store, limit=9)]


class SidecarTests(SidecarCase):
    """
    Values and their sidecars.
    """

    def test_a_sidecar_is_text(self) -> None:
        """
        It has the key and the attribute.
        """
        info = self.publish_as(TEXT, key=OTHER)
        with open(self.sidecar_of(OTHER)) as file:
            first, second, *rest = file.read().splitlines()

        assert first.endswith(" folder/a%20b")
        assert f"2 {info.etag} 5 {info.changed:.6f}" == second
        assert [f"content-type: {TEXT}"] == rest
        assert info == self.store.stat(OTHER)

    def test_a_value_has_one_sidecar_and_takes_it_along(self) -> None:
        """
        It goes when its value is replaced or removed, or never gets there.
        """
        for _ in range(3):
            self.publish_as(TEXT)
            assert [self.sidecar_of()] == self.all_sidecars()
        self.result(self.store.begin(KEY, 9, {"content-type": TEXT})).discard()
        assert [self.sidecar_of()] == self.all_sidecars()

        self.result(self.store.remove(KEY, UNCONDITIONAL))
        assert [] == self.all_sidecars()

    def test_an_evicted_value_takes_it_along(self) -> None:
        """
        Whoever removes it.
        """
        self.publish_as(TEXT)
        root = self.folder()
        lock = LockFile(root)
        self.addCleanup(lock.close)
        with mock.patch("kvd.store.keeping.keeps_attributes", return_value=False):
            remover = Remover(root, lock, KeyLocks(lock, self.clock, Underway()))
        status = os.stat(os.path.join(self.path, "key"))
        stale = status.st_atime_ns - 1, status.st_ino, KEY
        known = status.st_atime_ns, status.st_ino, KEY

        assert [STAYS, 5] == remover.remove([stale, known], 1, Protected(0, 0))
        assert [] == self.all_sidecars()

    def test_all_see_them(self) -> None:
        """
        Another process, a listing of each kind, and one of a folder, though the store
        is closed meanwhile.
        """
        infos = [self.publish_as(TEXT, key=key) for key in (OTHER, KEY)]
        # In the order of their keys.
        other = self.open_store()

        assert infos == [other.stat(info.key) for info in infos]
        for limit in None, 9:
            listed = sorted(self.walk(self.store, limit=limit), key=lambda i: i.key)
            assert infos == listed
            listing = self.open_store().list_folder(b"folder/", b"", limit)
            assert infos[:1] == self.result(listing.next_slice())
            listing.close()

    def test_no_two_values_of_a_key_share_one(self) -> None:
        """
        Published in the same microsecond, or in an earlier one: the later one gets a
        later time, and is found when the earlier one is gone.
        """
        now = time.time_ns()
        with mock.patch("time.time_ns", return_value=now):
            infos = [self.publish_as(f"text/{number}") for number in range(4)]
        assert 4 == len({info.changed for info in infos})
        assert infos[-1] == self.store.stat(KEY)
        assert "text/3" == type_of(self.store.stat(KEY))
        with mock.patch("time.time_ns", return_value=now - 10**9):
            info = self.publish_as("text/4")
        assert info.changed >= infos[-1].changed
        assert "text/4" == type_of(self.store.stat(KEY))
        with mock.patch("time.time_ns", return_value=now - now % 10**9):
            self.publish_as("text/5", b"longer")
        assert "text/5" == type_of(self.store.stat(KEY))
        assert [self.sidecar_of()] == self.all_sidecars()

    def test_whole_seconds(self) -> None:
        """
        A file system that keeps no others has values of equal length and time. Each has
        its sidecar, and so has one whose file has the number of a file that is gone: it
        gets a later time.
        """
        with whole_seconds(), mock.patch("time.time_ns", return_value=10**18 + 7):
            for number in range(4):
                info = self.publish_as(f"text/{number}")
                assert 10**9 == info.changed
                assert info == self.store.stat(KEY)
                assert [self.sidecar_of()] == self.all_sidecars()
            os.unlink(os.path.join(self.path, "key"))
            (left,) = self.all_sidecars()

            def path_with_same_number(key: Key, status: os.stat_result) -> bytes:
                if status.st_mtime_ns > 10**18:
                    return path_of(key, status)
                return os.fsencode(os.path.relpath(left, self.path))

            with mock.patch("kvd.store.sidecars.path_of", path_with_same_number):
                info = self.publish_as("text/new")
                assert 10**9 + 1 == info.changed
                assert info == self.store.stat(KEY)

    def test_whole_seconds_and_a_number_that_is_used_again(self) -> None:
        """
        At durability ``disk``, a third value whose file has the number of the first one
        keeps its sidecar when that of the first one goes.
        """
        self.store = self.open_store("disk")
        # The file system may use the number of the first one again, too.
        numbers: dict[int, int] = {}
        others: list[str] = []
        folders = Syncs.folders

        def path_of_number(key: Key, status: os.stat_result) -> bytes:
            number = numbers.setdefault(status.st_ino, len(numbers) % 2)
            kept: Any = SimpleNamespace(
                st_size=status.st_size, st_mtime_ns=status.st_mtime_ns, st_ino=number
            )
            return path_of(key, kept)

        async def publish_and_sync(syncs: Syncs, path: Iterable[bytes]) -> None:
            if others and not path:
                self.publish_as(others.pop())
            await folders(syncs, path)

        with (
            whole_seconds(),
            mock.patch("time.time_ns", return_value=10**18 + 7),
            mock.patch("kvd.store.sidecars.path_of", path_of_number),
        ):
            self.publish_as("text/first")
            others.append("text/third")
            with mock.patch.object(Syncs, "folders", publish_and_sync):
                self.publish_as("text/second")
            assert [] == others
            assert "text/third" == type_of(self.store.stat(KEY))

    def test_inexact_times(self) -> None:
        """
        The time that the file got says which sidecar it has.
        """
        with inexact_times():
            for number in range(4):
                now_ns = 10**18 + 10**6 * (123_456 + number)
                with mock.patch("time.time_ns", return_value=now_ns):
                    info = self.publish_as(f"text/{number}")
                assert info == self.store.stat(KEY)
                assert f"text/{number}" == type_of(info)

    def test_a_value_that_is_sealed_again_has_one(self) -> None:
        """
        At durability ``disk``, when the second of its publication is a later one.
        """
        self.store = self.open_store("disk")
        seconds = count(10**18 + 5000, 10**9)
        with mock.patch("time.time_ns", side_effect=seconds):
            info = self.publish_as(TEXT)
        assert 10**9 + 1 == int(info.changed)
        assert info == self.store.stat(KEY)
        assert [self.sidecar_of()] == self.all_sidecars()

    def test_what_a_power_cut_may_bring_back_keeps_its_own(self) -> None:
        """
        At durability ``disk``, until its folder is synced.
        """
        self.store = self.open_store("disk")
        self.publish_as("text/old")
        there = []
        folders = Syncs.folders

        async def look_and_sync(syncs: Syncs, path: Iterable[bytes]) -> None:
            there.append((list(path), len(self.all_sidecars())))
            await folders(syncs, path)

        with mock.patch.object(Syncs, "folders", look_and_sync):
            self.publish_as("text/new")
            assert [b".kvd", b"attributes"] == there[0][0][:2]
            assert ([], 2) == there[-1]
            assert [self.sidecar_of()] == self.all_sidecars()
            self.result(self.store.remove(KEY, UNCONDITIONAL))
        assert ([], 1) == there[-1]
        assert [] == self.all_sidecars()

    def test_any_order_of_changes(self) -> None:
        """
        By several processes and other programs, with uploads that are given up and
        processes that are killed: each value has its own attribute or none, and at the
        end there is nothing else.
        """
        choose = Random(new_seed())
        stores = [self.open_store(choose.choice(DURABILITIES)) for _ in range(3)]
        keys = [Key(b"a"), Key(b"folder/b"), Key(b"folder/c")]
        expected: dict[Key, tuple[bytes, str | None]] = {}
        for number in range(round(60 * TIMES)):
            self.store, key = choose.choice(stores), choose.choice(keys)
            path, body = os.path.join(self.path, key.decode()), b"%05d" % number
            content_type = f"text/{number}"
            match choose.randrange(8):
                case 0 | 1 | 2:
                    self.publish_as(content_type, body, key)
                    expected[key] = body, content_type
                case 3 if key in expected:
                    self.result(self.store.remove(key, UNCONDITIONAL))
                    del expected[key]
                case 4:
                    self.place("other", body)
                    os.makedirs(os.path.dirname(path), exist_ok=True)
                    os.rename(os.path.join(self.path, "other"), path)
                    expected[key] = body, None
                case 5 if key in expected:
                    os.unlink(path)
                    del expected[key]
                case 6:
                    with self.killed_at_publication():
                        self.publish_as(content_type, body, key)
                case 7:
                    self.sweep_all()
            for each in keys:
                found = None
                if each in expected:
                    value = choose.choice(stores).open(each)
                    found = value.read(0, 99), type_of(value.info)
                    value.close()
                assert expected.get(each) == found, number
        self.sweep_all()
        living = {self.sidecar_of(key) for key, (_, text) in expected.items() if text}
        assert living == set(self.all_sidecars())

    def test_a_reader_gets_the_attribute_of_what_it_opened(self) -> None:
        """
        Or that of what replaced it, if that is removed before it was read.
        """
        self.publish_as("text/old", b"old")
        read = Sidecars.read
        changes: list[Callable[[], object]] = []

        def change_before(sidecars: Sidecars, key: Key, status: Any) -> bytes | None:
            if changes:
                changes.pop()()
            return read(sidecars, key, status)

        reader = self.open_store()
        with mock.patch.object(Sidecars, "read", change_before):
            changes.append(lambda: self.publish_as("text/new", b"new"))
            value = reader.open(KEY)
            assert (b"new", "text/new") == (value.read(0, 9), type_of(value.info))
            value.close()
            changes.append(lambda: self.store.remove(KEY, UNCONDITIONAL))
            self.error(KeyAbsent, lambda: reader.open(KEY))
        assert [] == changes

    def test_a_reader_does_not_try_for_ever(self) -> None:
        """
        Nobody replaces a value so often.
        """
        self.publish_as(TEXT)
        with (
            mock.patch.object(Sidecars, "read", return_value=None),
            mock.patch("os.path.samestat", return_value=False),
        ):
            self.error(StoreFault, lambda: self.store.open(KEY))

    def test_a_crash_at_any_step_leaves_old_or_new(self) -> None:
        """
        As a kill at that moment would: there is the old value or the new one, with all
        that belongs to it, whether it is the first, replaces one or is removed.
        """
        for durability in DURABILITIES:
            self.store = self.open_store(durability)
            self.assert_changes(None, b"1", lambda: self.publish_as("text/1", b"1"))
            self.assert_changes(b"1", b"2", lambda: self.publish_as("text/2", b"2"))
            self.assert_changes(
                b"2", None, lambda: self.result(self.store.remove(KEY, UNCONDITIONAL))
            )

    def assert_changes(
        self, old: bytes | None, new: bytes | None, act: Callable[[], object]
    ) -> None:
        """
        Copies of the folder, made after each change in it, have first an old value and
        then a new one, with their content types; None is none.
        """
        seen: list[bytes | None] = []

        def look() -> None:
            path, self.path = self.path, f"{self.path}-copy"
            shutil.copytree(path, self.path)
            try:
                with closing(self.open_store()) as store:
                    found = [*self.walk(store)]
                    seen.append(self.get(store) if found else None)
                    types = {f"text/{seen[-1].decode()}"} if seen[-1] else set()
                    assert types == {type_of(info) for info in found}
            finally:
                shutil.rmtree(self.path)
                self.path = path

        with changes_followed_by(look):
            act()
        assert [old, new] == list(dict.fromkeys(seen))


@contextmanager
def changes_followed_by(look: Callable[[], None]) -> Iterator[None]:
    """
    Something is called after each change of names, content or times. While it runs,
    what it changes itself is not followed.
    """
    following = [True]

    def followed(call: Callable[..., Any]) -> Callable[..., Any]:
        def change(*args: Any, **named: Any) -> Any:
            result = call(*args, **named)
            if following:
                following.clear()
                try:
                    look()
                finally:
                    following.append(True)
            return result

        return change

    with ExitStack() as patches:
        for name in "open", "write", "utime", "rename", "unlink", "mkdir":
            call = followed(getattr(os, name))
            patches.enter_context(mock.patch(f"os.{name}", call))
        yield


class OtherHandsTests(SidecarCase):
    """
    What other programs do to values and to sidecars.
    """

    def setUp(self) -> None:
        super().setUp()
        self.info = self.publish_as(TEXT)
        self.file = os.path.join(self.path, "key")

    def test_changed_and_replaced_values_are_foreign(self) -> None:
        """
        None gets the attribute of the value that was there before; kvd's next value has
        its own.
        """

        def replace() -> None:
            self.place("new", b"VALUE")
            os.rename(os.path.join(self.path, "new"), self.file)

        def remove_and_place() -> None:
            os.unlink(self.file)
            self.place("key", b"VALUE")

        for change in (
            replace,
            remove_and_place,
            lambda: self.place("key", b"VALUE"),
            lambda: os.truncate(self.file, 4),
            lambda: os.utime(self.file),
        ):
            change()
            self.assert_foreign()
            info = self.publish_as(TEXT)
            assert info == self.store.stat(KEY)
            assert TEXT == type_of(info)

    def test_damaged_sidecars_are_none(self) -> None:
        """
        So are those of another key, and whatever else has their name. Nothing blocks.
        """
        path = self.sidecar_of()
        with open(path, "rb") as file:
            good = file.read()
        self.publish_as("text/other", key=OTHER)
        with open(self.sidecar_of(OTHER), "rb") as file:
            other = file.read()
        for text in (
            b"",
            bytes(len(good)),
            good[:-1],
            good.replace(b"plain", b"plaim"),
            good[good.index(b"\n") + 1 :],
            other,
        ):
            with open(path, "wb") as file:
                file.write(text)
            self.assert_foreign()
        for place in (
            lambda: os.symlink("elsewhere", path),
            lambda: os.mkfifo(path),
            lambda: os.mkdir(path),
        ):
            os.unlink(path)
            place()
            self.assert_foreign()
        assert "text/other" == type_of(self.store.stat(OTHER))
        os.rmdir(path)
        with open(path, "wb") as file:
            file.write(good)
        assert self.info == self.store.stat(KEY)

    def test_an_unreadable_sidecar_is_a_fault(self) -> None:
        """
        It is not known then what the value is.
        """
        with mock.patch("os.read", side_effect=OSError(errno.EIO, "broken")):
            self.error(StoreFault, lambda: self.store.open(KEY))

    def test_all_of_them_may_be_removed(self) -> None:
        """
        The values stay, as those of others, and new ones have new sidecars.
        """
        for name in ".kvd/attributes", ".kvd":
            shutil.rmtree(os.path.join(self.path, name))
            self.assert_foreign()
            self.publish_as(TEXT)
            assert TEXT == type_of(self.store.stat(KEY))
            assert [self.sidecar_of()] == self.all_sidecars()

    def test_a_file_in_the_way_is_reported(self) -> None:
        """
        In place of their folder; and nothing is left of the upload.
        """
        shutil.rmtree(os.path.join(self.path, ".kvd/attributes"))
        self.place(".kvd/attributes")
        upload = self.result(self.store.begin(KEY, 0))
        with pytest.raises(StoreFault):
            self.result(upload.commit(UNCONDITIONAL))
        assert os.path.isfile(os.path.join(self.path, ".kvd/attributes"))
        assert [] == self.debris()

    def test_links_lead_nowhere(self) -> None:
        """
        None on the way to a sidecar is followed: nothing outside of the store is read,
        written or removed.
        """
        sidecars = Sidecars(self.folder())
        path = os.path.relpath(self.sidecar_of(), self.path)
        shard = os.path.dirname(path)
        other = os.fsencode(os.path.join(shard, "0" * 30))
        outside = self.enterContext(tempfile.TemporaryDirectory())
        for name in shard, os.path.dirname(shard):
            there, here = os.path.join(outside, "there"), os.path.join(self.path, name)
            shutil.move(here, there)
            os.symlink(there, here)
            before = [*os.walk(outside)]
            self.assert_foreign()
            with pytest.raises(NotADirectoryError):
                sidecars._create(other, b"text")
            sidecars.remove_at(os.fsencode(path))
            self.sweep_all()
            assert before == [*os.walk(outside)]
            os.unlink(here)
            shutil.move(there, here)
            assert self.info == self.store.stat(KEY)

    def test_a_folder_that_is_removed_again_and_again(self) -> None:
        """
        Is no endless loop.
        """
        gone = FileNotFoundError(errno.ENOENT, "gone")
        sidecars = Sidecars(self.folder())
        with (
            mock.patch("os.open", side_effect=gone),
            pytest.raises(FileNotFoundError),
        ):
            sidecars._create(b".kvd/attributes/00/name", b"text")

    def test_copies_keep_their_attributes(self) -> None:
        """
        If the sidecars and the times are copied too.
        """
        copy = os.path.join(self.path, "copy")
        os.mkdir(copy)
        shutil.copytree(f"{self.path}/.kvd", f"{copy}/.kvd")
        shutil.copy2(self.file, copy)
        self.path = copy

        assert self.info == self.open_store().stat(KEY)


class RoomTests(SidecarCase):
    """
    The disk may be full or broken.
    """

    def test_failure_at_any_step_leaves_the_old_value(self) -> None:
        """
        It is reported, also as want of room, and nothing else is left.
        """
        old = self.publish_as("text/old", b"old")
        write, close = os.write, os.close
        full = OSError(errno.ENOSPC, "full")

        def short(file: int, text: bytes) -> int:
            return write(file, text[:9])

        def late(file: int) -> None:
            # NFS keeps what is written, and may learn only now that it has no room.
            path = os.readlink(f"/proc/self/fd/{file}")
            flags = fcntl.fcntl(file, fcntl.F_GETFL)
            close(file)
            if "/attributes/" in path and flags & os.O_WRONLY:
                raise full

        for call, error, effect in (
            ("os.utime", StoreFault, OSError(errno.EIO, "broken")),
            ("os.write", StoreFull, full),
            ("os.write", StoreFull, short),
            ("os.close", StoreFull, late),
            ("os.rename", StoreFault, OSError(errno.EIO, "broken")),
        ):
            upload = self.result(self.store.begin(KEY, 0, {"content-type": TEXT}))
            with mock.patch(call, side_effect=effect), pytest.raises(error):
                self.result(upload.commit(UNCONDITIONAL))
            assert old == self.store.stat(KEY)
            assert [self.sidecar_of()] == self.all_sidecars()
            assert [] == self.debris()

    def test_names_that_are_taken_for_ever(self) -> None:
        """
        Are no endless loop, and no time far away.
        """
        for times in nullcontext(), whole_seconds():
            taken = FileExistsError(errno.EEXIST, "taken")
            upload = self.result(self.store.begin(KEY, 0))
            with (
                times,
                mock.patch.object(Sidecars, "_create", side_effect=taken),
                pytest.raises(StoreFault),
            ):
                self.result(upload.commit(UNCONDITIONAL))
        assert [] == self.found()


class SweepingTests(SidecarCase):
    """
    Sidecars without values.
    """

    def test_those_without_a_value_go(self) -> None:
        """
        After a while: until then a value may still be published. Those with a value
        stay, and what others have put there, except damaged ones.
        """
        for number in range(9):
            self.publish_as(TEXT, key=Key(b"folder/%d" % number))
        living = Key(b"folder/0")
        os.rename(f"{self.path}/folder/1", f"{self.path}/folder/moved")
        os.utime(f"{self.path}/folder/2")
        for number in range(3, 8):
            os.unlink(f"{self.path}/folder/{number}")
        os.mkdir(f"{self.path}/folder/7")
        damaged = self.sidecar_of(Key(b"folder/8"))
        with open(damaged, "wb") as file:
            file.write(b"2 damaged")
        shard = os.path.dirname(damaged)
        strange = os.path.join(shard, "strange")
        shutil.copy(self.sidecar_of(living), strange)
        before = self.all_sidecars()

        for path in before:
            os.utime(path, (0, 0))  # As a copy that keeps times.
        self.sweep_all(SWEPT_SECONDS - 60)
        assert before == self.all_sidecars()
        self.sweep_all()
        assert sorted([self.sidecar_of(living), strange]) == self.all_sidecars()
        assert TEXT == type_of(self.store.stat(living))

    def test_those_of_folders_that_are_gone_go(self) -> None:
        """
        And those whose keys are none: nobody looks outside of the store.
        """
        self.publish_as(TEXT, key=OTHER)
        shutil.rmtree(f"{self.path}/folder")
        for key in b"../../etc/passwd", b"/etc/passwd", b"a/../../b", b"a\0b":
            with mock.patch("kvd.store.sidecars.split", side_effect=AssertionError):
                file = os.open(os.path.join(self.path, "file"), os.O_CREAT | os.O_RDWR)
                sidecar = Sidecars(self.folder()).write(
                    file, Key(key), 10**15, lambda _: b"text"
                )
                os.close(sidecar.descriptor)
                os.close(file)
        self.sweep_all()
        assert [] == self.all_sidecars()

    def test_uploads_sweep(self) -> None:
        """
        Each that ends looks at some.
        """
        for number in range(4):
            self.publish_as(TEXT, key=Key(b"%d" % number))
        for number in range(4):
            os.unlink(f"{self.path}/{number}")
        with mock.patch("kvd.store.sidecars.SWEPT_SECONDS", -60):
            for _ in range(4 + 256):
                self.publish_as(TEXT)

        assert [self.sidecar_of()] == self.all_sidecars()

    def test_the_file_system_says_how_old_they_are(self) -> None:
        """
        Its clock may be that of another machine.
        """
        with (
            mock.patch.object(Sidecars, "sweep") as sweep,
            mock.patch("time.time", return_value=time.time() + 2 * SWEPT_SECONDS),
        ):
            self.publish_as(TEXT)

        sweep.assert_called_once_with(os.stat(self.sidecar_of()).st_mtime)

    def test_a_folder_that_is_gone_is_passed_over(self) -> None:
        """
        Though only some of what was in it have been looked at.
        """
        self.publish_as(TEXT)
        shard = os.path.dirname(self.sidecar_of())
        sidecars = Sidecars(self.folder())
        for number in range(3):
            self.place(os.path.join(shard, f"{number:030x}"))
        for _ in range(256):
            sidecars.sweep(time.time(), 1)
            if sidecars._names:
                break
        shutil.rmtree(shard)
        self.publish_as(TEXT, key=OTHER)
        os.unlink(os.path.join(self.path, OTHER.decode()))
        for _ in range(2 * 256):
            sidecars.sweep(time.time() + SWEPT_SECONDS + 60, 1)

        assert [] == self.all_sidecars()

    def test_a_failure_is_no_matter(self) -> None:
        """
        The upload has succeeded.
        """
        self.publish_as(TEXT)
        with mock.patch("os.listdir", side_effect=OSError(errno.EIO, "broken")):
            for _ in range(256):
                Sidecars(self.folder()).sweep(time.time())
            info = self.publish_as(TEXT)
        assert info == self.store.stat(KEY)


class ChoiceTests(FolderCase):
    """
    When there are sidecars.
    """

    def test_preparing_says_so_in_one_line(self) -> None:
        """
        And leaves nothing.
        """
        with (
            mock.patch("kvd.store.keeping.keeps_attributes", return_value=False),
            capturedLogs() as events,
        ):
            maker.prepare(self.path)
            store = FileStore(self.path, "process", Clock(), mock.Mock())
            self.addCleanup(store.close)

        (event,) = events
        assert "keeps no extended attributes" in event["log_format"]
        assert [] == self.found()
        assert not store.fast_path_state.keeps_attributes
