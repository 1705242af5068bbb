"""
Whether there is any value in a folder, or further below.

The reactor's thread looks itself. Nearly always the first name in a folder is that of a
value, and a value that was found once is still there the next time: to look at it again
costs as much as to open any value, while even the first name of a large folder costs
some 0.3 ms. Only where a few names are not enough is the walk handed over to a thread,
in slices like those of a listing.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from functools import partial
from time import monotonic
from typing import Final

from kvd.errors import Fault
from kvd.interfaces import Answer
from kvd.model.keys import Key
from kvd.store.faults import fault_of
from kvd.store.folders import open_folder
from kvd.store.listing import SLICE_SECONDS, ListingContext, parents_of
from kvd.store.tree import Tree
from kvd.store.value import is_absence
from kvd.store.walk import Span, describe, look, walk

MOST_STEPS: Final = 16
"""
How many steps of a walk the reactor's thread takes: a step is a value, or a part of a
folder, which has up to `kvd.store.walk.BATCH_NAMES` names.
"""

MOST_FOUND: Final = 256
"""
Of how many folders a value is remembered.
"""

_Steps = Generator[Key | None, None, None]


class Populated:
    """
    Looks for values below prefixes.
    """

    def __init__(self, context: ListingContext, tree: Tree) -> None:
        """
        Args:
            context: That of the store.
            tree: Likewise.
        """
        self._context = context
        self._tree = tree
        # By prefix. It may be gone, so it is looked at again.
        self._found: dict[bytes, Key] = {}

    def has_values(self, prefix: bytes) -> Answer[bool]:
        """
        See `kvd.interfaces.IFolderStore.has_values`.
        """
        try:
            known = self._found.get(prefix)
            if known is not None and look(self._tree, known) is not None:
                return True
            steps = _begin(self._context.root, prefix)
            for step, key in enumerate(steps, 1):
                if key is not None:
                    steps.close()
                    return self._remember(prefix, key)
                if step == MOST_STEPS:
                    later = self._go_on(prefix, steps)
                    return self._context.underway.shield(later)
        except OSError as error:
            raise _fault(error) from error
        return self._remember(prefix, None)

    async def _go_on(self, prefix: bytes, steps: _Steps) -> bool:
        with closing(steps):
            try:
                ended, key = False, None
                while not ended:
                    work = partial(_slice, steps)
                    ended, key = await self._context.off_reactor(work)
            except OSError as error:
                raise _fault(error) from error
        return self._remember(prefix, key)

    def _remember(self, prefix: bytes, key: Key | None) -> bool:
        found = self._found
        found.pop(prefix, None)
        if key is None:
            return False
        if len(found) == MOST_FOUND:
            del found[next(iter(found))]
        found[prefix] = key
        return True


def _begin(root: int, prefix: bytes) -> _Steps:
    """
    Walk over what is below a prefix. After each step, the key of the value to which it
    has come, whatever the attribute of that says; None: to none.
    """
    parents = parents_of(prefix)
    if parents is None:
        return
    try:
        folder = open_folder(root, parents)
    except OSError as error:
        if is_absence(error):
            return
        raise
    with closing(walk(folder, prefix, Span())) as walked:
        for inner, inner_prefix, names in walked:
            yield None
            for name in names:
                key = Key(inner_prefix + name)
                yield key if describe(None, inner, name, key) is not None else None


def _slice(steps: _Steps) -> tuple[bool, Key | None]:
    """
    Go on for a while, in a thread: whether there is nothing more to look for, and the
    key of the value that was found.
    """
    time_up = monotonic() + SLICE_SECONDS
    for key in steps:
        if key is not None:
            return True, key
        if monotonic() >= time_up:
            return False, None
    return True, None


def _fault(error: OSError) -> Fault:
    return fault_of(error, "It cannot be found out whether the folder has values")
