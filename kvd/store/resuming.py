"""
Uploads that several requests write, one after the other, and that outlive the process
which serves them.

Each has two files in ``.kvd/resumable``: ID has what was written so far, and ID.json
what is known of it. Nobody else knows the ID, which is random.

    nothing ──begin──> held ──suspend──> at rest ──resume──> held
                        │                  └──expiry, cancel──> nothing
                        └──commit──> done ──expiry──> nothing

Who holds an upload has the file ID locked with flock(2). The kernel releases the lock
when the process ends, in whatever way, and what it has written up to then stays. So two
requests never write to one upload, whichever workers serve them.

A commit links the file into the upload folder of its process (`kvd.store.uploads`), and
publishes it from there like any other upload. When it has failed because of what the
client asked for, and when it has succeeded, ID is removed, and ID.json says how it
ended, for a client that has not got the reply. If the process is killed during a commit
and the value was published, the file has two names, and is not written to any more.

After a power cut a file may have a length and not its content. So uploads of before
the last start of the machine are removed.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Final

from twisted.internet.defer import Deferred
from zope.interface import implementer

from kvd.errors import Fault, StoreBusy, UploadAbsent
from kvd.interfaces import Answer, IResumableUpload
from kvd.model.conditions import Conditions, EntityTags
from kvd.model.keys import Key
from kvd.model.uploads import UploadRecord
from kvd.model.values import Published
from kvd.store.conferring import make_folder
from kvd.store.folders import FOLDER_FLAGS
from kvd.store.upload import FileUpload
from kvd.store.uploads import RESUMABLE_NAME

MOST_UPLOADS: Final = 1000
"""
So many are at rest or in progress at most.
"""

LIMIT_SHARE: Final = 10
"""
All of them together have at most one part in so many of the bytes that values may take,
beside these: while a request writes to an upload, a quota holds all that it will have.
An upload that comes to rest while they have more is removed, or a client could leave
any number there whose lengths it has not said.
"""

SWEEP_SECONDS: Final = 60.0
"""
How often a process looks for uploads that have expired, while it begins others.
"""

_ABOUT: Final = ".json"
_ID: Final = re.compile(r"[0-9a-f]{32}")
_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"
_WRITE_FLAGS: Final = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_READ_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_MAX_ABOUT_BYTES: Final = 64 * 1024


def boot_id() -> str:
    """
    Another text after each start of the machine.
    """
    with open(_BOOT_ID, encoding="utf-8") as file:
        return file.read().strip()


@dataclass(frozen=True, slots=True)
class Found:
    """
    An upload that was looked up.
    """

    record: UploadRecord
    boot: str
    size: int | None
    """Of what was written; None: it is done."""


class ResumableFolder:
    """
    The folder ``.kvd/resumable``.
    """

    def __init__(self, hidden: int, mode: int) -> None:
        """
        Args:
            hidden: The folder ``.kvd``, open for as long as this one is used.
            mode: Of the folder, if it has to be made.
        """
        self._hidden = hidden
        self._mode = mode
        self._boot = boot_id()
        self._descriptor = -1
        self._swept = -SWEEP_SECONDS
        self._count = self._bytes = 0

    @property
    def descriptor(self) -> int:
        """
        The folder, open; it is made if it is missing.

        Raises:
            OSError: It cannot be.
        """
        if self._descriptor >= 0 and os.fstat(self._descriptor).st_nlink:
            return self._descriptor
        self.close()
        try:
            made = make_folder(self._hidden, RESUMABLE_NAME, self._mode)
        except FileExistsError:
            made = os.open(RESUMABLE_NAME, FOLDER_FLAGS, dir_fd=self._hidden)
        self._descriptor = made
        return made

    def close(self) -> None:
        """
        Leave the folder as it is.
        """
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def has_room(self, now: float, length: int, limit: float) -> bool:
        """
        Whether one more upload may begin. Removes those that have expired, now and
        then.

        Args:
            now: In seconds, by a clock that does not go back.
            length: How many bytes it is going to have, as far as that is known.
            limit: How many bytes the values beside which it is may take.
        """
        if now - self._swept >= SWEEP_SECONDS:
            self._swept = now
            self._count, self._bytes = self.sweep()
        self._count += 1
        self._bytes += length
        return self._count <= MOST_UPLOADS and self._bytes <= limit / LIMIT_SHARE

    def is_too_full(self, limit: float) -> bool:
        """
        Whether all uploads together, of all processes, have too many bytes.

        Args:
            limit: See `has_room`.
        """
        most = limit / LIMIT_SHARE
        if most == inf:
            return False
        folder = self.descriptor
        taken = 0
        for identity in self._identities():
            try:
                found = os.stat(identity, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                continue  # It has just ended.
            taken += found.st_size
        return taken > most

    def take(self, folder: int, name: bytes, record: UploadRecord) -> str:
        """
        Take the file of an upload that begins; its descriptor is locked.

        Returns:
            Its ID.
        """
        identity = secrets.token_hex(16)
        self.describe(identity, record)
        os.rename(name, identity, src_dir_fd=folder, dst_dir_fd=self.descriptor)
        return identity

    def describe(self, identity: str, record: UploadRecord) -> None:
        """
        Keep what is known of an upload.
        """
        folder, new = self.descriptor, f"{identity}.new"
        text = json.dumps(_as_json(record, self._boot)).encode("ascii")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(new, flags, 0o600, dir_fd=folder)
        try:
            if os.write(file, text) < len(text):
                raise OSError(28, os.strerror(28))
        finally:
            os.close(file)
        os.rename(new, identity + _ABOUT, src_dir_fd=folder, dst_dir_fd=folder)

    def find(self, identity: str) -> Found:
        """
        Look an upload up.

        Raises:
            UploadAbsent: There is none, or it has expired.
        """
        found = self._find(identity) if _ID.fullmatch(identity) else None
        if found is None:
            raise absent()
        return found

    def _find(self, identity: str) -> Found | None:
        try:
            text = self._read(identity + _ABOUT)
            record, boot = _from_json(json.loads(text))
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None  # Gone, or another program has written it.
        name = identity + _ABOUT if record.done else identity
        try:
            status = os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None
        if not record.done and (status.st_nlink > 1 or boot != self._boot):
            return None
        size = None if record.done else status.st_size
        changed = status.st_mtime
        if changed + record.lifetime_seconds < time.time():
            return None
        return Found(record, boot, size)

    def _read(self, name: str) -> bytes:
        file = os.open(name, _READ_FLAGS, dir_fd=self.descriptor)
        try:
            return os.read(file, _MAX_ABOUT_BYTES)
        finally:
            os.close(file)

    def hold(self, identity: str) -> int:
        """
        Open the file of an upload for writing, at its end, and lock it.

        Returns:
            Its descriptor.

        Raises:
            UploadAbsent: There is none.
            StoreBusy: Another request holds it.
        """
        folder = self.descriptor
        try:
            file = os.open(identity, _WRITE_FLAGS, dir_fd=folder)
        except FileNotFoundError:
            raise absent() from None
        try:
            lock(file)
            if os.fstat(file).st_nlink != 1:
                raise absent()
            os.lseek(file, 0, os.SEEK_END)
        except BaseException:
            os.close(file)
            raise
        return file

    def link(self, identity: str, folder: int, name: bytes) -> None:
        """
        Give the file of an upload another name.
        """
        source = self.descriptor
        try:
            os.link(identity, name, src_dir_fd=source, dst_dir_fd=folder)
        except PermissionError:  # The file system has no links.
            os.rename(identity, name, src_dir_fd=source, dst_dir_fd=folder)

    def remove(self, identity: str, *, about: bool = True) -> None:
        """
        Remove an upload, or only its file.
        """
        names = [identity, identity + _ABOUT] if about else [identity]
        for name in names:
            try:
                os.unlink(name, dir_fd=self.descriptor)
            except FileNotFoundError:
                pass  # Published without links, or swept.

    def remove_idle(self, identity: str) -> None:
        """
        Remove an upload; raises what `hold` raises.
        """
        file = self.hold(identity)
        try:
            self.remove(identity)
        finally:
            os.close(file)

    @property
    def exists(self) -> bool:
        """
        Whether any process has made it.
        """
        try:
            os.stat(RESUMABLE_NAME, dir_fd=self._hidden, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def sweep(self) -> tuple[int, int]:
        """
        Remove the uploads that have expired and that nobody holds.

        Returns:
            How many are left, and how many bytes they have.
        """
        left = count = 0
        for identity in self._identities():
            found = self._find(identity)
            if found is not None:
                left += 1
                count += found.size or 0
                continue
            try:
                self.remove_idle(identity)
            except StoreBusy:
                left += 1
            except UploadAbsent:
                # Only what is said of it is left, or it was published.
                self.remove(identity)
        return left, count

    def _identities(self) -> Iterator[str]:
        names = {name.partition(".")[0] for name in os.listdir(self.descriptor)}
        return filter(_ID.fullmatch, names)


def lock(file: int) -> None:
    """
    Lock the file of an upload.

    Raises:
        StoreBusy: Another request has it locked.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StoreBusy(
            "Another request writes to this upload; if its connection is broken, kvd"
            " notices that soon: ask again where to go on."
        ) from None


