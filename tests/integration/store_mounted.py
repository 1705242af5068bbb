"""
What a file store does on filesystems that are full, read-only or unfit.

Run by `tests.integration.test_store_room`, each case in a process of its own, and in a
mount namespace of its own if the case needs one.
"""

import os
import subprocess
from collections.abc import Callable
from socket import socketpair

import pytest
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from kvd.errors import MetadataTooLarge, StoreFull, StoreUnusable
from kvd.http.context import ProcessContext
from kvd.http.dialects.choice import Dialects
from kvd.http.templates import fast_path_to
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.model.values import Published
from kvd.settings import Limits
from kvd.store.file import FileStore
from kvd.store.file_maker import maker
from kvd.store.uploads import key_of

CHUNK = b"x" * 65536


def mount(kind: str, path: str, options: str) -> None:
    """
    Mount a filesystem of its own.
    """
    subprocess.run(["mount", "-t", kind, "-o", options, "none", path], check=True)


def open_store(path: str) -> FileStore:
    """
    The store on it.
    """
    maker.prepare(path)
    return FileStore(path, "process", Clock(), execute)


def put(store: FileStore, key: bytes, chunks: int, length: int | None) -> None:
    """
    Store a value of some chunks, or discard it.
    """
    upload = store.begin_at_once(Key(key), length)
    try:
        for _ in range(chunks):
            upload.write(CHUNK)
    except StoreFull:
        upload.discard()
        raise
    answer = upload.commit(UNCONDITIONAL)
    if isinstance(answer, Deferred):
        results: list[object] = []
        answer.addBoth(results.append)
        assert isinstance(results[0], Published), results


def files(path: str) -> list[str]:
    """
    All files there but the locks, and what is kept of replaced values for a while.
    """
    return [
        name
        for name in all_files(path)
        if name not in ("attributes", "lock") and key_of(os.fsencode(name)) is None
    ]


def all_files(path: str) -> list[str]:
    """
    The names of all files there.
    """
    return [name for _, _, names in os.walk(path) for name in names]


def is_full(act: Callable[[], object]) -> bool:
    """
    Whether the store is full for something.
    """
    try:
        act()
    except StoreFull:
        return True
    return False


def full_disk(path: str) -> None:
    """
    A value that does not fit is refused, early if its length is known, and
    leaves nothing behind; the next that fits is taken, an old one stays.
    """
    mount("tmpfs", path, "size=1m")
    store = open_store(path)
    put(store, b"old", 1, len(CHUNK))
    assert is_full(lambda: store.begin_at_once(Key(b"a/b"), 2 << 20))
    assert is_full(lambda: put(store, b"a/b", 20, None))
    assert is_full(lambda: put(store, b"old", 20, None))
    assert ["old"] == files(path)
    put(store, b"a/b", 10, 10 * len(CHUNK))
    assert store.stat(Key(b"a/b")).size == 10 * len(CHUNK)
    assert store.stat(Key(b"old")).size == len(CHUNK)


def no_inodes(path: str) -> None:
    """
    Want of inodes is want of room, for files and for folders; what was made
    on the way is gone again, and once there are some it goes on.
    """
    mount("tmpfs", path, "size=1m,nr_inodes=16")
    store = open_store(path)
    stored = 0
    while not is_full(lambda: put(store, b"%d" % stored, 0, 0)):  # noqa: B023
        stored += 1
    assert stored > 5
    assert stored == len(files(path))
    store.remove(Key(b"0"), UNCONDITIONAL)
    store.remove(Key(b"1"), UNCONDITIONAL)
    assert is_full(lambda: put(store, b"a/b/c/d", 0, 0))
    assert not os.path.exists(os.path.join(path, "a"))
    put(store, b"a/b", 0, 0)


def full_at_start(path: str) -> None:
    """
    A full store can be prepared, opened and read, and a value removed from it.
    """
    mount("tmpfs", path, "size=1m,nr_inodes=16")
    store = open_store(path)
    stored = 0
    while not is_full(lambda: put(store, b"%d" % stored, 0, 0)):  # noqa: B023
        stored += 1
    store.close()
    while True:
        try:
            os.close(os.open(f"{path}/fill{stored}", os.O_CREAT))
        except OSError:
            break
        stored += 1
    store = open_store(path)
    assert 0 == store.stat(Key(b"0")).size
    assert is_full(lambda: put(store, b"new", 0, 0))
    for key in (b"0", b"1", b"2"):
        store.remove(Key(key), UNCONDITIONAL)
    put(store, b"new", 0, 0)


def unusable(path: str, words: str) -> None:
    """
    The store cannot be, and the sentence says why.
    """
    with pytest.raises(StoreUnusable) as refusal:
        maker.prepare(path)
    assert words in refusal.value.sentence
    assert path in refusal.value.sentence


