"""
Passwords: Argon2id hashes (RFC 9106), made and verified by argon2-cffi.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

MEMORY_KIB: Final = 19 * 1024
TIME_COST: Final = 2
PARALLELISM: Final = 1
"""
The costs of new hashes: the smaller of OWASP's two recommendations that need no more
than one thread. Each worker may have one verification in progress, so the memory counts
once for each worker.
"""

MOST_MEMORY_KIB: Final = 256 * 1024
MOST_TIME_COST: Final = 16
"""
The most that a hash from elsewhere may cost: a worker verifies it while it serves.
"""

MOST_PASSWORD_BYTES: Final = 1024
"""
In UTF-8. The normal form of a text takes time that grows with its square.
"""

HASH_FORM: Final = (
    "$argon2id$v=19$m=...,t=...,p=...$salt$hash, as kvd user add writes it"
)

_HASH: Final = re.compile(
    r"\$argon2(?:id|i|d)\$v=19\$m=([0-9]{1,9}),t=([0-9]{1,9}),p=([0-9]{1,4})"
    r"\$([A-Za-z0-9+/]{11,128})\$([A-Za-z0-9+/]{16,256})"
)

NOBODYS_HASH: Final = (
    f"$argon2id$v=19$m={MEMORY_KIB},t={TIME_COST},p={PARALLELISM}"
    "$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
)
"""
Verified where there is no user of a name, so that the time of the reply does not tell
which names exist. No password has it.
"""


def check_hash(text: str) -> str | None:
    """
    Returns:
        What is wrong with a hash; None if kvd can verify it.
    """
    parts = _HASH.fullmatch(text)
    if parts is None:
        return f"is not an Argon2 hash: give {HASH_FORM}"
    memory, time, lanes = map(int, parts.groups()[:3])
    if memory > MOST_MEMORY_KIB or time > MOST_TIME_COST:
        return (
            f"costs too much to verify (m={memory}, t={time}): give one with at most"
            f" m={MOST_MEMORY_KIB} and t={MOST_TIME_COST}, or set the password again"
            " with kvd user add"
        )
    if not (1 <= lanes <= 16 and time and memory >= 8 * lanes):
        return f"has costs that Argon2 does not allow: give {HASH_FORM}"
    return None


def hash_password(password: str) -> str:
    """
    A hash of a password, with a new salt.
    """
    from argon2 import PasswordHasher

    hasher = PasswordHasher(TIME_COST, MEMORY_KIB, PARALLELISM)
    return hasher.hash(_normalised(password))


def has_password(password_hash: str, password: str) -> bool:
    """
    Whether a hash is of this password. Takes tens of milliseconds, without the lock of
    the interpreter.
    """
    from argon2.exceptions import Argon2Error
    from argon2.low_level import Type, verify_secret

    kind = {"argon2i": Type.I, "argon2d": Type.D}
    try:
        return verify_secret(
            password_hash.encode("ascii"),
            _normalised(password).encode("utf-8"),
            kind.get(password_hash.split("$")[1], Type.ID),
        )
    except Argon2Error:
        return False


def _normalised(password: str) -> str:
    # One letter may be written in several ways (RFC 7617 section 2.1, RFC 8265).
    return unicodedata.normalize("NFC", password)
