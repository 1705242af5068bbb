"""
Walks over the values below a folder.

A walk goes depth first with one open folder per level, so its memory does not
grow with the number of values. It reads in a thread, in slices that end after
some values or some milliseconds, whichever comes first, so that neither the
thread nor Python's interpreter lock is held for long.

A page (a listing with a limit) is one walk over everything, of which the
smallest keys are kept, as many as the page has. What cannot be among them is
not looked at: ``a-b`` comes before ``a/b``, so whole keys are compared, and a
folder is passed over if no key in it can count. A value is described when it
is taken into the page. So what turns out to be none never takes the place of
one, and a page shorter than its limit is the last. Of a million keys in random
order a page of 1,000 takes in some 8,000 on its way.
"""

from __future__ import annotations

import os
import re
from bisect import insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from time import monotonic
from typing import Final

from twisted.logger import Logger
from zope.interface import implementer

from kvd.interfaces import Answer, IListing, ValueInfo
from kvd.keys import MAX_KEY_BYTES, Key, escape
from kvd.store.faults import fault_of
from kvd.store.folders import FOLDER_FLAGS, open_folder
from kvd.store.tree import open_value
from kvd.store.value import is_absence
from kvd.store.waiting import OffReactor, Underway

HIDDEN: Final = b".kvd"

SLICE_VALUES: Final = 256
SLICE_SECONDS: Final = 0.02

_NO_SEGMENT: Final = re.compile(rb"[\x00-\x1f\x7f]")

_log = Logger()


@dataclass(frozen=True, slots=True)
class _Found:
    """
    A name that may be a value's.
    """

    folder: int
    name: bytes
    key: Key


def _walk(
    folder: int, prefix: bytes, wanted: Callable[[bytes], bool]
) -> Iterator[_Found | None]:
    """
    Everything below a folder but folders; None from time to time, for those
    who look at the clock.

    Args:
        folder: Where to begin; closed at the end.
        prefix: What its keys begin with.
        wanted: Asked with the prefix of each inner folder.
    """
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                key = prefix + os.fsencode(entry.name)
                if not _is_key(key, len(prefix)):
                    continue
                if not entry.is_dir(follow_symlinks=False):
                    yield _Found(folder, key[len(prefix) :], Key(key))
                    continue
                yield None
                inner = _open_inner(folder, key, len(prefix), wanted)
                if inner is not None:
                    yield from _walk(inner, key + b"/", wanted)
    finally:
        os.close(folder)


def _is_key(key: bytes, name_at: int) -> bool:
    """
    Whether a file of this name could have been put here by a request.
    """
    return not (
        len(key) > MAX_KEY_BYTES
        or key.startswith(HIDDEN)
        or _NO_SEGMENT.search(key, name_at)
    )


def _open_inner(
    folder: int, key: bytes, name_at: int, wanted: Callable[[bytes], bool]
) -> int | None:
    if not wanted(key + b"/"):
        return None
    try:
        return os.open(key[name_at:], FOLDER_FLAGS, dir_fd=folder)
    except (FileNotFoundError, NotADirectoryError):
        return None  # Pruned meanwhile.
    except PermissionError as error:
        # The lost+found of a filesystem is a usual case.
        _log.warn("/{key} is not listed: {reason}", key=escape(key), reason=error)
        return None


class _Stream:
    """
    Takes everything, and hands it on slice by slice.
    """

    def __init__(self) -> None:
        self._slice: list[ValueInfo] = []

    def may_have(self, prefix: bytes) -> bool:
        return True

    def wants(self, key: Key) -> bool:
        return True

    def take(self, info: ValueInfo) -> bool:
        """
        Returns:
            Whether it is enough for now.
        """
        self._slice.append(info)
        return len(self._slice) >= SLICE_VALUES

    def hand_on(self, ended: bool) -> Sequence[ValueInfo]:
        taken, self._slice = self._slice, []
        return taken


class _Page:
    """
    Takes the smallest keys, and hands them on at the end.
    """

    def __init__(self, after: bytes, limit: int) -> None:
        self._after = after
        self._limit = limit
        self._page: list[ValueInfo] = []

    def may_have(self, prefix: bytes) -> bool:
        """
        Whether a key that begins with a prefix can be wanted.
        """
        if prefix < self._after and not self._after.startswith(prefix):
            return False
        return self._is_below_end(prefix)

    def wants(self, key: Key) -> bool:
        return key > self._after and self._is_below_end(key)

    def _is_below_end(self, key: bytes) -> bool:
        return len(self._page) < self._limit or key < self._page[-1].key

    def take(self, info: ValueInfo) -> bool:
        insort(self._page, info, key=attrgetter("key"))
        del self._page[self._limit :]
        return False

    def hand_on(self, ended: bool) -> Sequence[ValueInfo]:
        return self._page if ended else ()


@implementer(IListing)
class FileListing:
    """
    A walk over the values of a file store.
    """

    def __init__(
        self,
        root: int,
        prefix: bytes,
        after: bytes,
        limit: int | None,
        off_reactor: OffReactor,
        underway: Underway,
    ) -> None:
        # The store may be closed before this is.
        self._root = os.dup(root)
        self._prefix = prefix
        self._taker = _Stream() if limit is None else _Page(after, limit)
        self._off_reactor = off_reactor
        self._underway = underway
        self._found: Iterator[_Found | None] = iter(())
        self._begun = self._reading = self._ended = False

    def next_slice(self) -> Answer[Sequence[ValueInfo]]:
        if self._ended:
            return ()
        return self._underway.shield(self._next_slice())

    async def _next_slice(self) -> Sequence[ValueInfo]:
        self._reading = True
        taken: Sequence[ValueInfo] = ()
        try:
            # Time may be up before anything was found.
            while not (taken or self._ended):
                taken = await self._off_reactor(self._read)
        except OSError as error:
            self._ended = True
            raise fault_of(error, "The listing cannot go on") from error
        finally:
            self._reading = False
            if self._ended:
                self._let_go()
        return taken

    def close(self) -> None:
        # Whoever finishes lets go: while a thread reads, it is the thread's
        # slice, which looks at this as often as at the clock.
        self._ended = True
        if not self._reading:
            self._let_go()

    def _let_go(self) -> None:
        ...