def read_only(path: str) -> None:
    """
    A read-only filesystem is no store, before there is one and after.
    """
    mount("tmpfs", path, "size=1m")
    os.mkdir(f"{path}/old")
    maker.prepare(f"{path}/old")
    subprocess.run(["mount", "-o", "remount,bind,ro", path], check=True)
    unusable(f"{path}/old", "Read-only file system")
    unusable(f"{path}/new", "Read-only file system")


def no_attributes(path: str) -> None:
    """
    A filesystem without extended attributes is a store like others: values have their
    metadata and take it along, folders come and go.
    """
    mount("ramfs", path, "mode=755")
    with capturedLogs() as events:
        store = open_store(path)
    assert ["keeps no extended attributes" in event["log_format"] for event in events]
    for body in b"old", b"new":
        metadata = {"content-type": f"text/{body.decode()}"}
        upload = store.begin_at_once(Key(b"a/b/c"), 3, metadata)
        upload.write(body)
        upload.commit(UNCONDITIONAL)
        info = open_store(path).stat(Key(b"a/b/c"))
        assert metadata == info.metadata
        assert 2 == len(files(path))
    os.mkdir(f"{path}/a/others")
    os.chmod(f"{path}/a/others", 0o777)
    put(store, b"a/others/key", 0, 0)
    for key in (b"a/b/c", b"a/others/key"):
        store.remove(Key(key), UNCONDITIONAL)
    assert [] == files(path)
    assert ["others"] == os.listdir(f"{path}/a")


def not_permitted(path: str) -> None:
    """
    A folder that may not be written is no store.
    """
    os.chmod(path, 0o555)
    if os.geteuid() == 0:
        os.setuid(65534)
    unusable(path, "Permission denied")
    unusable(f"{path}/new", "Permission denied")


def small_blocks(path: str) -> None:
    """
    ext4 with blocks of 1 KiB keeps less metadata than others: an empty one is not
    full, and what it does not keep is refused as that.
    """
    image = f"{path}/image"
    with open(image, "wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-b", "1024", image], check=True)
    os.mkdir(f"{path}/mounted")
    subprocess.run(["mount", "-o", "loop", image, f"{path}/mounted"], check=True)
    store = open_store(f"{path}/mounted")
    for size in (0, 100, 800):
        upload = store.begin_at_once(Key(b"k"), 0, {"content-type": "x" * size})
        upload.commit(UNCONDITIONAL)
        assert size == len(store.stat(Key(b"k")).metadata["content-type"])
    upload = store.begin_at_once(Key(b"k"), 0, {"content-type": "x" * 1000})
    with pytest.raises(MetadataTooLarge, match="more than the file system of the"):
        upload.commit(UNCONDITIONAL)
    assert 800 == len(store.stat(Key(b"k")).metadata["content-type"])
    assert ["k"] == files(f"{path}/mounted")
    while not is_full(lambda: put(store, b"fill", 1, None)):
        os.rename(f"{path}/mounted/fill", f"{path}/mounted/{os.urandom(8).hex()}")


def scarce_room(path: str) -> None:
    """
    Values that fill most of a disk can be replaced again and again, by two processes in
    turns: neither keeps what there is no room for. The fast path sees it alike.
    """
    image, mounted = f"{path}/image", f"{path}/mounted"
    with open(image, "wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    os.mkdir(mounted)
    subprocess.run(["mount", "-o", "loop", image, mounted], check=True)
    store, other = open_store(mounted), open_store(mounted)
    for _ in range(5):
        put(store, b"large", 300, 300 * len(CHUNK))
        put(other, b"large", 300, 300 * len(CHUNK))
    process = ProcessContext(store, Dialects(()), Limits(), Clock())
    fast_path = fast_path_to(process)
    assert fast_path is not None
    near, far = socketpair()

    def is_served(key: bytes) -> bool:
        head = b"PUT /%b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n"
        far.sendall(head % key + b"x")
        return 1 == fast_path.serve(near.fileno())

    put(other, b"small", 1, None)
    with open(f"{mounted}/small", "rb") as small:
        os.fsync(small)  # Otherwise it would not be worth keeping.
    assert not is_served(b"large"), "it is too large to be kept"
    assert is_served(b"small")
    put(other, b"a", 1, None)
    put(other, b"b", 1, None)
    space = os.statvfs(mounted)
    room = space.f_bavail * space.f_frsize - (64 << 20) // 20
    put(other, b"filling", room // len(CHUNK), None)
    assert not is_served(b"a")
    put(store, b"b", 1, None)
    kept = [key_of(os.fsencode(name)) for name in all_files(mounted)]
    assert [b"small"] == [key for key in kept if key]


IMAGES = {"small_blocks", "scarce_room"}
"""
Cases with a disk of their own, which a namespace of one's own cannot mount.
"""

CASES = {
    case.__name__: case
    for case in (
        full_disk,
        no_inodes,
        full_at_start,
        small_blocks,
        scarce_room,
        read_only,
        no_attributes,
        not_permitted,
    )
}


def main(case: str, folder: str) -> None:
    """
    Run a case in an empty folder.
    """
    CASES[case](folder)
