"""
A disk of one's own: a file system in an image, whose power can be cut.

Mounting needs to be root, and is done in a mount namespace of the process.
"""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from pathlib import Path
from typing import Final

KINDS: Final = ("ext4", "xfs")

# XFS_IOC_GOINGDOWN, which ext4 understands too: _IOR('X', 125, __u32); and its
# argument for "without writing the log".
_GOING_DOWN: Final = 0x8004587D
_NO_LOG_FLUSH: Final = 2

# The least that xfs takes; the file is sparse.
_IMAGE_BYTES: Final = 400 << 20


class DiskImage:
    """
    A file system in a file.
    """

    def __init__(self, kind: str, folder: Path) -> None:
        """
        Args:
            kind: One of `KINDS`.
            folder: Where the image is, and where it is mounted.
        """
        self._image = folder / "image"
        self.path = folder / "mounted"
        """Where it is mounted."""
        self.path.mkdir()
        with self._image.open("wb") as file:
            file.truncate(_IMAGE_BYTES)
        run_on_disks(f"mkfs.{kind}", "-q", str(self._image))
        self.mount()

    def mount(self) -> None:
        """
        Mount it, as after a start of the machine.
        """
        run_on_disks("mount", "-o", "loop", str(self._image), str(self.path))

    def unmount(self) -> None:
        """
        The image is all that is left then.
        """
        run_on_disks("umount", str(self.path))

    def leave(self) -> None:
        """
        Unmount it as soon as nobody uses it any more, at the latest when the process
        ends.
        """
        run_on_disks("umount", "--lazy", str(self.path))

    def shut_down(self) -> None:
        """
        Let nothing more get to the disk, not even what the log still holds: as when
        the power is cut, but for processes with open files, which get errors.
        """
        folder = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, _GOING_DOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(folder)


def run_on_disks(*command: str) -> None:
    """
    Run a command that makes, mounts or copies a disk.
    """
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    done = subprocess.run(
        command,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise AssertionError(
            f"{' '.join(command)} failed: {done.stderr.strip()}; tests of power cuts"
            " need to be root, loop devices, e2fsprogs and xfsprogs"
        )
