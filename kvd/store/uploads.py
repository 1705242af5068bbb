"""
The folder in which this process keeps what is being uploaded.

It lies in ``.kvd`` below the root, so that a finished upload is renamed within
its filesystem. Each process has its own and holds it with flock(2) for as long
as it lives, which the kernel ends however the process does. So a folder that
can be locked belongs to nobody: it is the rest of a process that was killed,
and whoever opens the store sweeps it away.

Between making a folder and holding it, somebody who sweeps may take it. So the
maker looks again once it holds the lock, and makes another if the folder is
gone; and whoever sweeps keeps the lock until the folder is removed.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Callable
from itertools import count
from typing import Final

from twisted.logger import Logger

from kvd.keys import Key
from kvd.store.folders import FOLDER_FLAGS

# Somebody sweeps for some milliseconds, once, when a process starts.
_TRIES: Final = 100

_FILE_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_log = Logger()


_KEY_BEHIND: Final = b"."
_SLASH: Final = b"\x1f"  # In no key.
_MAX_NAME_BYTES: Final = 255


def key_of(name: bytes) -> Key | None:
    """
    The key of which a file in an upload folder is the value that was replaced; None if
    it is not kept for any.
    """
    _, behind, text = name.partition(_KEY_BEHIND)
    key = text.replace(_SLASH, b"/")
    # Anybody may have made it.
    if not behind or key.startswith(b".kvd") or not _is_path(key):
        return None
    return Key(key)


def _is_path(key: bytes) -> bool:
    return not any(part in (b"", b".", b"..") for part in key.split(b"/"))


class Left:
    """
    A folder with replaced values that a process left, held by this one.
    """

    def __init__(self, hidden: int, name: str, folder: int) -> None:
        self._hidden = hidden
        self._name = name
        self.folder = folder

    def remove(self) -> None:
        """
        Remove it with all that is in it.
        """
        _remove(self._hidden, self._name, self.folder)
        self.release()

    def release(self) -> None:
        """
        Leave it to others.
        """
        os.close(self.folder)

    def kept(self) -> list[tuple[Key, bytes]]:
        """
        The keys for which something is kept, and its name; what was written last comes
        first.
        """
        found = []
        for name in os.listdir(self.folder):
            key = key_of(os.fsencode(name))
            if key is not None:
                status = os.stat(name, dir_fd=self.folder, follow_symlinks=False)
                found.append((status.st_mtime_ns, key, os.fsencode(name)))
        return [(key, name) for _, key, name in sorted(found, reverse=True)]


class UploadFolder:
    """
    This process's own folder.
    """

    def __init__(
        self, hidden: int, renew_hidden: Callable[[], None] = lambda: None
    ) -> None:
        """
        Args:
            hidden: The folder ``.kvd``, open for as long as this one is used.
            renew_hidden: Makes that anew, behind the same descriptor, where somebody
                has removed it.
        """
        self._hidden = hidden
        self._renew_hidden = renew_hidden
        self._names = count()
        self._name = ""
        self.descriptor = -1
        """Of the folder; it is made for the first upload, so that a store
        whose disk is full can still be opened and read."""
        self.made: Callable[[int], None] = lambda descriptor: None
        """Called with its descriptor when it is made, and with -1 when it is closed."""

    def create(self) -> tuple[int, bytes]:
        """
        Create an empty file. `kvd.shortcuts` creates others, by names of its own.

        Returns:
            Its descriptor, open for writing, and its name in the folder.

        Raises:
            OSError: It cannot be created.
        """
        if self.descriptor < 0:
            self._make()
        name = b"%x" % next(self._names)
        try:
            descriptor = self._create(name)
        except FileNotFoundError:
            # Somebody has removed the folder. What was uploaded in it is lost.
            self._make()
            descriptor = self._create(name)
        return descriptor, name

    def _create(self, name: bytes) -> int:
        return os.open(name, _FILE_FLAGS, 0o666, dir_fd=self.descriptor)

    def _make(self) -> None:
        old = self.descriptor
        try:
            self._name, self.descriptor = _make(self._hidden)
        except FileNotFoundError:
            self._renew_hidden()
            self._name, self.descriptor = _make(self._hidden)
        self.made(self.descriptor)
        if old >= 0:
            os.close(old)

    def name_to_keep(self, key: Key) -> bytes | None:
        """
        A new name for the value of a key that is about to be replaced; None if the key
        is too long for that. `kvd.shortcuts` gives others, beginning with ``c``.
        """
        text = key.replace(b"/", _SLASH)
        name = b"k%x%b%b" % (next(self._names), _KEY_BEHIND, text)
        return name if len(name) <= _MAX_NAME_BYTES else None

    def remove(self, name: bytes) -> None:
        """
        Remove a file that will not be published, or a value that was replaced.
        """
        try:
            os.unlink(name, dir_fd=self.descriptor)
        except OSError as error:
            # What becomes of the request does not depend on it.
            _log.warn(
                "{name} in the upload folder cannot be removed: {reason}",
                name=name,
                reason=error,
            )

    def close(self) -> None:
        """
        Remove the folder, with what may be left in it.
        """
        if self.descriptor >= 0:
            # First: another file can get the number.
            self.made(-1)
            _remove(self._hidden, self._name, self.descriptor)
            os.close(self.descriptor)
            self.descriptor = -1


def sweep(hidden: int) -> list[Left]:
    """
    Remove the upload folders of processes that are no more.

    Args:
        hidden: The folder ``.kvd``, open for as long as what is returned is used.

    Returns:
        Those with replaced values: they must not be removed before a sync.
    """
    found = []
    with os.scandir(hidden) as entries:
        names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    for name in names:
        try:
            folder = os.open(name, FOLDER_FLAGS, dir_fd=hidden)
        except FileNotFoundError:
            continue  # Somebody else sweeps too.
        left = Left(hidden, name, folder)
        if not _hold(folder):
            left.release()
        elif any(key_of(os.fsencode(each)) for each in os.listdir(folder)):
            found.append(left)
        else:
            left.remove()
    return found


def _make(hidden: int) -> tuple[str, int]:
    for _ in range(_TRIES):
        name = f"{os.getpid()}-{secrets.token_hex(8)}"
        os.mkdir(name, dir_fd=hidden)
        try:
            folder = os.open(name, FOLDER_FLAGS, dir_fd=hidden)
        except FileNotFoundError:
            continue
        except OSError:
            # Mostly for want of descriptors: each request would leave another one.
            os.rmdir(name, dir_fd=hidden)
            raise
        if _hold(folder):
            return name, folder
        os.close(folder)
    raise BlockingIOError("every new upload folder was swept away at once")


def _hold(folder: int) -> bool:
    """
    Hold a folder, if nobody does and it still is one.
    """
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return os.fstat(folder).st_nlink > 0


def _remove(hidden: int, name: str, folder: int) -> None:
    try:
        # It has files in it and nothing else, or it is none of ours.
        with os.scandir(folder) as entries:
            for entry in entries:
                os.unlink(entry.name, dir_fd=folder)
        os.rmdir(name, dir_fd=hidden)
    except OSError as error:
        # It costs room, but nothing is wrong with the values.
        _log.warn(
            "the upload folder .kvd/{name} cannot be removed: {reason}",
            name=name,
            reason=error,
        )
