"""
Tests of `kvd.store.conferring` and its users: what folders confer on values, and what
replacement and removal leave.
"""

import errno
import os
import pwd
import shutil
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import pytest
from twisted.internet.defer import execute

from kvd.errors import KeyConflict
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.settings import Modes, User
from kvd.store.conferring import (
    Conferred,
    conferred,
    conferred_in_python,
    default_list,
    default_list_in_python,
    is_own,
    make_folder,
    make_folder_in_python,
    mark,
)
from kvd.store.file import FileStore
from kvd.store.file_maker import FileStoreMaker
from kvd.store.folders import prune
from kvd.system.privileges import acting_as
from tests.http.fast_path.cases import FastPathCase, put
from tests.privileges import take_root
from tests.store.cases import FileStoreCase, few_descriptors

GROUP = 4242

_OWNER, _GROUP, _MASK, _OTHERS, _ANY = 1, 4, 0x10, 0x20, 0xFFFFFFFF


def access_list(*entries: tuple[int, int, int]) -> bytes:
    """
    An access control list in the kernel's form (``linux/posix_acl_xattr.h``), of tags,
    permissions and ids.
    """
    packed = [struct.pack("<HHI", *entry) for entry in entries]
    return struct.pack("<I", 2) + b"".join(packed)


SHARED = access_list((_OWNER, 6, _ANY), (_GROUP, 6, _ANY), (_OTHERS, 0, _ANY))
"""
0660 for files, whatever the umask.
"""

NAMED = access_list(
    *((_OWNER, 7, _ANY), (_GROUP, 5, _ANY), (8, 6, GROUP), (_MASK, 7, _ANY)),
    (_OTHERS, 0, _ANY),
)
"""
A group of another number may read and write.
"""


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """
    Set another umask for a while.
    """
    old = os.umask(mask)
    try:
        yield
    finally:
        os.umask(old)


def mask_now() -> int:
    """
    The umask of this process.
    """
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def as_nobody(path: str) -> Iterator[None]:
    """
    Run with the rights of an ordinary user, whom a folder then belongs to.
    """
    if os.geteuid() != 0:
        yield
        return
    known = pwd.getpwnam("nobody")
    os.chown(path, known.pw_uid, known.pw_gid)
    with acting_as(User(known.pw_uid, known.pw_gid)):
        yield


def give(path: str, user: int, group: int) -> None:
    """
    Let a file be another user's, or another group's.
    """
    take_root("giving a file to others")
    os.chown(path, user, group)


class ConferringCase(FileStoreCase):
    """
    A test case with folders of an administrator.
    """

    def path_of(self, name: str) -> str:
        """
        The path of a file or folder below the root.
        """
        return os.path.join(self.path, name)

    def make(
        self, name: str, mode: int = 0o755, group: int = -1, listed: bytes = b""
    ) -> None:
        """
        Make a folder as an administrator.
        """
        os.mkdir(self.path_of(name))
        give(self.path_of(name), -1, group)
        os.chmod(self.path_of(name), mode)
        if listed:
            os.setxattr(self.path_of(name), "system.posix_acl_default", listed)

    def access(self, name: str) -> tuple[str, int, bytes]:
        """
        The permissions of a file or folder.
        """
        path = self.path_of(name)
        status = os.stat(path)
        try:
            listed = os.getxattr(path, "system.posix_acl_access")
        except OSError:
            listed = b""
        return f"{stat.S_IMODE(status.st_mode):o}", status.st_gid, listed

    def created(self, folder: str) -> tuple[str, int, bytes]:
        """
        The properties of a file that another program creates in a folder.
        """
        path = self.path_of(f"{folder}/.created")
        with open(path, "wb"):
            pass
        access = self.access(f"{folder}/.created")
        os.unlink(path)
        return access


