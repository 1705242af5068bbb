"""
Whether the files of kvd are those that this process was started from.

A package may be replaced while kvd serves. Workers are forked from a process that has
loaded all it needs, so they stay what they are. But a new fork server, or a policy that
was not used before, would be loaded from the new files, and run beside the old code of
the supervisor. So before anything is loaded, this is asked.
"""

from __future__ import annotations

import os
from hashlib import blake2b
from typing import Final

from kvd.errors import ChangeImpossible

_PACKAGE: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

REPLACED: Final = (
    "the files of kvd have been replaced since it was started, and old code does not"
    " run beside new: kvd upgrade starts the new code"
)


def fingerprint(package: str = _PACKAGE) -> str:
    """
    Of the sizes and times of all files with code; some milliseconds.
    """
    digest = blake2b(digest_size=16)
    for folder, folders, names in os.walk(package):
        folders.sort()
        for name in sorted(names):
            if name.endswith((".py", ".so")):
                path = os.path.join(folder, name)
                try:
                    found = os.stat(path)
                except FileNotFoundError:
                    # It is being replaced.
                    continue
                state = f"{path} {found.st_size} {found.st_mtime_ns}\n"
                digest.update(os.fsencode(state))
    return digest.hexdigest()


LOADED: Final = fingerprint()
"""
As this process was started.
"""


def check_code() -> None:
    """
    Raises:
        ChangeImpossible: The files of kvd have been replaced.
    """
    if fingerprint() != LOADED:
        raise ChangeImpossible(REPLACED)
