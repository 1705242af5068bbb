"""
Listings: streams of all values, and sorted pages.

Both use a walk (`kvd.store.walk`) that is read in a thread, in slices that end after
some values or some milliseconds, whichever comes first, so that neither the thread nor
Python's interpreter lock is held for long.

A page keeps the smallest keys of the walk, at most a few times as many as its limit.
Other keys are skipped by their names, without opening the file: whole keys are
compared, since ``a-b`` comes before ``a/b``, and a folder is not entered if no key in
it can be on the page. At the end of the walk the kept keys are described. If some turn
out not to be values, and others may have been skipped for them, another walk begins
after the last one; so a page shorter than its limit is the end of the listing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Final, Generic, TypeVar

from zope.interface import implementer

from kvd.interfaces import Answer, IFolderListing, IListing
from kvd.model.keys import Key
from kvd.model.values import Entry, ValueInfo
from kvd.store.faults import fault_of
from kvd.store.folders import Parents, open_folder
from kvd.store.sidecars import Sidecars
from kvd.store.tree import Tree
from kvd.store.value import is_absence
from kvd.store.waiting import OffReactor, Underway
from kvd.store.walk import (
    HIDDEN,
    Batch,
    Span,
    describe,
    describe_entry,
    look,
    look_entry,
    walk,
    walk_folder,
)

E = TypeVar("E", bound=Entry)

SLICE_VALUES: Final = 64
"""
How many values a slice has. Their lines are formatted in the reactor's thread, which
blocks other requests.
"""

SLICE_SECONDS: Final = 0.02


class Stream(Generic[E]):
    """
    Collects all values, and returns them slice by slice.
    """

    def __init__(self, describe: Callable[[int, bytes, Key], E | None]) -> None:
        """
        Args:
            describe: Describes what has a name in a folder, and its key; returns None
                if it is not to be listed.
        """
        self.span = Span()
        self._describe = describe
        self._slice: list[E] = []

    def steps(self, walked: Iterable[Batch]) -> Iterator[bool]:
        """
        Collect what a walk finds, in small steps.

        Returns:
            After each step, whether the slice is full.
        """
        for folder, prefix, names in walked:
            yield False
            for name in names:
                info = self._describe(folder, name, Key(prefix + name))
                if info is not None:
                    self._slice.append(info)
                yield len(self._slice) >= SLICE_VALUES

    def walk_again(self) -> bool:
        """
        Whether another walk is needed after one has ended.
        """
        return False

    def hand_on(self, ended: bool) -> Sequence[E]:
        """
        Return what was collected since the last call; may be empty before the end.
        """
        taken, self._slice = self._slice, []
        return taken


class Page(Generic[E]):
    """
    Collects the values with the smallest keys, and returns them at the end.
    """

    def __init__(
        self, after: bytes, limit: int, look: Callable[[Key], E | None]
    ) -> None:
        """
        Args:
            after: Only greater keys are collected.
            limit: How many keys at most; at least 1.
            look: Describes the value of a key; returns None if it has none.
        """
        self.span = Span(after)
        self._limit = self._missing = limit
        self._look = look
        self._keys: list[Key] = []
        self._page: list[E] = []

    def steps(self, walked: Iterable[Batch]) -> Iterator[bool]:
        for batch in walked:
            self.take(batch)
            yield False

    def take(self, batch: Batch) -> None:
        """
        Keep the keys that may be among the smallest.
        """
        after, prefix = self.span.after, batch.prefix
        for name in batch.names:
            key = Key(prefix + name)
            if key > after:
                self._keys.append(key)
        if len(self._keys) >= 4 * self._missing:
            self._keys = self._smallest()
            if len(self._keys) == self._missing:
                self.span.end = self._keys[-1]

    def walk_again(self) -> bool:
        keys, self._keys = self._smallest(), []
        for key in keys:
            info = self._look(key)
            if info is not None:
                self._page.append(info)
        if len(keys) < self._missing:
            return False  # There are no further keys.
        self.span = Span(keys[-1])
        self._missing = self._limit - len(self._page)
        return self._missing > 0

    def hand_on(self, ended: bool) -> Sequence[E]:
        return self._page if ended else ()

    def _smallest(self) -> list[Key]:
        # Sorting is cheap: most keys are in order since the last time, and many folders
        # list their names in order, or in reverse. A value that was replaced meanwhile
        # may appear twice.
        self._keys.sort()
        return list(dict.fromkeys(self._keys))[: self._missing]


@dataclass(frozen=True, slots=True)
class ListingContext:
    """
    What all listings of a store share.
    """

    root: int
    """The root of the store."""
    sidecars: Sidecars | None
    """Where the attributes of its values are; None: with the values."""
    off_reactor: OffReactor
    """Calls a function in a thread."""
    underway: Underway
    """What the store waits for when it closes."""


class _Listing(Generic[E]):
    """
    A walk, slice by slice.
    """

    def __init__(
        self,
        context: ListingContext,
        root: int,
        prefix: bytes,
        taker: Stream[E] | Page[E],
        walk: Callable[[int, bytes, Span], Generator[Batch, None, None]],
    ) -> None:
        """
        Args:
            context: That of the store.
            root: Its root; closed at the end.
            prefix: See `IStore.list`.
            taker: Collects what the walk finds.
            walk: Walks over a folder, which it closes at the end.
        """
        self._root = root
        self._prefix = prefix
        self._taker = taker
        self._walk_over = walk
        self._off_reactor = context.off_reactor
        self._underway = context.underway
        self._walk: Generator[bool, None, None] | None = None
        self._reading = self._ended = False

    def next_slice(self) -> Answer[Sequence[E]]:
        if self._ended:
            return ()
        return self._underway.shield(self._next_slice())

    def close(self) -> None:
        # The thread checks this as often as the clock. While it reads, the walk must
        # not be closed here.
        self._ended = True
        if not self._reading:
            self._let_go()

    async def _next_slice(self) -> Sequence[E]:
        self._reading = True
        taken: Sequence[E] = ()
        try:
            # The time of a slice may be up before it has any value.
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

    def _read(self) -> Sequence[E]:
        """
        Continue the walk for one slice; called in a thread.
        """
        if self._walk is None:
            self._walk = self._begin()
        time_up = monotonic() + SLICE_SECONDS
        for enough in self._walk:
            if enough or self._ended or monotonic() >= time_up:
                return self._taker.hand_on(ended=False)
        if self._taker.walk_again():
            self._walk = None
            return ()
        self._ended = True
        return self._taker.hand_on(ended=True)

    def _begin(self) -> Generator[bool, None, None]:
        parents = parents_of(self._prefix)
        if parents is None:
            return
        try:
            folder = open_folder(self._root, parents)
        except OSError as error:
            if is_absence(error):
                return
            raise
        span = self._taker.span
        with closing(self._walk_over(folder, self._prefix, span)) as walked:
            yield from self._taker.steps(walked)

    def _let_go(self) -> None:
        walked, self._walk = self._walk, None
        if walked is not None:
            walked.close()
        root, self._root = self._root, -1
        if root >= 0:
            os.close(root)


@implementer(IListing)
class FileListing(_Listing[ValueInfo]):
    """
    A walk over the values of a file store.
    """

    def __init__(
        self, context: ListingContext, prefix: bytes, after: bytes, limit: int | None
    ) -> None:
        root = os.dup(context.root)  # The store may be closed before this listing.
        sidecars = context.sidecars and context.sidecars.of(root)
        taker = (
            Stream(partial(describe, sidecars))
            if limit is None
            else Page(after, limit, partial(look, Tree(root, sidecars=sidecars)))
        )
        super().__init__(context, root, prefix, taker, walk)


@implementer(IFolderListing)
class FileFolderListing(_Listing[Entry]):
    """
    A walk over one folder of a file store.
    """

    def __init__(
        self, context: ListingContext, prefix: bytes, after: bytes, limit: int | None
    ) -> None:
        root = os.dup(context.root)
        sidecars = context.sidecars and context.sidecars.of(root)
        taker = (
            Stream(partial(describe_entry, sidecars))
            if limit is None
            else Page(after, limit, partial(look_entry, root, sidecars))
        )
        super().__init__(context, root, prefix, taker, walk_folder)


def parents_of(prefix: bytes) -> Parents | None:
    """
    The names of the folders in a prefix; None if no key can have the prefix.
    """
    if not prefix:
        return ()
    *parents, rest = prefix.split(b"/")
    if rest or prefix.startswith(HIDDEN) or {b"", b".", b".."} & set(parents):
        return None
    return parents