class MakingContract(ConferringCase):
    """
    How a folder is made, and what it confers: the compiled forms.
    """

    make_folder = staticmethod(make_folder)
    conferred = staticmethod(conferred)
    default_list = staticmethod(default_list)

    def made(self, parent: str, name: str | bytes, mode: int = 0o750) -> str:
        """
        Make a folder in another one; its path below the root.
        """
        os.close(self.make_folder(self.folder(parent), name, mode))
        return f"{parent}/{os.fsdecode(name)}"

    def test_its_mode_is_the_one_asked_for(self) -> None:
        """
        Whatever the umask, and with the group and the bit of the folder around it. In
        one with a default list, the list decides, as for a folder of another program.
        """
        self.make("plain")
        self.make("group", 0o2775, GROUP)
        for number, mask in enumerate((0, 0o022, 0o077)):
            with umask(mask):
                plain = self.made("plain", f"{number}")
                group = self.made("group", b"%d" % number)
            assert ("750", os.getegid(), b"") == self.access(plain)
            assert ("2750", GROUP, b"") == self.access(group)
        for folder, listed in (("shared", SHARED), ("named", NAMED)):
            self.make(folder, 0o2770, GROUP, listed)
            os.mkdir(self.path_of(f"{folder}/by-hand"))
            expected = self.access(f"{folder}/by-hand")
            with umask(0o077):
                assert expected == self.access(self.made(folder, "a"))

    def test_it_is_open(self) -> None:
        """
        For reading, and not for programs that the process starts.
        """
        self.make("plain")
        inner = self.make_folder(self.folder("plain"), b"a", 0o750)
        self.addCleanup(os.close, inner)

        assert os.path.samestat(os.stat(self.path_of("plain/a")), os.fstat(inner))
        assert [] == os.listdir(inner)
        assert not os.get_inheritable(inner)

    def test_it_is_not_marked(self) -> None:
        """
        Only the folders of keys are.
        """
        self.make("plain")
        assert [] == os.listxattr(self.path_of(self.made("plain", "a")))

    def test_a_name_that_exists_is_left_alone(self) -> None:
        """
        The error has the name as it was given.
        """
        self.place("plain/file")
        os.makedirs(self.path_of("plain/folder"), 0o700)
        names: tuple[str | bytes, ...] = ("file", b"file", "folder", b"folder")
        for name in names:
            with pytest.raises(FileExistsError) as caught:
                self.made("plain", name)
            assert name == caught.value.filename
        assert "700" == self.access("plain/folder")[0]

    def test_a_name_that_cannot_be_is_an_error(self) -> None:
        """
        A folder that is gone has no names.
        """
        self.make("plain")
        gone = self.folder("plain")
        os.rmdir(self.path_of("plain"))
        with pytest.raises(FileNotFoundError):
            self.make_folder(gone, "a", 0o750)
        for name in ("a\0b", b"a\0b"):
            with pytest.raises(ValueError, match="null"):
                self.made(".", name)

    def test_a_folder_that_cannot_be_opened_does_not_stay(self) -> None:
        """
        Each request would leave another one: no descriptor is free, or the umask lets
        nobody in before the folder has its mode.
        """
        self.make("plain")
        folder = self.folder("plain")
        with (
            few_descriptors(0),
            pytest.raises(OSError, match=os.strerror(errno.EMFILE)),
        ):
            self.make_folder(folder, "a", 0o750)
        assert [] == os.listdir(self.path_of("plain"))
        with (
            as_nobody(self.path_of("plain")),
            umask(0o777),
            pytest.raises(PermissionError),
        ):
            self.make_folder(folder, "a", 0o750)
        assert [] == os.listdir(self.path_of("plain"))

    def test_what_a_folder_confers(self) -> None:
        """
        The group, if it says so, and the list, however long.
        """
        long = access_list(
            (_OWNER, 7, _ANY),
            (_GROUP, 5, _ANY),
            *((8, 6, 5000 + number) for number in range(60)),
            (_MASK, 7, _ANY),
            (_OTHERS, 0, _ANY),
        )
        for number, (mode, listed) in enumerate(
            (mode, listed)
            for mode in (0o755, 0o2770, 0o5777)
            for listed in (b"", SHARED, NAMED, long)
        ):
            self.make(str(number), mode, GROUP, listed)
            folder = self.folder(str(number))
            group = GROUP if mode == 0o2770 else None
            assert Conferred(group, listed) == self.conferred(folder)
            assert listed == self.default_list(folder)

    def test_a_file_system_without_lists(self) -> None:
        """
        Its folders confer none.
        """
        folder = os.open("/proc/self", os.O_RDONLY)
        self.addCleanup(os.close, folder)

        assert Conferred(None, b"") == self.conferred(folder)
        assert b"" == self.default_list(folder)

    def test_what_cannot_be_known_is_an_error(self) -> None:
        """
        Its reason is the kernel's.
        """
        for ask in (self.conferred, self.default_list):
            with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
                ask(1 << 30)
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            self.make_folder(1 << 30, "a", 0o750)


