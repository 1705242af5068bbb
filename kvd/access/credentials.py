"""
The field ``Authorization`` of a request (RFC 7617, RFC 6750).
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from dataclasses import dataclass, field
from typing import Final

from kvd.access.passwords import MOST_PASSWORD_BYTES
from kvd.errors import Unauthorized

_FIELD: Final = re.compile(rb"([A-Za-z0-9!#$%&'*+.^_`|~-]+)(?: +([\x21-\x7e]+))?")
_TOKEN: Final = re.compile(rb"[A-Za-z0-9._~+/-]+=*")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Password:
    """
    The name of a user, and what proves it: a password, or one of the user's tokens.
    """

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Bearer:
    """
    A token.
    """

    token: str = field(repr=False)


def read_credentials(value: bytes) -> Password | Bearer:
    """
    Read the value of ``Authorization``. No error repeats any of it.

    Raises:
        Unauthorized: It is malformed, or of another scheme.
    """
    parts = _FIELD.fullmatch(value)
    if parts is None or parts[2] is None:
        raise Unauthorized(
            "Authorization is malformed: send Basic with the base64 of user:password,"
            " or Bearer with a token, once."
        )
    scheme, text = parts[1].lower(), parts[2]
    if scheme == b"bearer" and _TOKEN.fullmatch(text):
        return Bearer(text.decode("ascii"))
    if scheme == b"basic":
        return _password(text)
    raise Unauthorized("Authorization has to be Basic or Bearer.")


def _password(text: bytes) -> Password:
    try:
        # Padding is often forgotten.
        pair = b64decode(text + b"=" * (-len(text) % 4), validate=True).decode("utf-8")
    except (binascii.Error, ValueError) as error:
        raise Unauthorized(
            "What follows Basic has to be the base64 of user:password in UTF-8."
        ) from error.with_traceback(None)
    user, colon, password = pair.partition(":")
    if not colon or _CONTROL.search(pair):
        raise Unauthorized(
            "What follows Basic has to be the base64 of user:password, without control"
            " characters."
        )
    if len(password.encode("utf-8")) > MOST_PASSWORD_BYTES:
        raise Unauthorized(f"A password has at most {MOST_PASSWORD_BYTES} bytes.")
    return Password(user, password)
