"""
The names of objects: an encoding of keys that engines keep as they are.

Engines treat some names in their own way. SeaweedFS reads ``\\`` as ``/``, takes each
part between slashes for the name of a file, which has at most 255 bytes, refuses
``..``, and stores no body under ``k/``. And it lists folder by folder, so ``b/c`` comes
before ``b-x`` although ``-`` is less than ``/``. So a name has no slashes of its own:

- ``/`` becomes ``.``, digits, letters and ``:;<=>?@]^_``` stay;
- what is less than ``/`` becomes ``-`` and two hexadecimal digits, ``[`` and ``\\``
  become ``[`` and two, and what is greater than ``z`` becomes ``~`` and two;
- behind each 200 bytes comes ``~/``, if more follow.

Each code begins with a byte that keeps the order: names are in the order of their keys,
for engines that list folder by folder too.
"""

from __future__ import annotations

import re
from typing import Final

from kvd.errors import TargetTooLong
from kvd.model.keys import MAX_SEGMENT_BYTES, Key, escape

MAX_NAME_BYTES: Final = 1024
"""
What S3 permits.
"""

_PART_BYTES: Final = 200
_FOLD: Final = "~/"

_KEPT: Final = {*range(ord("0"), ord("z") + 1)} - {*b"[\\"}


def _code(byte: int) -> str:
    if byte == ord("/"):
        return "."
    if byte in _KEPT:
        return chr(byte)
    if byte < ord("/"):
        return f"-{byte:02X}"
    if byte <= ord("\\"):
        return f"[{byte:02X}"
    return f"~{byte:02X}"


_CODES: Final = [_code(byte) for byte in range(256)]
_BYTES: Final = {code: bytes((byte,)) for byte, code in enumerate(_CODES)}
_ANY_CODE: Final = re.compile(r"[-\[~][0-9A-F]{2}|.", re.DOTALL)


def encode(key: bytes) -> str:
    """
    The name of a key, or of anything that is compared with keys: the names of two are
    in the order of their bytes, and one begins with the other if their bytes do.
    """
    flat = "".join([_CODES[byte] for byte in key])
    parts = [flat[at : at + _PART_BYTES] for at in range(0, len(flat), _PART_BYTES)]
    return _FOLD.join(parts)


def decode(name: str) -> Key | None:
    """
    The key of a name; None if no key has it, so something else has put it there.
    """
    try:
        flat = name.replace(_FOLD, "")
        key = Key(b"".join([_BYTES[code] for code in _ANY_CODE.findall(flat)]))
    except KeyError:
        return None
    return key if is_key(key) and encode(key) == name else None


def is_key(key: bytes) -> bool:
    """
    Whether bytes are a key, or a prefix of keys without its last slash.
    """
    return all(
        0 < len(segment) <= MAX_SEGMENT_BYTES and segment not in (b".", b"..")
        for segment in key.split(b"/")
    )


def object_name(prefix: str, key: Key) -> str:
    """
    The name of the object that has the value of a key.

    Raises:
        TargetTooLong: No engine has names so long.
    """
    name = prefix + encode(key)
    if len(name) > MAX_NAME_BYTES:
        raise TargetTooLong(
            f"/{escape(key)} needs a name of {len(name)} bytes in the store, where"
            f" {MAX_NAME_BYTES} is the most: each byte other than a digit, a letter or"
            " _ may take three. Choose a shorter key."
        )
    return name
