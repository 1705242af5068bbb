"""
Prefixes of keys, as an operator writes them.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from kvd.errors import BadSetting

# Whole segments, written as in a request target (RFC 3986 section 3.3); a "%2F" is
# refused as it is in a key.
_PREFIX: Final = re.compile(
    r"/(?:(?:[^/?#%\x00-\x20\x7f]|%(?!2[Ff])[0-9A-Fa-f]{2})+/)*", re.ASCII
)

_NO_SEGMENTS: Final = {b".", b".."}


def read_prefix(text: str) -> bytes:
    """
    The beginning of all keys below a prefix: percent-decoded, without the first slash;
    empty for all keys, else whole segments with a slash behind each.

    Raises:
        BadSetting: It is not a prefix.
    """
    prefix = unquote_to_bytes(text)[1:]
    if not _PREFIX.fullmatch(text) or _NO_SEGMENTS & set(prefix.split(b"/")):
        raise BadSetting(
            f"{text!r} is not a prefix of keys: it begins and ends with a slash, is"
            " percent-encoded, and has no empty segment, no . and no .., such as / or"
            " /cache/"
        )
    return prefix
