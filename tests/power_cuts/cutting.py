"""
A daemon under load, on a disk of which copies are made, each as it is at one moment.

The disk is an image in an XFS of its own, which copies a file in one step however large
it is (``cp --reflink``). A copy has all that the file system had written by then and
nothing else, as after a power cut; what a disk holds in a cache of its own is taken for
written.

Each value says which key it is of, and a number that grows with each PUT of the key. So
what is found in a copy shows what was lost: the PUTs behind it that had been
acknowledged before the copy was begun.
"""

from __future__ import annotations

import http.client
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Final

from twisted.internet.defer import execute
from twisted.internet.task import Clock

from kvd.errors import KeyAbsent
from kvd.interfaces import IValue
from kvd.model.keys import Key
from kvd.store.file import FileStore
from kvd.store.file_maker import FileStoreMaker
from tests.integration.disk_image import run_on_disks
from tests.integration.twistd import Twistd
from tests.patience import PATIENCE_SECONDS

_OUTER_BYTES: Final = 4 << 30
_IMAGE_BYTES: Final = 400 << 20
_CLIENTS: Final = 4
_CONNECTIONS: Final = 3
"""
Of each client, so that its keys are replaced by one worker and then by another.
"""

_NEW_SHARE: Final = 0.2
"""
Of all PUTs, those of keys that never had a value before.
"""

_MOST_NEW: Final = 1_000
"""
Of a client's: a machine that is fast would fill the disk with them.
"""

_SIZES: Final = (100, 4096, 4096, 4096, 20_000, 200_000)


@dataclass
class Written:
    """
    What became of one key.
    """

    acknowledged: list[tuple[float, int]] = field(default_factory=list)
    """When, and which number; in order."""
    is_new: bool = False
    """Whether it was on no disk before the load."""


@dataclass
class Cut:
    """
    What one copy of the disk lacks.
    """

    keys: int = 0
    puts: int = 0
    """Of all keys, those that had been acknowledged before it was begun."""
    absent: int = 0
    """Keys that had been on the disk before, and have no value."""
    torn: int = 0
    """Values that are none that was ever sent."""
    older: int = 0
    """Keys with an older value than the last that was acknowledged, or with none of one
    that was new."""
    lost_seconds: float = 0.0
    """How long before the cut the oldest PUT that is lost was acknowledged."""


