"""
The new daemon, as the old one sees it.
"""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any, Final

from twisted.internet.task import deferLater
from twisted.logger import Logger

from kvd.daemon.upgrade.manifest import MAX_MESSAGE_BYTES, Manifest
from kvd.errors import ChangeImpossible
from kvd.system.inherited import VARIABLE
from kvd.workers.reaping import Reaper

LOOK_SECONDS: Final = 0.02

MOST_SECONDS: Final = 300.0
"""
How long the new daemon may take until it is ready. The old one serves meanwhile, and
takes most of a busy machine.
"""

_STDERR: Final = 2

_KEPT_BYTES: Final = 16 * 1024
"""
How much of what it prints is kept.
"""


class Successor:
    """
    Starts the new daemon, and talks to it.
    """

    _log = Logger()

    def __init__(
        self,
        command: Sequence[str],
        folder: str | None,
        environment: Mapping[str, str],
        reactor: Any,
    ) -> None:
        """
        Args:
            command: The arguments of the Python interpreter that started this daemon.
            folder: Where this daemon was started.
            environment: Of the new daemon, beside what this class adds.
            reactor: Provides the time.
        """
        self._command = command
        self._folder = folder
        self._environment = environment
        self._reactor = reactor
        self._printed = b""
        self._channel: socket.socket | None = None
        self._errors = -1
        self._process: subprocess.Popen[bytes] | None = None
        self._may_serve = False
        self.pid = 0
        """Of the new daemon, once known."""

    def start(self, manifest: Manifest) -> None:
        """
        Start the process.

        Raises:
            ChangeImpossible: It cannot be started.
        """
        if min(manifest.descriptors()) <= _STDERR:
            raise ChangeImpossible(
                "kvd was started without standard input, output or error, so a socket"
                " has such a number and cannot be inherited: restart kvd"
            )
        try:
            with ExitStack() as closing:
                self._start(manifest, closing)
        except OSError as error:
            where = "" if error.filename is None else f"{error.filename}: "
            raise ChangeImpossible(
                f"the new kvd cannot be started: {where}{error.strerror or error}"
            ) from error

    def _start(self, manifest: Manifest, closing: ExitStack) -> None:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        closing.enter_context(far)
        self._channel = near
        near.setblocking(False)
        self._errors, errors = os.pipe()
        closing.callback(os.close, errors)
        os.set_blocking(self._errors, False)
        stderr = os.dup(_STDERR)
        closing.callback(os.close, stderr)
        manifest = replace(manifest, stderr=stderr)
        near.send(manifest.encode())
        self._process = subprocess.Popen(  # noqa: S603  # as this was started
            [sys.executable, *self._command],
            cwd=self._folder,
            env={**self._environment, VARIABLE: str(far.fileno())},
            pass_fds=[far.fileno(), *manifest.descriptors()],
            stdin=subprocess.DEVNULL,
            stderr=errors,
        )

    async def until(self, word: str, check: Callable[[], None]) -> None:
        """
        Wait for a message, after which the new daemon has said nothing else, and runs.

        Args:
            word: What it says.
            check: Called between; raises if there is no point in waiting.

        Raises:
            ChangeImpossible: The new daemon cannot serve, or has ended, or takes too
                long.
        """
        last = self._reactor.seconds() + MOST_SECONDS
        is_said = False
        while True:
            message = self._receive()
            if "error" in message:
                raise ChangeImpossible(
                    f"the new kvd cannot serve, and this one goes on: "
                    f"{message['error']}"
                )
            if "started" in message:
                self.pid = message["started"]
            is_said = is_said or word in message
            if message:
                continue
            if is_said:
                return
            if self._reactor.seconds() > last:
                raise ChangeImpossible(
                    f"the new kvd was not ready within {MOST_SECONDS:g} seconds; this"
                    " one goes on"
                )
            await deferLater(self._reactor, LOOK_SECONDS)
            check()

    def _receive(self) -> dict[str, Any]:
        """
        The next message; empty: there is none yet.
        """
        assert self._channel is not None
        self._read_printed()
        try:
            data = self._channel.recv(MAX_MESSAGE_BYTES)
        except BlockingIOError:
            return {}
        except ConnectionResetError:
            # It ended before it had read everything. What it had sent is still there.
            data = self._channel.recv(MAX_MESSAGE_BYTES)
        if data:
            message: dict[str, Any] = json.loads(data)
            return message
        self._read_printed()
        raise ChangeImpossible(
            f"the new kvd does not start, and this one goes on: {self._last_words()}"
        )

    def _read_printed(self) -> None:
        with suppress(OSError):
            while data := os.read(self._errors, _KEPT_BYTES):
                self._printed = (self._printed + data)[-_KEPT_BYTES:]

    def _last_words(self) -> str:
        text = self._printed.decode("utf-8", "backslashreplace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if not lines:
            return "it ended without a word on standard error; the log may say why"
        if len(lines) > 1:
            self._log.error("printed by the new kvd: {text}", text=text.strip())
        return lines[-1].removeprefix("kvd: ")

    def take(self, totals: Sequence[Sequence[int]]) -> None:
        """
        Allow it to serve.

        Args:
            totals: What the values of each quota take, and how many there are; empty
                for a store without limits.
        """
        self._may_serve = True
        self._send({"take": {"totals": totals}})

    def pass_on(self, number: int) -> None:
        """
        Tell it of a signal that this daemon got: it may have read the settings and
        opened the log before. It heeds that as soon as it serves.
        """
        if self._channel is not None:
            self._send({"signal": number})

    def confirm(self) -> None:
        """
        Tell it that this daemon accepts nothing more. The channel stays open until this
        process ends, by which the new daemon knows that it has ended.
        """
        self._send({"main": True})
        os.close(self._errors)

    def abandon(self) -> None:
        """
        End it. It has touched no connection; or it was allowed to serve, and drains.
        Does nothing the second time.
        """
        if self._channel is None:
            return
        self._send({"stop": True})
        self._channel.close()
        self._channel = None
        if self._errors != -1:
            os.close(self._errors)
        if self._process is None:
            return
        if self._may_serve:
            Reaper(self._reactor).reap(self._process, math.inf)
            return
        self._process.kill()
        self._process.wait()
        if self.pid not in {0, self._process.pid}:
            # It runs in the background, as a child of nobody's.
            with suppress(OSError):
                os.kill(self.pid, signal.SIGKILL)

    def _send(self, message: dict[str, Any]) -> None:
        assert self._channel is not None
        # If it has ended, the next look finds that.
        with suppress(OSError):
            self._channel.send(json.dumps(message).encode("ascii"))
