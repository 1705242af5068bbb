"""
The client of the control socket, for commands: plain and blocking.
"""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any, Final

from kvd.errors import ChangeImpossible, ControlUnusable

TIMEOUT_SECONDS: Final = 10.0


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("kvd", timeout=TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._path)
        except BaseException:
            self.close()
            raise


class ControlSocket:
    """
    A connection to a daemon's control socket, opened when it is needed.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection = _UnixConnection(path)

    def status(self) -> dict[str, Any]:
        """
        Get the status of the daemon; see `kvd.admin.control.status.describe`.

        Raises:
            ControlUnusable: No daemon answers there, or another program does.
        """
        code, content = self._ask("GET", "/status", None, TIMEOUT_SECONDS)
        if code == 200 and "workers" in content:
            return content
        raise ControlUnusable(f"what answers at {self._path} is no control socket")

    def change(self, what: str, arguments: dict[str, Any]) -> None:
        """
        Make a change, and wait until it is done, however long that takes.

        Args:
            what: ``policy``, ``shadow``, ``procs``, ``drain`` or ``restart``.
            arguments: The arguments of the change.

        Raises:
            ControlUnusable: No daemon answers there, or another program does.
            ChangeImpossible: The change cannot be made, or not now.
        """
        code, content = self._ask("POST", f"/{what}", json.dumps(arguments), None)
        if code == 200:
            return
        if "error" in content:
            raise ChangeImpossible(str(content["error"]))
        raise ControlUnusable(
            f"the kvd at {self._path} has no workers, or is of a version that does not"
            f" know {what}"
        )

    def upgrade(self) -> None:
        """
        Have new code take over, and wait until it serves. It is the one that answers
        from then on.

        Raises:
            ControlUnusable: No daemon answers there, or another program does.
            ChangeImpossible: The new daemon does not serve, and the old one goes on.
        """
        self.change("upgrade", {})
        # The old daemon has this connection as long as it drains.
        self.close()

    def _ask(
        self, method: str, path: str, body: str | None, seconds: float | None
    ) -> tuple[int, dict[str, Any]]:
        self._connection.timeout = seconds
        if self._connection.sock is not None:
            self._connection.sock.settimeout(seconds)
        try:
            self._connection.request(method, path, body)
            reply = self._connection.getresponse()
            answer = reply.read()
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._connection.close()
            raise ControlUnusable(self._sentence(error)) from error
        try:
            content = json.loads(answer)
        except ValueError:
            content = None
        return reply.status, content if isinstance(content, dict) else {}

    def _sentence(self, error: Exception) -> str:
        if isinstance(error, FileNotFoundError | ConnectionRefusedError):
            return (
                f"no kvd answers at the control socket {self._path}; is it running,"
                " as this user?"
            )
        if isinstance(error, PermissionError):
            return (
                f"the control socket {self._path} belongs to another user; only its"
                " owner may use it"
            )
        if isinstance(error, TimeoutError):
            return (
                f"kvd did not answer at {self._path} within {TIMEOUT_SECONDS:g} seconds"
            )
        if isinstance(error, ConnectionError | http.client.IncompleteRead):
            return f"the kvd at {self._path} ended before it had answered"
        return f"the control socket {self._path} cannot be used: {error}"

    def close(self) -> None:
        """
        Close the connection.
        """
        self._connection.close()
