"""
Which passwords and which addresses have logged in: what all processes of a daemon know
of it, also those that start later.

A password that one process has verified is known to all, so no other one verifies it
again, or has it wait where others guess passwords. Of an address that has logged in,
attempts come before those of others (`kvd.access.throttle`).

Only hashes with a random key are kept, in memory that ends with the daemon. That of a
password is of the user's hash in the rights file too, so another password there makes
it worthless.
"""

from __future__ import annotations

import time
from typing import Final

from kvd.access.counting import CountingMemory

_CHECK_BYTES: Final = 8


class Logins:
    """
    The logins that succeeded.
    """

    def __init__(self, memory: CountingMemory) -> None:
        """
        Args:
            memory: In which all processes remember them.
        """
        # A slot has a hash, when it was last used, and of credentials another hash: 126
        # bits together, so that no guess is taken for them.
        self._credentials: Final = memory.credentials
        self._addresses: Final = memory.addresses

    def has_credentials(self, value: bytes, password_hash: str) -> bool:
        """
        Whether a process has verified this.

        Args:
            value: Of ``Authorization``.
            password_hash: That the user has now.
        """
        name = _name_of(value, password_hash)
        words = self._credentials.words
        tag, slot = self._credentials.slot(name)
        found, _, check = words[slot : slot + 3].tolist()
        if found != tag or check != self._check(name):
            return False
        words[slot + 1] = time.monotonic_ns()
        return True

    def has_address(self, network: str) -> bool:
        """
        Whether somebody has logged in from an address.
        """
        tag, slot = self._addresses.slot(network)
        return bool(self._addresses.words[slot] == tag)

    def remember(self, value: bytes, password_hash: str, network: str) -> None:
        """
        A password was right.

        Args:
            value: Of ``Authorization``.
            password_hash: With which it was verified.
            network: Where it came from.
        """
        name = _name_of(value, password_hash)
        words = self._credentials.words
        tag, slot = self._credentials.slot(name)
        # Without the hash meanwhile: another process never sees it beside what was
        # there for another one.
        words[slot] = 0
        words[slot + 2] = self._check(name)
        words[slot + 1] = time.monotonic_ns()
        words[slot] = tag
        self.remember_address(network)

    def remember_address(self, network: str) -> None:
        """
        A password that is known came from an address.
        """
        words = self._addresses.words
        tag, slot = self._addresses.slot(network)
        words[slot + 1] = time.monotonic_ns()
        words[slot] = tag

    def _check(self, name: bytes) -> int:
        digest = self._credentials.digest(b"check" + name)
        return int.from_bytes(digest[:_CHECK_BYTES], "little")


def _name_of(value: bytes, password_hash: str) -> bytes:
    return password_hash.encode("ascii") + b"\0" + value
