"""
Bearer tokens: 256 random bits, of which kvd keeps the SHA-256.

A random token needs no slow hash: nobody can try 2**256 of them.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

TOKEN_PREFIX: Final = "kvd_"  # noqa: S105 - it is no secret
"""
The beginning of each token, by which people and scanners recognise one that leaked.
"""


def make_token() -> str:
    """
    A new token.
    """
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


def token_digest(token: str) -> bytes:
    """
    What the rights file keeps of a token.
    """
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
