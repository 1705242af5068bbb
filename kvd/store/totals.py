"""
What the values of a store took when it was last counted, in the file ``.kvd/usage``.

It is a few lines of text: for each quota its bytes, its values, and its prefix, escaped
as in a URL. A daemon reads it at its start, so its limits hold before the values have
been counted again, and writes it after each count and at its end.

The daemon keeps the file locked as long as it runs (flock(2)): two of them would count
apart, and neither would know what the other adds.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from kvd.errors import StoreUnusable
from kvd.model.keys import escape
from kvd.settings import Modes
from kvd.store.hidden import open_hidden

_NAME: Final = "usage"
_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_LINE: Final = re.compile(r"([0-9]{1,18}) ([0-9]{1,18}) /(\S*)", re.ASCII)
_END: Final = "end"
_MAX_BYTES: Final = 1 << 20


class Total(NamedTuple):
    """
    What the values of a quota take.
    """

    taken: int
    """In bytes; see `kvd.store.usage.taken_by`."""
    values: int


class TotalsFile:
    """
    The file, open.
    """

    def __init__(self, descriptor: int) -> None:
        """
        Args:
            descriptor: From `open_totals`; the caller closes it.
        """
        self._descriptor = descriptor

    def read(self, prefixes: Sequence[bytes]) -> list[Total] | None:
        """
        Read the totals of quotas.

        Args:
            prefixes: Those of the quotas.

        Returns:
            None: they are not known.
        """
        text = os.pread(self._descriptor, _MAX_BYTES, 0).decode("ascii", "replace")
        known = {}
        *lines, end = text.splitlines() or [""]
        if end != _END:  # Torn, or new.
            return None
        for line in lines:
            match = _LINE.fullmatch(line)
            if match is None:
                return None
            known[match[3]] = Total(int(match[1]), int(match[2]))
        totals = [known.get(escape(prefix)) for prefix in prefixes]
        return [each for each in totals if each] if all(totals) else None

    def write(self, prefixes: Sequence[bytes], totals: Sequence[Total]) -> None:
        """
        Replace what was written before.

        Raises:
            OSError: The disk is full, for example.
        """
        text = "".join(
            f"{total.taken} {total.values} /{escape(prefix)}\n"
            for prefix, total in zip(prefixes, totals, strict=True)
        )
        # A file that is torn in between has no end.
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{text}{_END}\n".encode("ascii"), 0)


def open_totals(root: int, modes: Modes) -> int:
    """
    Open and lock the file of a store.

    Args:
        root: The store's folder.
        modes: The modes of the file and its folder, if they are made.

    Returns:
        A descriptor, which the caller closes.

    Raises:
        StoreUnusable: Another daemon keeps the limits of the store.
        OSError: It cannot be opened.
    """
    hidden = open_hidden(root, modes.folder)
    try:
        descriptor = os.open(_NAME, _FLAGS, modes.file, dir_fd=hidden)
    finally:
        os.close(hidden)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise StoreUnusable(
            "another daemon serves this store with limits, and two would count apart:"
            " stop it, or give it more workers instead"
        ) from error
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
