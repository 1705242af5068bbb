"""
What a file store keeps when the power is cut, on file systems of its own.

Run by `tests.integration.test_store_power_cuts`, each case in a process and a mount
namespace of its own.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from kvd.errors import KeyAbsent, SyncFailed
from kvd.interfaces import Answer
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.settings import Durability
from kvd.store.file import FileStore
from kvd.store.file_maker import maker
from kvd.store.waiting import resolved
from tests.integration.disk_image import DiskImage
from tests.store.replacing import Replacing

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
        assert ["attributes", "lock"] == sorted(os.listdir(disk.path / "values/.kvd"))
        store.close()


def replaced_by_several_is_no_older(disk: DiskImage) -> None:
    """
    The same where processes replace each other's values and share their syncs: after
    any number of steps there is what was synced, or something newer.
    """
    seed = random.randrange(1 << 32)
    print(f"seed {seed}", file=sys.stderr)
    path = str(disk.path / "values")
    maker.prepare(path)
    for number in range(20):
        choose = random.Random(seed + number)
        clock = Clock()
        open_one = partial(FileStore, path, "process", clock)
        replacing = Replacing(Key(b"%d" % number), clock, open_one, 3)
        for _ in range(choose.randrange(5, 25)):
            replacing.do_something(choose)
        least = replacing.least()
        with open(disk.path / "other", "w") as other:
            os.fsync(other)
        disk.shut_down()
        replacing.close()
        disk.unmount()
        disk.mount()
        store = open_store(disk, "process")
        found = body_of(store, replacing.key) if least else b"0"
        assert least <= int(found) <= replacing.number, (least, found)
        store.close()


def unwritten_is_absent(disk: DiskImage) -> None:
    """
    A new value of which the file system has the place and the length, but of whose
    content a part was never written, is none: it is neither served nor listed, and can
    be stored again. Zeros that were written are a value, and so are holes.
    """
    bodies = {b"small": b"v" * 4096, b"large": b"v" * 300_000}
    bodies |= {b"torn late": bytes(200 * 8192)}
    bodies |= {b"zeros": bytes(100_000), b"sparse": bytes(100_000), b"empty": b""}
    store = open_store(disk, "process")
    for name, body in bodies.items():
        put(store, body, Key(name))
        # What is on its way to the disk is there.
        assert body == body_of(store, Key(name))
    store.close()
    os.sync()
    values = disk.path / "values"
    allot(values / "small", "--zero-range", 0, 4096)
    allot(values / "large", "--zero-range", 290_000, 5_000)
    allot(values / "sparse", "--punch-hole", 40_000, 40_000)
    for begin in range(0, 200 * 8192, 8192):
        allot(values / "torn late", "--punch-hole", begin, 4096)
    allot(values / "torn late", "--zero-range", 200 * 8192 - 4096, 4096)
    # Behind the end, as file systems do on their own.
    allot(values / "sparse", "--keep-size", 200_000, 100_000)
    disk.unmount()
    disk.mount()
    store = open_store(disk, "process")
    torn = [b"large", b"small", b"torn late"]
    for name in torn:
        with pytest.raises(KeyAbsent):
            store.open(Key(name))
    whole = sorted(bodies.keys() - torn)
    assert whole == listed(store)
    for name in whole:
        assert bodies[name] == body_of(store, Key(name))
    for name in torn:
        put(store, bodies[name], Key(name))
        assert bodies[name] == body_of(store, Key(name))
    assert sorted(bodies) == listed(store)
    store.close()


def attributes_of_their_own_are_as_safe(disk: DiskImage) -> None:
    """
    Where the file system keeps no extended attributes: at durability ``disk`` a value
    is there with its metadata. At ``process`` it is the old one or the new one, and
    whole; it has its own metadata, or none if it is new.
    """
    with mock.patch("kvd.store.keeping.keeps_attributes", return_value=False):
        for durability in "disk", "process":
            keys = [Key(b"%b/%d" % (durability.encode(), n)) for n in range(10)]
            store = open_store(disk, durability)
            for key in keys:
                put_typed(store, key, b"old" * 2000)
            os.sync()
            for key in keys:
                put_typed(store, key, b"new" * 2000)
            with open(disk.path / "other", "w") as other:
                os.fsync(other)
            disk.shut_down()
            store.close()
            disk.unmount()
            disk.mount()
            store = open_store(disk, durability)
            for key in keys:
                body = body_of(store, key)
                kind = body[:3].decode()
                assert body == kind.encode() * 2000
                known = store.stat(key).metadata
                if durability == "disk":
                    assert kind == "new"
                assert known == {"content-type": kind} or (
                    durability == "process" and kind == "new" and not known
                )
            store.close()


def put_typed(store: FileStore, key: Key, body: bytes) -> None:
    """
    Store a value whose content type is its beginning.
    """
    metadata = {"content-type": body[:3].decode()}
    upload = store.begin_at_once(key, len(body), metadata)
    upload.write(body)
    finished(upload.commit(UNCONDITIONAL))


def listed(store: FileStore) -> list[bytes]:
    """
    All keys.
    """
    results: list[object] = []
    listing = store.list(b"", b"", 99)
    Deferred.fromCoroutine(resolved(listing.next_slice())).addBoth(results.append)
    listing.close()
    (infos,) = results
    assert isinstance(infos, list), infos
    return [info.key for info in infos]


def allot(path: Path, way: str, begin: int, length: int) -> None:
    """
    Change what a part of a file is to its file system, by an option of fallocate(1),
    and not its date. ``--zero-range`` leaves it as a power cut does that comes before
    its content.
    """
    status = path.stat()
    place = [f"--offset={begin}", f"--length={length}"]
    subprocess.run(["fallocate", way, *place, path], check=True)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@contextmanager
def cut_behind(disk: DiskImage, store: FileStore) -> Iterator[None]:
    """
    The power is cut as soon as a store has changed a name.
    """
    tree = store._tree
    publish, remove = tree.publish, tree.remove

    def publish_and_cut(*args: Any, **named: Any) -> object:
        replaced = publish(*args, **named)
        disk.shut_down()
        return replaced

    def remove_and_cut(*args: Any) -> object:
        size = remove(*args)
        disk.shut_down()
        return size

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
        replaced_by_several_is_no_older,
        unwritten_is_absent,
        attributes_of_their_own_are_as_safe,
    )
}


def main(case: str, kind: str, folder: str) -> None:
    """
    Run a case on a file system of a kind.
    """
    disk = DiskImage(kind, Path(folder))
    try:
        CASES[case](disk)
    finally:
        disk.leave()
