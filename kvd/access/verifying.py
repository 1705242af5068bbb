"""
Passwords are verified by a process of its own, for all processes of a daemon.

A verification keeps a processor busy for tens of milliseconds. A thread of a process
that serves may have the lowest priority, but it needs the interpreter's lock before and
after: while it has the lock and no processor, nobody is served. A process of low
priority holds up nobody.

All processes send to one socket. A message is a hash, a zero byte and a password, and
carries one end of a pipe, for the answer. An end of the pipe without one says that the
process has ended. A message with neither hash nor password asks whether the process
lives.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from typing import Final

from kvd.access.passwords import has_password
from kvd.errors import OutOfResources

MOST_REMEMBERED: Final = 4096
"""
Passwords that were right, which each worker asks for, and again after each reload.
"""

MOST_BYTES: Final = 4096
"""
Of a message: a hash has at most 430, a password 1,024.
"""

ASKED_WHETHER_ALIVE: Final = b"\0"

_RIGHT: Final = b"1"
_WRONG: Final = b"0"


class Verifier:
    """
    Asks the process that verifies.
    """

    def __init__(self, requests: socket.socket) -> None:
        """
        Args:
            requests: All processes send to it. It blocks.
        """
        self._requests = requests

    def has_password(self, password_hash: str, password: str) -> bool:
        """
        Whether a hash is of this password. Blocks until that is known.

        Raises:
            OSError: This process has no descriptors left.
            OutOfResources: The process that verifies has ended, or cannot be started.
        """
        message = password_hash.encode("ascii") + b"\0" + password.encode("utf-8")
        answers, answer = os.pipe()
        try:
            try:
                socket.send_fds(self._requests, [message], [answer])
            finally:
                os.close(answer)
            came = os.read(answers, 1)
        finally:
            os.close(answers)
        if not came:
            raise OutOfResources(
                "The process that verifies passwords does not run: try again later."
            )
        return came == _RIGHT


class Answering:
    """
    Answers, in the process that verifies.
    """

    def __init__(
        self,
        requests: socket.socket,
        has_password: Callable[[str, str], bool] = has_password,
    ) -> None:
        """
        Args:
            requests: The other end of that of `Verifier`. It blocks.
            has_password: Verifies.
        """
        self._requests = requests
        self._has_password = has_password
        self._key = secrets.token_bytes(32)
        self._right: set[bytes] = set()

    def run(self) -> None:
        """
        Answer until nobody is left who could ask. Several threads may call this.
        """
        while True:
            message, descriptors, _, _ = socket.recv_fds(self._requests, MOST_BYTES, 1)
            if not message:
                return
            for descriptor in descriptors:
                try:
                    answer = _RIGHT if self._is_right(message) else _WRONG
                    # The worker that has asked may have ended.
                    with suppress(BrokenPipeError):
                        os.write(descriptor, answer)
                finally:
                    os.close(descriptor)

    def _is_right(self, message: bytes) -> bool:
        if message == ASKED_WHETHER_ALIVE:
            return True
        known = blake2b(message, key=self._key, digest_size=32).digest()
        if known in self._right:
            return True
        password_hash, _, password = message.partition(b"\0")
        right = self._has_password(password_hash.decode(), password.decode())
        if right:
            if len(self._right) >= MOST_REMEMBERED:
                self._right.clear()
            self._right.add(known)
        return right