def absent() -> UploadAbsent:
    """
    The refusal of whatever is asked of an upload that there is not.
    """
    return UploadAbsent(
        "There is no such upload: it has expired or was cancelled, or is another"
        " user's. Begin a new one."
    )


@implementer(IResumableUpload)
class ResumableUpload:
    """
    An upload that this process holds.
    """

    def __init__(
        self,
        upload: FileUpload,
        folder: ResumableFolder,
        identity: str,
        record: UploadRecord,
        offset: int,
        limit: float = inf,
    ) -> None:
        """
        Args:
            upload: Writes to the file; does not know its name.
            folder: Where the file is.
            identity: Of the upload.
            record: What is known of it.
            offset: How many bytes it has.
            limit: How many bytes the values beside which it is may take.
        """
        self._limit = limit
        self._upload = upload
        self._folder = folder
        self.identity = identity
        self.record = record
        self.offset = offset

    def write(self, chunk: bytes) -> Answer[None]:
        return self._upload.write(chunk)

    def fileno(self) -> int | None:
        return self._upload.fileno()

    def suspend(self) -> None:
        try:
            is_too_full = self._folder.is_too_full(self._limit)
        except OSError:
            # The folder is gone, and the upload with it.
            is_too_full = False
        if is_too_full:
            self.discard()
            return
        # The file stays, since the upload does not know its name.
        self._upload.discard()

    def discard(self) -> None:
        self._upload.discard()
        self._folder.remove(self.identity)

    def commit(self, conditions: Conditions) -> Answer[Published]:
        upload = self._upload
        try:
            upload.enter(
                lambda folder, name: self._folder.link(self.identity, folder, name)
            )
            answer = upload.commit(conditions)
        except BaseException as error:
            self._ended(error)
            raise
        if isinstance(answer, Deferred):
            return answer.addCallbacks(self._published, self._failed)
        return self._published(answer)

    def _published(self, published: Published) -> Published:
        self._ended(None, published.info.size)
        return published

    def _failed(self, failure: Any) -> Any:
        self._ended(failure.value)
        return failure

    def _ended(self, error: BaseException | None, size: int = 0) -> None:
        if isinstance(error, Fault):
            return  # The client may try again.
        try:
            if error is None:
                done = replace(self.record, length=size, done=True)
                self._folder.describe(self.identity, done)
            self._folder.remove(self.identity, about=error is not None)
        except OSError:
            # What is left expires, and no one writes to it: it has two names.
            return


