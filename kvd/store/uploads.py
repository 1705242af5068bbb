"""
The upload folder of this process, and those that other processes left.

The folder is in ``.kvd`` below the root, so that a finished upload is renamed within
its file system. Each process has its own folder and locks it with flock(2); the kernel
releases the lock when the process ends, in whatever way. So a folder that can be locked
was left by a process that was killed, and the next process that opens the store removes
it.

At durability ``process`` the folder also keeps values that were replaced recently
(`kvd.store.writeback`). Their names contain a dot, followed by their key, in which
slashes are replaced by the control character US. Folders with such files are not
removed before a sync.

After a process makes a folder and before it locks it, another process that sweeps may
remove it. So the first process checks again once it holds the lock, and makes another
folder if the first is gone; and a process that sweeps keeps the lock until the folder
is removed.

A value must look as if it had been created in the folder of its key. If that folder
confers other properties than the upload folder (`kvd.store.conferring`), the file is
created there, without a name (O_TMPFILE), and then linked into the upload folder.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Final, NamedTuple

from twisted.logger import Logger

from kvd.model.keys import Key
from kvd.native import compiled
from kvd.settings import DEFAULT_MODES, Modes
from kvd.store.conferring import ALL_OF_A_FILE, Conferred, conferred, make_folder
from kvd.store.folders import FOLDER_FLAGS
from kvd.store.sidecars import SIDECARS_NAME

RESUMABLE_NAME: Final = "resumable"
"""
Of the folder in ``.kvd`` that belongs to no process (`kvd.store.resuming`).
"""

_SHARED_NAMES: Final = (RESUMABLE_NAME, SIDECARS_NAME)

# A process sweeps once, at its start, for some milliseconds.
_TRIES: Final = 100

FILE_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
NAMELESS_FLAGS: Final = os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC
"""
With which the file of an upload is created, with a name and without; also by
`kvd.http.fast_path`.
"""

_log = Logger()


# The first letter of the names of kept values; `kvd.http.fast_path` uses another.
_ORDINARY: Final = b"k"
_KEY_SEPARATOR: Final = b"."
SLASH: Final = b"\x1f"
"""
Stands for a slash in the name of a kept value; in no key.
"""

_MAX_NAME_BYTES: Final = 255


def kept_name_in_python(letter: bytes, number: int, key: bytes, /) -> bytes | None:
    """
    See `kept_name`. Without a C compiler, this does what ``kvd/native/put.c`` does.
    """
    text = key.replace(b"/", SLASH)
    name = b"%b%x%b%b" % (letter, number, _KEY_SEPARATOR, text)
    return name if len(name) <= _MAX_NAME_BYTES else None


_native = compiled("_fast_path")
kept_name: Callable[[bytes, int, bytes], bytes | None] = (
    kept_name_in_python if _native is None else partial(_native.kept_name, SLASH)
)
"""
The name of a replaced value, which `key_of` reads; None if the key is too long for one.

Args:
    letter: Says by whom it is kept.
    number: That no other kept value of this process has.
    key: The key.
