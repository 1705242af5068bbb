"""
Reads paths as an operator writes them.
"""

from __future__ import annotations

import os

from kvd.errors import BadSetting


def absolute(path: str) -> str:
    """
    Make a path absolute. A relative path starts from the current folder, and ``~`` is
    the home folder: a shell replaces it only at the beginning of a word, so it arrives
    here from ``file:~/values``, from ``--record=~/record`` and from files.

    Raises:
        BadSetting: There is no such user.
    """
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        name = expanded.partition("/")[0]
        raise BadSetting(
            f"{path!r} cannot be found, since {name} is no user's home folder; for a"
            f" file of that name, give './{path}'"
        )
    return os.path.abspath(expanded)
