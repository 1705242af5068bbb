"""
Where the values of servers are: tmpfs, or what stands for a disk.

How long a file system takes to create a file depends on its past, such as what was
removed before: on one ext4 it was 4 µs at one time and 135 µs at another. So servers
that share a file system meet different ones in different turns. In an image, each
server of a workload has a file system of its own, made anew.

The kernel keeps names and inodes of all file systems in tables whose size it chose when
the machine started. After long use of a machine with much memory, each look-up walks a
long chain there: with a million inodes, that was a third of the time that a PUT took.
So they are dropped before each workload.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.building import find
from bench.machine import file_system
from kvd.lab.measuring.errors import BenchFailed

TMPFS: Final = Path("/dev/shm")  # noqa: S108  # a folder of an unused name in it

IMAGES: Final[Mapping[str, Sequence[str]]] = {
    # What mkfs leaves to be done later is never done: it would slow down some turns.
    "ext4": ["-E", "lazy_itable_init=1,lazy_journal_init=1"],
    "xfs": [],
}
"""The file systems that an image can have, and options of their mkfs."""
_MOUNT_OPTIONS: Final = {"ext4": "loop,noinit_itable", "xfs": "loop"}
_PACKAGES: Final = {"ext4": "e2fsprogs", "xfs": "xfsprogs"}

# The file is sparse. It has room for what 64 clients upload beside small requests.
_IMAGE_BYTES: Final = 16 << 30

_OWN_MOUNTS: Final = "KVD_BENCH_OWN_MOUNTS"


@dataclass(frozen=True)
class Medium:
    """
    A place for the values of servers.
    """

    parent: Path
    image: str | None = None
    """One of `IMAGES`; None: servers share the file system of `parent`."""

    @contextmanager
    def place(self) -> Iterator[Path]:
        """
        An empty folder for one server. What is in it goes with the ``with``.

        Raises:
            BenchFailed: The image cannot be made or mounted.
        """
        folder = Path(tempfile.mkdtemp(prefix="kvd-bench-", dir=self.parent))
        try:
            if self.image is None:
                yield folder
            else:
                with _mounted(self.image, folder) as mounted:
                    yield mounted
        finally:
            shutil.rmtree(folder)

    def prepare(self) -> None:
        """
        Let the kernel forget names and inodes, where servers get file systems of their
        own.
        """
        if self.image is not None:
            # Dirty ones would stay.
            os.sync()
            Path("/proc/sys/vm/drop_caches").write_text("2\n")

    def describe(self) -> str:
        """
        The file system, for a person.
        """
        outer = file_system(self.parent)
        return outer if self.image is None else f"{self.image} in an image on {outer}"


def write_back(folders: Iterable[Path]) -> None:
    """
    Write what was changed in the file systems of some folders.
    """
    command = ["sync", "--file-system", *map(str, folders)]
    subprocess.run(command, check=True)  # noqa: S603


def take_own_mounts() -> None:
    """
    Go on in a mount namespace of this process alone, so that what is mounted goes with
    it, however it ends. The program begins anew in it.

    Raises:
        BenchFailed: This takes root.
    """
    if os.geteuid() != 0:
        raise BenchFailed(
            "--image mounts file systems, which takes root; this is user"
            f" {os.geteuid()}. Without --image, servers share a file system."
        )
    if os.environ.get(_OWN_MOUNTS) == "yes":
        return
    os.environ[_OWN_MOUNTS] = "yes"
    own = [str(find("unshare", "util-linux")), "--mount", *sys.orig_argv]
    os.execv(own[0], own)  # noqa: S606  # our own program again


@contextmanager
def _mounted(kind: str, folder: Path) -> Iterator[Path]:
    image, mounted = folder / "image", folder / "mounted"
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate(_IMAGE_BYTES)
    make = str(find(f"mkfs.{kind}", _PACKAGES[kind]))
    _run(make, "-q", *IMAGES[kind], str(image))
    _run("mount", "-o", _MOUNT_OPTIONS[kind], str(image), str(mounted))
    try:
        yield mounted
    finally:
        _run("umount", str(mounted))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise BenchFailed(
            f"{' '.join(command)} failed; images need root and loop devices",
            done.stderr,
        )