def body_of(key: str, number: int, size: int) -> bytes:
    """
    A value that says what it is, in all of its parts.
    """
    line = f"{key} {number} {size}\n".encode()
    return (line * (size // len(line) + 1))[:size]


def number_in(key: str, body: bytes) -> int | None:
    """
    Which PUT a value is of; None if it is none that was sent.
    """
    words = body.partition(b"\n")[0].split()
    if len(words) != 3 or not (words[1].isdigit() and words[2].isdigit()):
        return None
    number = int(words[1])
    return number if body == body_of(key, number, int(words[2])) else None


class Disk:
    """
    The image, where it is mounted, and its copies.
    """

    def __init__(self, kind: str, outer: Path, path: Path) -> None:
        """
        Args:
            kind: ``ext4`` or ``xfs``.
            outer: A folder on an XFS, which is empty.
            path: Where the disk and its copies are mounted.
        """
        self._outer = outer
        self.path = path
        self.path.mkdir()
        self.image = outer / "image"
        with self.image.open("wb") as file:
            file.truncate(_IMAGE_BYTES)
        run_on_disks(f"mkfs.{kind}", "-q", str(self.image))

    def copy(self, number: int) -> Path:
        """
        What is on it at this moment.
        """
        copy = self._outer / f"copy-{number}"
        run_on_disks("cp", "--reflink=always", str(self.image), str(copy))
        return copy

    @contextmanager
    def mounted(self, image: Path) -> Iterator[Path]:
        """
        Mount an image; one at a time.
        """
        run_on_disks("mount", "-o", "loop", str(image), str(self.path))
        try:
            yield self.path
        finally:
            run_on_disks("umount", str(self.path))


@contextmanager
def new_disk(kind: str, folder: Path) -> Iterator[Disk]:
    """
    A disk for the length of a ``with``; nothing is mounted afterwards.

    Args:
        kind: ``ext4`` or ``xfs``.
        folder: Empty.
    """
    outer = folder / "outer"
    outer.mkdir()
    with (folder / "disk").open("wb") as file:
        file.truncate(_OUTER_BYTES)
    run_on_disks("mkfs.xfs", "-q", "-m", "reflink=1", str(folder / "disk"))
    run_on_disks("mount", "-o", "loop", str(folder / "disk"), str(outer))
    try:
        yield Disk(kind, outer, folder / "mounted")
    finally:
        run_on_disks("umount", str(outer))


class Load:
    """
    Clients that PUT until they are stopped, each under keys of its own.
    """

    def __init__(self, port: int, keys: int, seed: int) -> None:
        self._port = port
        self._stop = Event()
        names = [f"folder-{number % 7}/key-{number}" for number in range(keys)]
        self.written = {name: Written() for name in names}
        self._errors: list[BaseException] = []
        # A name for each PUT; all clients append to it.
        self._stored: list[str] = []
        self._threads = [
            Thread(target=self._put, args=(names[number::_CLIENTS], seed + number))
            for number in range(_CLIENTS)
        ]

    def begin(self) -> None:
        """
        Store each value once.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        for name in self.written:
            self._put_one(connection, name, 0, 4096)
        connection.close()

    def start(self) -> None:
        """
        Store all of them again and again.
        """
        for thread in self._threads:
            thread.start()

    def go_on(self, puts: int) -> None:
        """
        Wait until so many have been acknowledged since the start.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(self._stored) < puts and not self._errors:
            assert time.monotonic() < deadline, "the clients store no more"
            time.sleep(0.01)

    def stop(self) -> None:
        """
        No more.
        """
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def _put(self, names: list[str], seed: int) -> None:
        choose = random.Random(seed)
        connections = [
            http.client.HTTPConnection("127.0.0.1", self._port)
            for _ in range(_CONNECTIONS)
        ]
        number = new = 0
        try:
            while not self._stop.is_set():
                number += 1
                # Some keys are written to all the time, most once in a while.
                name = names[int(len(names) * choose.random() ** 3)]
                if new < _MOST_NEW and choose.random() < _NEW_SHARE:
                    new += 1
                    name += f"-{number}"
                    self.written[name] = Written(is_new=True)
                connection = choose.choice(connections)
                self._put_one(connection, name, number, choose.choice(_SIZES))
                self._stored.append(name)
        except BaseException as error:
            self._errors.append(error)
        finally:
            for connection in connections:
                connection.close()

    def _put_one(
        self, connection: http.client.HTTPConnection, name: str, number: int, size: int
    ) -> None:
        connection.request("PUT", f"/{name}", body_of(name, number, size))
        response = connection.getresponse()
        response.read()
        if response.status not in (201, 204):
            raise AssertionError(f"PUT /{name}: {response.status}")
        self.written[name].acknowledged.append((time.monotonic(), number))


def run(
    kind: str, folder: Path, durability: str, delays: list[float], keys: int, seed: int
) -> list[Cut]:
    """
    Serve from a new disk, cut the power after each delay, and see what is left.

    Args:
        kind: ``ext4`` or ``xfs``.
        folder: Empty.
        durability: Of the daemon.
        delays: Seconds from the start of the load, ascending. The load ends at half of
            the last, but not before as many values have been stored as there are keys.
        keys: How many.
        seed: Of all that is random.
    """
    with new_disk(kind, folder) as disk:
        written, copies = _serve(disk, folder, durability, delays, keys, seed)
        cuts = []
        for moment, copy in copies:
            with disk.mounted(copy) as path:
                cuts.append(look(str(path / "values"), written, moment))
            copy.unlink()
    return cuts


def _serve(
    disk: Disk,
    folder: Path,
    durability: str,
    delays: list[float],
    keys: int,
    seed: int,
) -> tuple[dict[str, Written], list[tuple[float, Path]]]:
    """
    Serve from a disk under load, and copy it after each delay.

    Returns:
        What became of each key, and the copies with when each of them was begun.
    """
    copies: list[tuple[float, Path]] = []
    with disk.mounted(disk.image) as path:
        options = [
            f"--store=file:{path}/values",
            f"--durability={durability}",
            "--procs=2",
            "--policy=roundrobin",
            "--control=off",
        ]
        with Twistd(options, folder) as daemon:
            load = Load(daemon.port, keys, seed)
            load.begin()
            os.sync()
            load.start()
            began = time.monotonic()
            try:
                quiet = delays[-1] / 2
                for number, delay in enumerate(delays):
                    if delay >= quiet:
                        # The second half is quiet: what is lost then is what nobody
                        # writes to the disk unless kvd does.
                        time.sleep(max(0.0, began + quiet - time.monotonic()))
                        load.go_on(keys)
                        load.stop()
                    time.sleep(max(0.0, began + delay - time.monotonic()))
                    now = time.monotonic()
                    copies.append((now, disk.copy(number)))
            finally:
                load.stop()
    return load.written, copies


def is_wrong(durability: str, cuts: list[Cut]) -> bool:
    """
    Whether anything is missing that may not be.
    """
    return any(
        cut.absent or cut.torn or (durability == "disk" and cut.older) for cut in cuts
    )


def look(path: str, written: dict[str, Written], moment: float) -> Cut:
    """
    Start kvd's store again, and read everything.
    """
    FileStoreMaker().prepare(path)
    store = FileStore(path, "disk", Clock(), execute)
    cut = Cut()
    try:
        for name, became in written.items():
            before = [each for each in became.acknowledged if each[0] <= moment]
            cut.keys += not became.is_new
            cut.puts += len(before)
            number: int | None = -1
            try:
                value = store.open(Key(name.encode()))
            except KeyAbsent:
                if not became.is_new:
                    cut.absent += 1
                    continue
            else:
                number = number_in(name, body_in(value))
            if number is None:
                cut.torn += 1
                continue
            lost = [when for when, which in before if which > number]
            if lost:
                cut.older += 1
                cut.lost_seconds = max(cut.lost_seconds, moment - min(lost))
    finally:
        store.close()
    return cut


def body_in(value: IValue) -> bytes:
    """
    All of it.
    """
    body = b""
    while len(body) < value.info.size:
        part = value.read(len(body), 1 << 20)
        assert isinstance(part, bytes)
        body += part
    value.close()
    return body


def report(kind: str, durability: str, cuts: list[Cut]) -> str:
    """
    In one line.
    """
    worst = max(cut.lost_seconds for cut in cuts)
    return (
        f"{kind:5} {durability:8} {len(cuts):4} cuts of {cuts[0].keys} keys"
        f" after {cuts[-1].puts} PUTs:"
        f" {sum(cut.absent for cut in cuts)} absent,"
        f" {sum(cut.torn for cut in cuts)} torn,"
        f" {sum(cut.older for cut in cuts)} older than acknowledged, of the last"
        f" {worst:.1f} seconds"
    )
