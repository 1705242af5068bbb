"""
etcd on this machine: what nodes of SeaweedFS keep in common, for tests.

The program is in Debian's package ``etcd-server``.
"""

from __future__ import annotations

import http.client
import json
import shutil
from base64 import b64encode
from pathlib import Path

from tests.ports import unused_port
from tests.s3.processes import Processes


def put(host: str, port: int, key: str, value: str) -> bool:
    """
    Store a value under a key.

    Returns:
        Whether that is done; False: too few members run yet.
    """
    text = {"key": key, "value": value}
    body = {name: b64encode(each.encode()).decode() for name, each in text.items()}
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("POST", "/v3/kv/put", json.dumps(body))
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class Etcd:
    """
    Some members, of which more than half have to run.
    """

    def __init__(self, folder: Path, members: int) -> None:
        """
        Args:
            folder: Has the files of all members.
            members: How many there are.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._processes = Processes(folder, {})
        self._clients = [unused_port() for _ in range(members)]
        self._peers = [unused_port() for _ in range(members)]

    @property
    def addresses(self) -> list[str]:
        """
        Where the members are asked.
        """
        return [f"127.0.0.1:{port}" for port in self._clients]

    def start(self, key: str, value: str) -> None:
        """
        Start all members, and have a value there.
        """
        for member in range(len(self._clients)):
            self.start_member(member)
        self._processes.wait_until(
            lambda: put("127.0.0.1", self._clients[0], key, value), f"etcd has {key}"
        )

    def start_member(self, member: int) -> None:
        """
        Start one member, perhaps again.
        """
        program = shutil.which("etcd")
        assert program is not None, "etcd is not installed; tests/prepare.sh names it"
        client = f"http://127.0.0.1:{self._clients[member]}"
        peer = f"http://127.0.0.1:{self._peers[member]}"
        options = {
            "name": member,
            "data-dir": self._folder / f"{member}",
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": ",".join(
                f"{number}=http://127.0.0.1:{port}"
                for number, port in enumerate(self._peers)
            ),
            "logger": "zap",
        }
        words = [f"--{name}={value}" for name, value in options.items()]
        self._processes.start(f"etcd{member}", [program, *words])

    def kill_member(self, member: int) -> None:
        """
        Kill one member.
        """
        self._processes.kill(f"etcd{member}")

    def revive(self) -> list[str]:
        """
        See `RunningEngine`.
        """
        return self._processes.revive()

    def stop(self) -> None:
        """
        Kill all members.
        """
        self._processes.kill_all()
