"""
The folder in which this process keeps what is being uploaded.

It lies in ``.kvd`` below the root, so that a finished upload is renamed within
its filesystem. Each process has its own and holds it with flock(2) for as long
as it lives, which the kernel ends however the process does. So a folder that
can be locked belongs to nobody: it is the rest of a process that was killed,
and whoever opens the store sweeps it away.

At durability ``process`` it also keeps values that were replaced a moment ago
(`kvd.store.writeback`). Their names have a dot, and behind it the key they had, whose
slashes are the control character US. Folders that hold such files are not removed
before a sync.

Between making a folder and holding it, somebody who sweeps may take it. So the
maker looks again once it holds the lock, and makes another if the folder is
gone; and whoever sweeps keeps the lock until the folder is removed.

A value is to be as if it had been created in the folder of its key. Where that confers
something else than the folder of uploads does (`kvd.store.conferring`), its file is
created there, without a name (O_TMPFILE), and then given one here.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from itertools import count
from typing import Final, NamedTuple

from twisted.logger import Logger

from kvd.model.keys import Key
from kvd.settings import DEFAULT_MODES, Modes
from kvd.store.conferring import ALL_OF_A_FILE, Conferred, conferred, make_folder
from kvd.store.folders import FOLDER_FLAGS

# Somebody sweeps for some milliseconds, once, when a process starts.
_TRIES: Final = 100

_FILE_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_NAMELESS_FLAGS: Final = os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC

_log = Logger()


# How what the ordinary way keeps begins; `kvd.http.fast_path` has another letter.
_ORDINARY: Final = b"k"
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


class Kept(NamedTuple):
    """
    A file that may be a value which was replaced.
    """

    changed_ns: int
    key: Key
    """Whose value it was."""
    folder: int
    name: bytes
    may_be_unfinished: bool
    """Whether it may be an upload of `kvd.http.fast_path` that never became a value.
    Such a file has no attribute yet."""


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

    def kept(self) -> Iterator[Kept]:
        """
        What may be a value that was replaced, in no order.
        """
        for name in map(os.fsencode, os.listdir(self.folder)):
            key = key_of(name)
            if key is not None:
                status = os.stat(name, dir_fd=self.folder, follow_symlinks=False)
                yield Kept(
                    status.st_mtime_ns,
                    key,
                    self.folder,
                    name,
                    not name.startswith(_ORDINARY),
                )


class UploadFolder:
    """
    This process's own folder.
    """

    def __init__(
        self,
        hidden: int,
        modes: Modes = DEFAULT_MODES,
        renew_hidden: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            hidden: The folder ``.kvd``, open for as long as this one is used.
            modes: Of files and folders that are made. This process's umask must let
                those of files through.
            renew_hidden: Makes the folder ``.kvd`` anew, behind the same descriptor,
                where somebody has removed it.
        """
        self._hidden = hidden
        self._modes = modes
        self._renew_hidden = renew_hidden
        self._conferred = Conferred(None, b"")
        self._names = count()
        self._name = ""
        self.descriptor = -1
        """Of the folder; it is made for the first upload, so that a store
        whose disk is full can still be opened and read."""
        self.stays = False
        """Set where replaced values in it may still be needed; then `close` leaves the
        folder as those leave theirs who are killed."""
        self.made: Callable[[int], None] = lambda descriptor: None
        """Called with its descriptor when it is made, and with -1 when it is closed."""

    def create(self, near: int | None = None) -> tuple[int, bytes]:
        """
        Create an empty file. `kvd.http.fast_path` creates others, by names of its own.

        Args:
            near: The folder in which it will be a value, or that around it; None: any.

        Returns:
            Its descriptor, open for writing, and its name in the folder.

        Raises:
            OSError: It cannot be created.
        """
        if self.descriptor < 0:
            self._make()
        name = b"%x" % next(self._names)
        try:
            return self._create(name, near), name
        except FileNotFoundError:
            # Somebody has removed the folder. What was uploaded in it is lost.
            self._make()
            return self._create(name, near), name

    def _make(self) -> None:
        old = self.descriptor
        try:
            self._name, self.descriptor = _make(self._hidden, self._modes.folder)
        except FileNotFoundError:
            self._renew_hidden()
            self._name, self.descriptor = _make(self._hidden, self._modes.folder)
        self._conferred = conferred(self.descriptor)
        self.made(self.descriptor)
        if old >= 0:
            os.close(old)

    def _create(self, name: bytes, near: int | None) -> int:
        if near is not None:
            other = conferred(near)
            if other != self._conferred:
                try:
                    return self._create_in(near, name, self._mode(other))
                except OSError:
                    # Not every file system has files without names, and the folder
                    # may be gone. If there is another reason, what follows fails too.
                    pass
        mode = self._mode(self._conferred)
        return os.open(name, _FILE_FLAGS, mode, dir_fd=self.descriptor)

    def _create_in(self, folder: int, name: bytes, mode: int) -> int:
        """
        Create a file in another folder, with a name in this one.
        """
        descriptor = os.open(".", _NAMELESS_FLAGS, mode, dir_fd=folder)
        try:
            # A link to the link in /proc would be a link to that.
            os.link(
                f"/proc/self/fd/{descriptor}",
                name,
                dst_dir_fd=self.descriptor,
                follow_symlinks=True,
            )
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _mode(self, given: Conferred) -> int:
        return ALL_OF_A_FILE if given.access else self._modes.file

    def name_to_keep(self, key: Key) -> bytes | None:
        """
        A new name for the value of a key that is about to be replaced; None if the key
        is too long for that. `kvd.http.fast_path` gives others, beginning with ``c``.
        """
        text = key.replace(b"/", _SLASH)
        name = b"%b%x%b%b" % (_ORDINARY, next(self._names), _KEY_BEHIND, text)
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
        Remove the folder, with what may be left in it, unless it `stays`.
        """
        if self.descriptor >= 0:
            # First: another file can get the number.
            self.made(-1)
            if not self.stays:
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


def _make(hidden: int, mode: int) -> tuple[str, int]:
    for _ in range(_TRIES):
        name = f"{os.getpid()}-{secrets.token_hex(8)}"
        try:
            folder = make_folder(hidden, name, mode)
        except FileNotFoundError:
            if not os.fstat(hidden).st_nlink:
                raise  # It is not this one that was removed.
            continue
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
