"""
Bearer tokens: 256 random bits, of which kvd keeps the SHA-256. And keys for S3, with
which clients sign.

A random token needs no slow hash: nobody can try 2**256 of them.
"""

from __future__ import annotations

import hashlib
import secrets
from base64 import b32encode
from typing import Final

TOKEN_PREFIX: Final = "kvd_"  # noqa: S105 - it is no secret
"""
The beginning of each token, by which people and scanners recognise one that leaked.
"""

KEY_PREFIX: Final = "KVD"
"""
The beginning of the name of each key for S3.
"""


def make_token() -> str:
    """
    A new token.
    """
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


def make_key() -> tuple[str, str]:
    """
    The name of a new key for S3, and its secret; as long as those of AWS.
    """
    name = b32encode(secrets.token_bytes(11)).decode("ascii").rstrip("=")
    return KEY_PREFIX + name[:17], secrets.token_urlsafe(30)


def token_digest(token: str) -> bytes:
    """
    What the rights file keeps of a token.
    """
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
