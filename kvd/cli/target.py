"""
The destination of a fetched value.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from kvd.cli.errors import unwritable
from kvd.cli.output import standard_output


class Target(Protocol):
    """
    Takes the bytes of one value.
    """

    name: str

    def write(self, data: bytes) -> None:
        """
        Write all bytes, however long that takes.
        """

    def finish(self, changed_ms: int | None = None) -> None:
        """
        The value is complete.

        Args:
            changed_ms: The time that a new file gets, in milliseconds since the epoch;
                None: the present one.
        """


class _Stream:
    """
    Standard output, a device or a pipe, written directly.
    """

    def __init__(self, name: str, descriptor: int) -> None:
        self.name = name
        self._descriptor = descriptor

    def write(self, data: bytes) -> None:
        _write_all(self._descriptor, data)

    def finish(self, changed_ms: int | None = None) -> None:
        pass


class _NewFile:
    """
    A file that gets its name when the value is complete.
    """

    def __init__(
        self, path: str, descriptor: int, temporary: str, permissions: int
    ) -> None:
        self.name = path
        self._descriptor = descriptor
        self._temporary = temporary
        self._permissions = permissions

    def write(self, data: bytes) -> None:
        _write_all(self._descriptor, data)

    def finish(self, changed_ms: int | None = None) -> None:
        try:
            os.fchmod(self._descriptor, self._permissions)
            if changed_ms is not None:
                os.utime(self._descriptor, ns=(changed_ms * 1_000_000,) * 2)
            os.rename(self._temporary, self.name)
        except OSError as error:
            raise unwritable(self.name, error) from error


@contextmanager
def open_target(path: str) -> Iterator[Target]:
    """
    A place for a value. If it was not finished, an existing file stays as it was.

    Raises:
        LocalError: It cannot be written.
    """
    if path == "-":
        with standard_output() as out:
            descriptor = out.fileno()
        yield _Stream("standard output", descriptor)
        return
    try:
        # The target of a link is replaced, not the link.
        path = os.path.realpath(path)
        replaced = _mode(path)
        descriptor, temporary = _open(path, replaced)
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        if temporary is None:
            yield _Stream(path, descriptor)
        else:
            # The new file has the permissions of the old one.
            permissions = 0o666 & ~_umask() if replaced is None else replaced & 0o777
            yield _NewFile(path, descriptor, temporary, permissions)
    finally:
        os.close(descriptor)
        if temporary is not None:
            try:
                os.unlink(temporary)
            except FileNotFoundError:
                # It has its name.
                pass


def _mode(path: str) -> int | None:
    """
    Of a file; None if there is none.
    """
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return None


def _open(path: str, mode: int | None) -> tuple[int, str | None]:
    if mode is not None and stat.S_ISDIR(mode):
        raise IsADirectoryError(21, "it is a folder", path)
    if mode is not None and not stat.S_ISREG(mode):
        # Renaming a file over a device would remove the device.
        return os.open(path, os.O_WRONLY | os.O_CLOEXEC), None
    folder, name = os.path.split(path)
    # The name must not be longer than a file's can be.
    prefix = f".{os.fsdecode(os.fsencode(name)[:200])}."
    return tempfile.mkstemp(prefix=prefix, dir=folder)


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