class MakingInPythonTests(MakingContract):
    """
    The same without a C compiler.
    """

    make_folder = staticmethod(make_folder_in_python)
    conferred = staticmethod(conferred_in_python)
    default_list = staticmethod(default_list_in_python)

    def test_a_folder_whose_mode_cannot_be_set_does_not_stay(self) -> None:
        """
        Nor does its descriptor.
        """
        self.make("plain")
        folder = self.folder("plain")
        before = os.listdir("/proc/self/fd")
        with (
            mock.patch("os.fchmod", side_effect=PermissionError),
            pytest.raises(PermissionError),
        ):
            self.make_folder(folder, "a", 0o750)
        assert [] == os.listdir(self.path_of("plain"))
        assert before == os.listdir("/proc/self/fd")

    def test_a_folder_that_another_process_removes_is_not_removed_again(self) -> None:
        """
        By then it may be another one.
        """
        self.make("plain")
        opened = os.open

        def make_again(name: str, flags: int, *, dir_fd: int) -> int:
            os.rmdir(name, dir_fd=dir_fd)
            try:
                return opened(name, flags, dir_fd=dir_fd)
            finally:
                os.mkdir(name, dir_fd=dir_fd)

        folder = self.folder("plain")
        with (
            mock.patch("os.open", make_again),
            pytest.raises(FileNotFoundError),
        ):
            self.make_folder(folder, "a", 0o750)
        assert ["a"] == os.listdir(self.path_of("plain"))


class ValuesTests(ConferringCase):
    """
    A value is like a file that was created in its folder.
    """

    def setUp(self) -> None:
        super().setUp()
        self.store = self.open_store()
        self.make("group", 0o2775, GROUP)
        self.make("shared", 0o2770, GROUP, SHARED)
        self.make("named", 0o755, -1, NAMED)
        self.make("plain")

    def store_value(self, key: str) -> None:
        """
        Store a value twice: create and replace it.
        """
        name = Key(key.encode())
        assert self.publish(self.store, name).created
        created = self.access(key)
        assert not self.publish(self.store, name, b"other").created
        assert created == self.access(key)
        assert [] == self.debris()

    def test_a_value_is_as_a_file_created_there(self) -> None:
        """
        With the group and the list that the folder confers; with a list, the umask does
        not count.
        """
        for folder in ("group", "shared", "named", "plain"):
            self.store_value(f"{folder}/k")
            with umask(0o022):
                assert self.created(folder) == self.access(f"{folder}/k"), folder
        assert ("644", GROUP, b"") == self.access("group/k")
        assert ("660", GROUP, b"") == self.access("shared/k")
        assert self.access("named/k")[2]

    def test_folders_pass_it_on(self) -> None:
        """
        To the folders that kvd makes in them, also during an upload.
        """
        for folder in ("group", "shared", "named"):
            self.store_value(f"{folder}/a/b/k")
            os.mkdir(self.path_of(f"{folder}/by-hand"))
            expected = self.access(f"{folder}/by-hand")
            if folder != "group":
                assert expected == self.access(f"{folder}/a")
            else:
                assert ("2755", GROUP, b"") == self.access(f"{folder}/a")
            assert self.created(f"{folder}/a/b") == self.access(f"{folder}/a/b/k")

    def test_what_is_conferred_may_change(self) -> None:
        """
        At any time.
        """
        self.store_value("plain/k")
        give(self.path_of("plain"), -1, GROUP)
        os.chmod(self.path_of("plain"), 0o2775)
        self.store_value("plain/other")
        assert ("644", GROUP, b"") == self.access("plain/other")
        os.setxattr(self.path_of("plain"), "system.posix_acl_default", SHARED)
        self.publish(self.store, Key(b"plain/k"))

        assert ("660", GROUP, b"") == self.access("plain/k")

    def test_the_root_confers_too(self) -> None:
        """
        On all keys.
        """
        give(self.path, -1, GROUP)
        os.chmod(self.path, 0o2775)
        for store in (self.store, self.open_store()):
            self.publish(store, Key(b"k"))
            self.publish(store, Key(b"a/k"))
            assert ("644", GROUP, b"") == self.access("k")
            assert ("2755", GROUP, b"") == self.access("a")
            assert ("644", GROUP, b"") == self.access("a/k")

    def test_where_files_need_names(self) -> None:
        """
        On a file system without O_TMPFILE, values are stored as well.
        """
        opened = os.open

        def refuse(path: bytes, flags: int, *rest: int, dir_fd: int) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(95, "Operation not supported")
            return opened(path, flags, *rest, dir_fd=dir_fd)

        with mock.patch("os.open", refuse):
            self.publish(self.store, Key(b"shared/k"))
        assert b"v" == self.get(self.store, Key(b"shared/k"))

    def test_a_discarded_upload_leaves_nothing(self) -> None:
        """
        In whichever folder its file was created.
        """
        for key in (b"shared/k", b"shared/a/k", b"plain/k"):
            self.result(self.store.begin(Key(key), None)).discard()

        assert [] == self.debris()
        assert [] == [name for name in self.found() if "/" in name]


