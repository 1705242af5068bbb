"""
The tests of `kvd.store.keeping`.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from twisted.internet.defer import execute
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from kvd.errors import StoreUnusable
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.model.values import Published, ValueInfo
from kvd.store.file import FileStore
from kvd.store.file_maker import maker
from kvd.store.keeping import has_sidecars, keeps_attributes

KEPT = mock.patch("kvd.store.keeping.keeps_attributes", return_value=True)
NOT_KEPT = mock.patch("kvd.store.keeping.keeps_attributes", return_value=False)

setxattr, getxattr = os.setxattr, os.getxattr


def unsupported(*args: Any) -> bytes:
    """
    What file systems without extended attributes say.
    """
    raise OSError(errno.EOPNOTSUPP, "Operation not supported")


@contextmanager
def without_attributes() -> Iterator[None]:
    """
    A file system that keeps no extended attributes of users.
    """
    with mock.patch("os.setxattr", unsupported), mock.patch("os.getxattr", unsupported):
        yield


def open_store(path: Path) -> FileStore:
    """
    The store in a folder, as another process opens it.
    """
    return FileStore(str(path), "process", Clock(), execute, writes_back=False)


def publish(store: FileStore, key: bytes) -> ValueInfo:
    """
    A value with metadata.
    """
    upload = store.begin_at_once(Key(key), 5, {"content-type": "text/x-kvd"})
    upload.write(b"value")
    published = upload.commit(UNCONDITIONAL)
    assert isinstance(published, Published)
    return published.info


def stored(path: Path, key: bytes) -> ValueInfo:
    """
    The same as a process finds it that opens the store.
    """
    with closing(open_store(path)) as store:
        info = store.stat(Key(key))
        assert isinstance(info, ValueInfo)
        return info


def said(path: Path) -> list[str]:
    """
    What a daemon that starts says of the store.
    """
    with capturedLogs() as events:
        maker.prepare(str(path))
    return [event["log_format"] for event in events]


def test_an_attribute_is_read_back(tmp_path: Path) -> None:
    """
    A file system may take what it does not keep. Nothing is left of it.
    """
    with (tmp_path / "file").open("w") as file:
        number = file.fileno()
        assert keeps_attributes(number)
        assert [] == os.listxattr(number)
        with mock.patch("os.setxattr"):
            assert not keeps_attributes(number)
        with mock.patch("os.getxattr", return_value=b"other"):
            assert not keeps_attributes(number)
        with without_attributes():
            assert not keeps_attributes(number)
        broken = OSError(errno.EIO, "Input/output error")
        with (
            mock.patch("os.setxattr", side_effect=broken),
            pytest.raises(OSError, match="Input/output error"),
        ):
            keeps_attributes(number)
        assert [] == os.listxattr(number)


@pytest.mark.parametrize("keeps", [True, False])
def test_whoever_comes_later_asks_nothing_of_the_disk(
    tmp_path: Path, keeps: bool
) -> None:
    """
    A worker that starts while the disk answers otherwise does as the others do.
    """
    with KEPT if keeps else NOT_KEPT:
        maker.prepare(str(tmp_path))
    with NOT_KEPT if keeps else KEPT, closing(open_store(tmp_path)) as store:
        assert keeps == store.fast_path_state.keeps_attributes
        state = store.fast_path_state
        assert keeps != has_sidecars(state.root, state.lock.descriptor)


def test_of_two_that_decide_at_once_one_does(tmp_path: Path) -> None:
    """
    Also if the disk gives them different answers.
    """
    answers = [False, True]

    def asked(file: int) -> bool:
        mine = answers.pop()
        if answers:
            with closing(open_store(tmp_path)) as other:
                assert not other.fast_path_state.keeps_attributes
        return mine

    with (
        mock.patch("kvd.store.keeping.keeps_attributes", asked),
        closing(open_store(tmp_path)) as store,
    ):
        assert not store.fast_path_state.keeps_attributes


def test_full_disk_decides_nothing(tmp_path: Path) -> None:
    """
    Whatever it has can still be read. Later it is asked again.
    """
    full = OSError(errno.ENOSPC, "No space left on device")
    with (
        mock.patch("kvd.store.keeping.keeps_attributes", side_effect=full),
        closing(open_store(tmp_path)) as store,
    ):
        assert store.fast_path_state.keeps_attributes
    with NOT_KEPT, closing(open_store(tmp_path)) as store:
        assert not store.fast_path_state.keeps_attributes


def test_daemon_starts_on_a_full_disk(tmp_path: Path) -> None:
    """
    It cannot ask again then whether there are attributes still, and takes it that there
    are: what it has can be read, and removed to make room.
    """
    with closing(open_store(tmp_path)) as store:
        before = publish(store, b"k")
    full = OSError(errno.ENOSPC, "No space left on device")
    with mock.patch("kvd.store.keeping.keeps_attributes", side_effect=full):
        assert [] == said(tmp_path)
    assert before == stored(tmp_path, b"k")


def test_of_two_daemons_that_lose_attributes_at_once_both_start(
    tmp_path: Path,
) -> None:
    """
    The one finds what the other has changed meanwhile.
    """
    maker.prepare(str(tmp_path))
    others = ["another daemon"]

    def asked(file: int) -> bool:
        if others:
            others.pop()
            maker.prepare(str(tmp_path))
        return False

    with mock.patch("kvd.store.keeping.keeps_attributes", asked):
        maker.prepare(str(tmp_path))
    assert (tmp_path / ".kvd" / "attributes").is_dir()


def test_broken_disk_is_told(tmp_path: Path) -> None:
    """
    It does not count as one that keeps no attributes.
    """
    # The system's error names the descriptor.
    broken = OSError(errno.EIO, "Input/output error", 7)
    with (
        mock.patch("os.setxattr", side_effect=broken),
        pytest.raises(StoreUnusable, match=r"Input/output error$"),
    ):
        maker.prepare(str(tmp_path))


def test_record_that_another_program_removes_is_made_again(tmp_path: Path) -> None:
    """
    With all of ``.kvd``; what is there is found as before.
    """
    with closing(open_store(tmp_path)) as store:
        before = publish(store, b"k")
        shutil.rmtree(tmp_path / ".kvd")
        assert before == stored(tmp_path, b"k")
    assert (tmp_path / ".kvd" / "attributes").is_file()


def test_sidecars_stay_where_there_could_be_attributes(tmp_path: Path) -> None:
    """
    After a copy to another file system, no value loses what it had; a daemon that
    starts says how it goes on.
    """
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    with without_attributes():
        (first,) = said(old)
        assert "file system of the store {path} keeps no extended" in first
        with closing(open_store(old)) as store:
            before = publish(store, b"k")
    shutil.copytree(old, new, copy_function=shutil.copy2)
    (then,) = said(new)
    assert "where kvd began to keep them" in then
    assert before == stored(new, b"k")
    assert "text/x-kvd" == before.metadata["content-type"]
    with closing(open_store(new)) as store:
        publish(store, b"k")
    assert [] == os.listxattr(new / "k")


def test_attributes_that_a_copy_has_lost_are_told(tmp_path: Path) -> None:
    """
    When a daemon starts with it, and not again; what is stored from then on has
    sidecars.
    """
    with closing(open_store(tmp_path)) as store:
        publish(store, b"k")
    os.removexattr(tmp_path / "k", "user.kvd")
    with without_attributes():
        lost, how = said(tmp_path)
        assert "have lost them" in lost
        assert "kvd sync" in lost
        assert "keeps no extended attributes" in how
        assert {} == stored(tmp_path, b"k").metadata
        assert [how] == said(tmp_path)
        with closing(open_store(tmp_path)) as store:
            new = publish(store, b"new")
        assert new == stored(tmp_path, b"new")


def test_attributes_that_a_mount_brings_back_are_found(tmp_path: Path) -> None:
    """
    Beside sidecars that were made meanwhile, whoever reads or lists.
    """
    with closing(open_store(tmp_path)) as store:
        old = publish(store, b"old")
        replaced = publish(store, b"replaced")
    with without_attributes():
        said(tmp_path)
        with closing(open_store(tmp_path)) as store:
            new = publish(store, b"replaced")
            assert new.etag != replaced.etag
    said(tmp_path)
    assert [old, new] == [stored(tmp_path, key) for key in (b"old", b"replaced")]
    with closing(open_store(tmp_path)) as store:
        store.remove(Key(b"old"), UNCONDITIONAL)
        store.remove(Key(b"replaced"), UNCONDITIONAL)
    left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert ["lock"] == left
