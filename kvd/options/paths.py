"""
Paths as an operator writes them.
"""

from __future__ import annotations

import os

from kvd.errors import BadSetting


def absolute(path: str) -> str:
    """
    An absolute path. A relative one counts from the present folder, and ``~`` is the
    home folder: a shell replaces it only at the beginning of a word, so that it comes
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