"""


def key_of(name: bytes) -> Key | None:
    """
    The key of a replaced value, from its file name in an upload folder; None if the
    file is not a replaced value.
    """
    _, separator, text = name.partition(_KEY_SEPARATOR)
    key = text.replace(SLASH, b"/")
    # Another program may have made it.
    if not separator or key.startswith(b".kvd") or not _is_path(key):
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
    """The key of the value."""
    folder: int
    name: bytes
    may_be_unfinished: bool
    """Whether it may be an upload of `kvd.http.fast_path` that never became a value;
    such a file has no attribute yet."""


class Left:
    """
    An upload folder with replaced values that another process left, locked by this
    process.
    """

    def __init__(self, hidden: int, name: str, folder: int) -> None:
        self._hidden = hidden
        self._name = name
        self.folder = folder

    def remove(self) -> None:
        """
        Remove the folder and everything in it.
        """
        _remove(self._hidden, self._name, self.folder)
        self.release()

    def release(self) -> None:
        """
        Unlock the folder and leave it to other processes.
        """
        os.close(self.folder)

    def kept(self) -> Iterator[Kept]:
        """
        The files that may be replaced values, in no order.
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
    The upload folder of this process.
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
            modes: The modes of files and folders that are made. The umask of this
                process must permit the mode of files.
            renew_hidden: Makes the folder ``.kvd`` again, with the same descriptor, if
                another program has removed it.
        """
        self._hidden = hidden
        self._modes = modes
        self._renew_hidden = renew_hidden
        self._conferred = Conferred(None, b"")
        self._names = count()
        self._name = ""
        self.descriptor = -1
        """The descriptor of the folder, or -1. The folder is made for the first upload,
        so that a store whose disk is full can still be opened and read."""
        self.stays = False
        """Set if replaced values in it may still be needed; then `close` leaves the
        folder in place, as a process that is killed does."""
        self.made: Callable[[int, Conferred, int], None] = lambda *_: None
        """Called when the folder is made, with its descriptor, what it confers, and the
        mode with which files are created in it; and with -1 when it is closed."""

    def create(self, parent: int | None = None) -> tuple[int, bytes]:
        """
        Create an empty file. `kvd.http.fast_path` creates files with other names.

        Args:
            parent: The folder in which the value will be, or one around it; None: any.

        Returns:
            The descriptor, open for writing, and the name in the folder.

        Raises:
            OSError: The file cannot be created.
        """
        if self.descriptor < 0:
            self._make()
        name = b"%x" % next(self._names)
        try:
            return self._create(name, parent), name
        except FileNotFoundError:
            # Another program has removed the folder. The uploads in it are lost.
            self._make()
            return self._create(name, parent), name

    def _make(self) -> None:
        old = self.descriptor
        try:
            self._name, self.descriptor = _make(self._hidden, self._modes.folder)
        except FileNotFoundError:
            self._renew_hidden()
            self._name, self.descriptor = _make(self._hidden, self._modes.folder)
        try:
            self._conferred = conferred(self.descriptor)
            self.say_made()
        finally:
            if old >= 0:
                os.close(old)

    def say_made(self) -> None:
        """
        Call `made` with what the folder is now.
        """
        mode = self._mode(self._conferred)
        self.made(self.descriptor, self._conferred, mode)

    def _create(self, name: bytes, parent: int | None) -> int:
        if parent is not None:
            other = conferred(parent)
            if other != self._conferred:
                try:
                    return self._create_in(parent, name, self._mode(other))
                except OSError:
                    # Not every file system supports files without names, and the folder
                    # may be gone. For other reasons, the call below fails too.
                    pass
        mode = self._mode(self._conferred)
        return os.open(name, FILE_FLAGS, mode, dir_fd=self.descriptor)

    def _create_in(self, folder: int, name: bytes, mode: int) -> int:
        """
        Create a file in another folder, and link it into this one.
        """
        descriptor = os.open(".", NAMELESS_FLAGS, mode, dir_fd=folder)
        try:
            # Without following, the link in /proc itself would be linked.
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
        Return a new name for a value that is about to be replaced; None if its key is
        too long. The names of `kvd.http.fast_path` begin with ``c``.
        """
        return kept_name(_ORDINARY, next(self._names), key)

    def enter(self, link: Callable[[int, bytes], None]) -> bytes:
        """
        Have a file of another folder linked into this one.

        Args:
            link: Called with this folder and the name that the file gets in it.

        Returns:
            That name.
        """
        if self.descriptor < 0:
            self._make()
        name = b"%x" % next(self._names)
        link(self.descriptor, name)
        return name

    def remove(self, name: bytes) -> None:
        """
        Remove a file that will not be published, or a replaced value. After `close`,
        nothing is left to do.
        """
        if self.descriptor < 0:
            return
        try:
            os.unlink(name, dir_fd=self.descriptor)
        except OSError as error:
            self._warn_of(name, error)

    def note_left(self, name: bytes, error: int) -> None:
        """
        A file could not be removed.

        Args:
            name: Its name; empty: there is none.
            error: The errno.
        """
        if name:
            self._warn_of(name, OSError(error, os.strerror(error)))

    def _warn_of(self, name: bytes, error: OSError) -> None:
        # The result of the request does not depend on it.
        _log.warn(
            "{name} in the upload folder cannot be removed: {reason}",
            name=name,
            reason=error,
        )

    def close(self) -> None:
        """
        Remove the folder and everything in it, unless it `stays`.
        """
        # First: another file can get the same descriptor.
        self.made(-1, Conferred(None, b""), self._modes.file)
        if self.descriptor >= 0:
            if not self.stays:
                _remove(self._hidden, self._name, self.descriptor)
            os.close(self.descriptor)
            self.descriptor = -1


def sweep(hidden: int) -> list[Left]:
    """
    Remove the upload folders of processes that have ended.

    Args:
        hidden: The folder ``.kvd``, open for as long as the result is used.

    Returns:
        The folders with replaced values, which must not be removed before a sync.
    """
    found: list[Left] = []
    with os.scandir(hidden) as entries:
        names = [
            entry.name
            for entry in entries
            if entry.name not in _SHARED_NAMES and entry.is_dir(follow_symlinks=False)
        ]
    try:
        for name in names:
            with suppress(FileNotFoundError):  # Another process sweeps too.
                folder = os.open(name, FOLDER_FLAGS, dir_fd=hidden)
                found += _swept(Left(hidden, name, folder))
    except BaseException:
        for left in found:
            left.release()
        raise
    return found


def _swept(left: Left) -> list[Left]:
    """
    Remove a folder, unless another process holds it, or it has replaced values: then
    return it.
    """
    try:
        is_free = _hold(left.folder)
        names = os.listdir(left.folder) if is_free else []
    except BaseException:
        left.release()
        raise
    if any(key_of(os.fsencode(name)) for name in names):
        return [left]
    if is_free:
        left.remove()
    else:
        left.release()
    return []


def _make(hidden: int, mode: int) -> tuple[str, int]:
    for _ in range(_TRIES):
        name = f"{os.getpid()}-{secrets.token_hex(8)}"
        try:
            folder = make_folder(hidden, name, mode)
        except FileNotFoundError:
            if not os.fstat(hidden).st_nlink:
                raise  # The folder .kvd was removed, not the new one.
            continue
        is_held = False
        try:
            is_held = _hold(folder)
        finally:
            if not is_held:
                os.close(folder)
        if is_held:
            return name, folder
    raise BlockingIOError("every new upload folder was swept away at once")


def _hold(folder: int) -> bool:
    """
    Lock a folder, unless another process has it locked or it was removed.
    """
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return os.fstat(folder).st_nlink > 0


def _remove(hidden: int, name: str, folder: int) -> None:
    try:
        # kvd's folders contain only files; another program's folder may not.
        with os.scandir(folder) as entries:
            for entry in entries:
                os.unlink(entry.name, dir_fd=folder)
        os.rmdir(name, dir_fd=hidden)
    except OSError as error:
        # It takes up room, but the values are all right.
        _log.warn(
            "the upload folder .kvd/{name} cannot be removed: {reason}",
            name=name,
            reason=error,
        )