class ExchangedValuesTests(ValuesTests):
    """
    The same if values are replaced as on ext4.
    """

    exchanges = True


class PruningTests(ConferringCase):
    """
    Only folders that kvd made are removed.
    """

    def setUp(self) -> None:
        super().setUp()
        self.store = self.open_store()

    def put_and_remove(self, key: bytes) -> None:
        """
        Store the only value of a folder, and remove it.
        """
        self.publish(self.store, Key(key))
        self.result(self.store.remove(Key(key), UNCONDITIONAL))

    def test_a_folder_of_others_stays(self) -> None:
        """
        It stays unchanged; the folders that kvd made in it are removed.
        """
        self.make("group", 0o2775, GROUP)
        self.make("plain")
        for folder in ("group", "plain"):
            before = self.access(folder), os.stat(self.path_of(folder)).st_ino
            for key in ("k", "a/b/k"):
                self.put_and_remove(f"{folder}/{key}".encode())
                assert folder in self.found()
                after = self.access(folder), os.stat(self.path_of(folder)).st_ino
                assert before == after

    def test_a_folder_that_others_have_changed_stays(self) -> None:
        """
        If its mode, owner or list was changed, it counts as theirs.
        """

        def give_a_list(path: str) -> None:
            os.setxattr(path, "system.posix_acl_default", SHARED)

        for name, change in (
            ("mode", lambda path: os.chmod(path, 0o2775)),
            ("group", lambda path: give(path, -1, GROUP)),
            ("user", lambda path: give(path, GROUP, -1)),
            ("list", give_a_list),
        ):
            self.publish(self.store, Key(f"{name}/first".encode()))
            change(self.path_of(name))
            self.result(self.store.remove(Key(f"{name}/first".encode()), UNCONDITIONAL))
            assert name in self.found()

    def test_folders_that_kvd_made_go(self) -> None:
        """
        Whichever process made them, with any umask.
        """
        for mask in (0, 0o022, 0o077):
            with umask(mask):
                self.put_and_remove(b"a/b/k")
                self.publish(self.open_store(), Key(b"c/d/k"))
                self.result(self.store.remove(Key(b"c/d/k"), UNCONDITIONAL))
            assert [] == self.found()

    def test_without_marks_looks_decide(self) -> None:
        """
        Where the file system keeps none: a folder that looks as kvd's own does goes.
        """
        unsupported = OSError(errno.EOPNOTSUPP, "Operation not supported")
        for name in ".kvd", "alike", "changed":
            os.makedirs(self.path_of(name), exist_ok=True)
            os.chmod(self.path_of(name), 0o755)
        os.chmod(self.path_of("changed"), 0o775)
        root, alike, changed = (
            self.folder(),
            self.folder("alike"),
            self.folder("changed"),
        )
        with (
            mock.patch("os.setxattr", side_effect=unsupported),
            mock.patch("os.getxattr", side_effect=unsupported),
        ):
            mark(alike)
            assert is_own(alike, root)
            assert not is_own(changed, root)
            assert not is_own(alike)
            prune(root, [b"changed"])
            prune(root, [b"alike"])
            assert [".kvd", "changed"] == sorted(os.listdir(self.path))
            shutil.rmtree(self.path_of(".kvd"))
            assert not is_own(changed, root)

    def test_no_value_replaces_a_folder_that_confers(self) -> None:
        """
        An empty folder is replaced only if nothing is lost with it.
        """
        self.make("group", 0o2775, GROUP)
        self.make("named", 0o755, -1, NAMED)
        self.make("outer")
        self.make("outer/named", 0o755, -1, NAMED)
        self.make("plain")
        for folder in (b"group", b"named", b"outer"):
            self.error(KeyConflict, lambda: self.store.begin(Key(folder), None))  # noqa: B023
        self.publish(self.store, Key(b"plain"))

        assert ["group", "named", "outer/named", "plain"] == self.found()


