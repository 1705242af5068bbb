"""
What proves to a daemon who its client is.
"""

from __future__ import annotations

import os
import stat
from base64 import b64encode
from dataclasses import dataclass, field
from netrc import NetrcParseError, netrc
from typing import Protocol

from kvd.client.errors import CredentialsUnusable

MOST_TOKEN_BYTES = 4096


class Credentials(Protocol):
    """
    Can be sent with a request.
    """

    def field(self) -> str:
        """
        The value of ``Authorization``.
        """


@dataclass(frozen=True)
class Token:
    """
    A token, as ``kvd user token`` prints it.
    """

    token: str = field(repr=False)

    def field(self) -> str:
        """
        See `Credentials`.
        """
        return f"Bearer {self.token}"


@dataclass(frozen=True)
class Login:
    """
    The name and the password of a user.
    """

    user: str
    password: str = field(repr=False)

    def field(self) -> str:
        """
        See `Credentials`.
        """
        pair = f"{self.user}:{self.password}".encode()
        return f"Basic {b64encode(pair).decode('ascii')}"


def read_token_file(path: str) -> Token:
    """
    The token in a file: one line, perhaps with blanks around it.

    Raises:
        CredentialsUnusable: It cannot be read, has no token, or is open to all users of
            this machine.
    """
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_mode & stat.S_IRWXO:
                raise CredentialsUnusable(
                    f"{path} has a token, and every user of this machine may use it:"
                    f" run chmod 600 {path}."
                )
            text = file.read(MOST_TOKEN_BYTES).strip()
    except OSError as error:
        raise CredentialsUnusable(
            f"The token file {path} cannot be read: {error.strerror}."
        ) from error
    if not text or not all(b" " < bytes((byte,)) < b"\x7f" for byte in text):
        raise CredentialsUnusable(f"{path} has to have one token, and nothing else.")
    return Token(text.decode("ascii"))


def read_netrc(path: str, host: str) -> Login | None:
    """
    The login of a host in a netrc file; None if it has none.

    Raises:
        CredentialsUnusable: It cannot be read, or is open to all users of this machine.
    """
    try:
        if os.stat(path).st_mode & stat.S_IRWXO:
            raise CredentialsUnusable(
                f"{path} has passwords, and every user of this machine may use it: run"
                f" chmod 600 {path}."
            )
        found = netrc(path).authenticators(host)
    except NetrcParseError as error:
        # Its text may repeat a password.
        raise CredentialsUnusable(
            f"{path} is not a netrc file (at line {error.lineno})."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise CredentialsUnusable(f"{path} cannot be read: {reason}.") from error
    return None if found is None or found[2] is None else Login(found[0], found[2])
