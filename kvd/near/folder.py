"""
Checks the folder of a near cache before kvd removes anything from it.
"""

from __future__ import annotations

import os
import re
from typing import Final

from kvd.errors import BadSetting, StoreUnusable
from kvd.settings import StoreLocation

_OWN: Final = re.compile(r"[0-9a-f]{2}|\..*|lost\+found", re.DOTALL)
"""
What may be there: folders of digests, hidden ones, and that of a file system's root.
"""


def expect_cache(location: StoreLocation) -> None:
    """
    Check that a folder has nothing that is not of a near cache.

    Raises:
        BadSetting: It has; it would be removed to make room.
        StoreUnusable: The folder cannot be read.
    """
    try:
        with os.scandir(location.path) as entries:
            other = next((one for one in entries if not _OWN.fullmatch(one.name)), None)
    except FileNotFoundError:
        return  # It will be created.
    except OSError as error:
        raise StoreUnusable(f"{location} cannot be opened: {error.strerror}") from error
    if other is not None:
        raise BadSetting(
            f"{other.path} is not of a near cache, which removes what was not read for"
            " long: give an empty folder as --near, or one that it had before"
        )
