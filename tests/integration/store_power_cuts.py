"""
What a file store keeps when the power is cut, on file systems of its own.

    python -m tests.integration.store_power_cuts CASE KIND FOLDER

Run by `tests.integration.test_store_power_cuts` in a mount namespace of its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from kvd.errors import SyncFailed
from kvd.interfaces import Answer
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.settings import Durability
from kvd.store.file import FileStore
from kvd.store.file_maker import maker
from tests.integration.disk_image import DiskImage

KEY = Key(b"folder/key")


def open_store(disk: DiskImage, durability: Durability) -> FileStore:
    """
    The store on it, as after a start of kvd.
    """
    path = str(disk.path / "values")
    maker.prepare(path)
    return FileStore(path, durability, Clock(), execute)


def finished(answer: Answer[object]) -> None:
    """
    Raise what an answer failed with.
    """
    if isinstance(answer, Deferred):
        results: list[object] = []
        answer.addBoth(results.append)
        (result,) = results
        if isinstance(result, Failure):
            result.raiseException()


def put(store: FileStore, body: bytes, key: Key = KEY) -> None:
    """
    Store a value.
    """
    upload = store.begin_at_once(key, len(body))
    upload.write(body)
    finished(upload.commit(UNCONDITIONAL))


def body_of(store: FileStore, key: Key = KEY) -> bytes:
    """
    The value of a key.
    """
    value: Any = store.open(key)
    try:
        body = b""
        while len(body) < value.info.size:
            body += value.read(len(body), 1 << 20)
        return body
    finally:
        value.close()


def acknowledged_is_there(disk: DiskImage) -> None:
    """
    What was acknowledged at durability ``disk`` is there, new and replaced, also
    where a folder was made for it, and the store itself; what was removed is not.
    """
    store = open_store(disk, "disk")
    for number in range(10):
        put(store, b"old", Key(b"%d/key" % number))
        put(store, b"new", Key(b"%d/key" % number))
    finished(store.remove(Key(b"0/key"), UNCONDITIONAL))
    disk.shut_down()
    store.close()
    disk.unmount()
    disk.mount()
    store = open_store(disk, "disk")
    names = sorted(name for name in os.listdir(disk.path / "values"))
    assert [".kvd", *(str(number) for number in range(1, 10))] == names
    for number in range(1, 10):
        assert b"new" == body_of(store, Key(b"%d/key" % number))
    store.close()


def lost_is_not_acknowledged(disk: DiskImage) -> None:
    """
    A change of names that was done and then lost is no success, for a new value, a
    replaced and a removed one. XFS lies about it: fsync of a folder that was open
    before, such as the root, succeeds.
    """
    for key in (Key(b"key"), Key(b"folder/key")):
        for doing in ("create", "replace", "remove"):
            store = open_store(disk, "disk")
            if doing != "create":
                put(store, b"old", key)
            folder = (disk.path / "values" / key.decode()).parent
            put(store, b"other", Key(key + b"-beside"))
            there = sorted(os.listdir(folder))
            with cut_behind(disk, store), pytest.raises(SyncFailed):
                change(store, key, doing)
            store.close()
            disk.unmount()
            disk.mount()
            assert there == sorted(os.listdir(folder)), (key, doing)


def replaced_is_old_or_new(disk: DiskImage) -> None:
    """
    At durability ``process`` a value that was on the disk stays there until what
    replaced it is, also where the names get to the disk at once, as an fsync of
    anybody makes them, and where a key is too long to keep its value under. What was
    removed is the old value or none.
    """
    keys = [Key(b"folder/%d" % number) for number in range(20)]
    keys += [Key(b"name with spaces.and.dots"), Key(b"long/" * 60 + b"key")]
    for exchanges in (False, True):
        store = open_store(disk, "process")
        store._tree.exchanges = exchanges
        for key in (*keys, Key(b"removed")):
            put(store, b"old %b" % key, key)
        os.sync()
        for times in range(3):
            for key in keys:
                put(store, b"new %d " % times * 1000, key)
        finished(store.remove(Key(b"removed"), UNCONDITIONAL))
        other = os.open(disk.path / "other", os.O_CREAT | os.O_WRONLY)
        os.fsync(other)
        os.close(other)
        disk.shut_down()
        store.close()
        disk.unmount()
        disk.mount()
        store = open_store(disk, "process")
        bodies = {key: body_of(store, key) for key in keys}
        news = {b"new %d " % times * 1000 for times in range(3)}
        for key, body in bodies.items():
            assert body in news | {b"old %b" % key}, (key, body[:20], len(body))
        store.close()
        # A second start finds nothing to do, and nothing is left.
        store = open_store(disk, "process")
        assert bodies == {key: body_of(store, key) for key in keys}
        assert ["lock"] == os.listdir(disk.path / "values/.kvd")
        store.close()


@contextmanager
def cut_behind(disk: DiskImage, store: FileStore) -> Iterator[None]:
    """
    The power is cut as soon as a store has changed a name.
    """
    tree = store._tree
    publish, remove = tree.publish, tree.remove

    def publish_and_cut(*args: Any, **named: Any) -> bool:
        replaced = publish(*args, **named)
        disk.shut_down()
        return replaced

    def remove_and_cut(*args: Any) -> None:
        remove(*args)
        disk.shut_down()

    with (
        mock.patch.object(tree, "publish", publish_and_cut),
        mock.patch.object(tree, "remove", remove_and_cut),
    ):
        yield


def change(store: FileStore, key: Key, doing: str) -> None:
    """
    Remove a value, or store one.
    """
    if doing == "remove":
        finished(store.remove(key, UNCONDITIONAL))
    else:
        put(store, b"new", key)


CASES: dict[str, Callable[[DiskImage], None]] = {
    case.__name__: case
    for case in (
        acknowledged_is_there,
        lost_is_not_acknowledged,
        replaced_is_old_or_new,
    )
}

if __name__ == "__main__":
    disk = DiskImage(sys.argv[2], Path(sys.argv[3]))
    try:
        CASES[sys.argv[1]](disk)
    finally:
        disk.leave()