class ReplacementTests(ConferringCase):
    """
    A replacement is a new file; changes to the old one stay with the old one.
    """

    def test_permissions_are_not_taken_over(self) -> None:
        """
        The folder determines those of the new file.
        """
        store = self.open_store()
        self.publish(store, Key(b"k"))
        path = self.path_of("k")
        fresh = self.access("k")
        give(path, -1, GROUP)
        os.chmod(path, 0o600)
        os.setxattr(path, "system.posix_acl_access", NAMED)
        self.publish(store, Key(b"k"), b"other")

        assert fresh == self.access("k")

    def test_a_hard_link_keeps_the_old_value(self) -> None:
        """
        With its entity tag.
        """
        store = self.open_store()
        etag = self.publish(store, Key(b"k"), b"old").info.etag
        os.link(self.path_of("k"), self.path_of("linked"))
        self.publish(store, Key(b"k"), b"new")

        assert b"old" == self.get(store, Key(b"linked"))
        assert etag == self.result(store.stat(Key(b"linked"))).etag


class ModesTests(ConferringCase):
    """
    The settings determine permissions, not the umask.
    """

    def open_with(self, modes: Modes) -> FileStore:
        """
        Open the store with other modes.
        """
        store = FileStore(self.path, "process", self.clock, execute, modes=modes)
        self.addCleanup(store.close)
        return store

    def test_values_and_folders_have_their_modes(self) -> None:
        """
        So have kvd's own files.
        """
        with umask(0):
            store = self.open_with(Modes(0o640, 0o750))
            self.publish(store, Key(b"a/k"))
            assert "640" == self.access("a/k")[0]
            assert "750" == self.access("a")[0]
            assert "640" == self.access(".kvd/lock")[0]
            assert "750" == self.access(".kvd")[0]

    def test_the_umask_does_not_decide(self) -> None:
        """
        It never applies to folders, nor to values, except in a process that is not
        kvd's.
        """
        maker = FileStoreMaker().making(Modes(0o664, 0o2775), None)
        # Under the last, a folder that is just made lets nobody but root in.
        self.enterContext(as_nobody(self.path))
        for mask in (0, 0o077, 0o777):
            values = f"{mask:o}/values"
            with umask(mask):
                maker.prepare(self.path_of(values))
                assert mask == mask_now()
                store = maker.open_store(self.path_of(values), "process")
                self.addCleanup(store.close)
                self.publish(store, Key(b"a/k"))
            assert "2775" == self.access(values)[0]
            assert "664" == self.access(f"{values}/a/k")[0]
            assert "2775" == self.access(f"{values}/a")[0]
            assert "664" == self.access(f"{values}/.kvd/lock")[0]


class FastPathTests(ConferringCase, FastPathCase):
    """
    The fast path stores values if its own folder confers the same as that of the key;
    otherwise the request handler does.
    """

    def test_plain_folders_are_served(self) -> None:
        """
        With the mode of all values.
        """
        self.make("plain")
        self.served(put("plain/k", b"v"))

        assert ("644", os.getegid(), b"") == self.access("plain/k")

    def test_a_folder_that_confers_is_left_to_the_request_handler(self) -> None:
        """
        At any depth, from the moment when it begins to confer.
        """
        self.make("group", 0o2775, GROUP)
        self.make("named", 0o755, -1, NAMED)
        self.make("plain")
        self.publish(self.store, Key(b"plain/deep/first"))
        for key in ("group/k", "named/k"):
            self.assert_left(put(key, b"v"))
        for folder in ("plain", "plain/deep", "."):
            key = os.path.normpath(f"{folder}/k")
            self.served(put(key, b"v"))
            path = self.path_of(folder)
            os.setxattr(path, "system.posix_acl_default", NAMED)
            self.assert_left(put(key, b"v"))
            os.removexattr(path, "system.posix_acl_default")
            self.served(put(key, b"v"))
            os.chmod(path, 0o2755)
            self.assert_left(put(key, b"v"))
            os.chmod(path, 0o755)

    def test_a_root_that_confers_is_served(self) -> None:
        """
        If the upload folder was made after it began to confer.
        """
        give(self.path, -1, GROUP)
        os.chmod(self.path, 0o2775)
        os.setxattr(self.path, "system.posix_acl_default", SHARED)
        self.result(self.store.close())
        shutil.rmtree(self.path_of(".kvd"))
        self.store = self.open_store()
        self.fast_path = self.make_fast_path(self.make_process(self.store))
        self.publish(self.store, Key(b"a/first"))
        for key in ("k", "a/k"):
            self.served(put(key, b"v"))
            assert ("660", GROUP, b"") == self.access(key)
        # As long a list, but another one.
        others = access_list((_OWNER, 6, _ANY), (_GROUP, 4, _ANY), (_OTHERS, 0, _ANY))
        self.make("others", 0o2775, GROUP, others)
        self.assert_left(put("others/k", b"v"))