def _as_json(record: UploadRecord, boot: str) -> dict[str, Any]:
    conditions = record.conditions
    return {
        "version": 1,
        "boot": boot,
        "key": record.key.decode("latin-1"),
        "length": record.length,
        "metadata": dict(record.metadata),
        "user": record.user,
        "lifetime": record.lifetime_seconds,
        "done": record.done,
        "if-match": _tags_as_json(conditions.if_match),
        "if-none-match": _tags_as_json(conditions.if_none_match),
        "if-unmodified-since": conditions.if_unmodified_since,
    }


def _tags_as_json(tags: EntityTags | None) -> list[Any] | None:
    return None if tags is None else [sorted(tags.strong), sorted(tags.weak), tags.any]


def _from_json(said: dict[str, Any]) -> tuple[UploadRecord, str]:
    if said["version"] != 1:
        raise ValueError("another version has written it")
    record = UploadRecord(
        Key(said["key"].encode("latin-1")),
        said["length"],
        said["metadata"],
        Conditions(
            _tags_from_json(said["if-match"]),
            _tags_from_json(said["if-none-match"]),
            None,
            said["if-unmodified-since"],
        ),
        said["user"],
        float(said["lifetime"]),
        said["done"] is True,
    )
    return record, str(said["boot"])


def _tags_from_json(said: Any) -> EntityTags | None:
    if said is None:
        return None
    strong, weak, any_tag = said
    return EntityTags(frozenset(strong), frozenset(weak), any_tag is True)
