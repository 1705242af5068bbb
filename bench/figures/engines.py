"""
The engines that kvd is measured before, and a client of both.
"""

from __future__ import annotations

import http.client
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Final

from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from kvd.s3.signing import DEFAULT_REGION, signed
from tests.s3.ceph import Ceph
from tests.s3.memory_engine import BUCKET
from tests.s3.over_engine import started
from tests.s3.processes import RunningEngine
from tests.s3.seaweedfs import SeaweedFS
from tests.s3.swift import Swift

NODES: Final = 3
VOLUMES: Final = 200
"""
Of a node of SeaweedFS: as some hundred values of 40 MB need, one after the other.
"""

ENGINES: Final[Mapping[str, Callable[[Path], RunningEngine]]] = {
    "seaweedfs": lambda folder: SeaweedFS(folder, NODES, VOLUMES),
    "seaweedfs_etcd": lambda folder: SeaweedFS(folder, NODES, VOLUMES, in_common=True),
    "ceph": Ceph,
    "swift": Swift,
}

PREFIX: Final = "kvd"
"""
Before a key in the name of its object. Who compares kvd with a gateway has both ask for
the same object: another one lies elsewhere in the engine, and Ceph's daemons took 24 ms
of processor time for one of 40 MB and 30 for the other.
"""

_UNSIGNED: Final = SimpleNamespace(s3={"payload_signing_enabled": False})


@contextmanager
def running_engine(folder: Path) -> Iterator[RunningEngine]:
    """
    Three nodes of the engine that ``ENGINE`` names; by default of SeaweedFS.
    """
    name = os.environ.get("ENGINE", "seaweedfs")
    if name not in ENGINES:
        known = ", ".join(ENGINES)
        raise SystemExit(f"no engine is named {name!r}; there are: {known}")
    with started(ENGINES[name](folder / "engine")) as engine:
        yield engine


def gateway_port(engine: RunningEngine) -> int:
    """
    The port of its first gateway.
    """
    return int(engine.urls[0].rpartition(":")[2])


def environment_with(engine: RunningEngine) -> Mapping[str, str]:
    """
    This process's environment, and the credentials.
    """
    return {**os.environ, **engine.environment}


@dataclass(frozen=True, slots=True)
class Transfer:
    """
    How long a request took, in seconds.
    """

    whole: float
    head: float
    """Until the head of the reply."""


class Client:
    """
    Sends large requests over one connection.
    """

    def __init__(self, port: int, target: str) -> None:
        """
        Args:
            port: Where to.
            target: The path of the value.
        """
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self._target = target
        self._buffer = bytearray(1 << 20)

    def close(self) -> None:
        """
        Close the connection.
        """
        self._connection.close()

    def send(self, method: str, body: bytes | None = None) -> Transfer:
        """
        Send a request, and read its reply.
        """
        fields = self._fields(method)
        began = time.monotonic()
        self._connection.request(method, self._target, body, fields)
        reply = self._connection.getresponse()
        head = time.monotonic()
        assert reply.status < 300, reply.read()
        while reply.readinto(self._buffer):
            pass
        return Transfer(time.monotonic() - began, head - began)

    def _fields(self, method: str) -> dict[str, str]:
        return {}


class SigningClient(Client):
    """
    The same for a gateway of an engine, or for what leads to it.
    """

    def __init__(
        self, engine: RunningEngine, key: str, port: int | None = None
    ) -> None:
        """
        Args:
            engine: Has the gateway.
            key: That of a value of kvd's with `PREFIX`.
            port: Of what leads to the gateway; None: of the gateway.
        """
        gateway = gateway_port(engine)
        target = f"/{BUCKET}/{PREFIX}/{key}"
        super().__init__(port or gateway, target)
        self._credentials = Credentials(*engine.environment.values())
        self._host = f"127.0.0.1:{gateway}"
        self._url = f"http://{self._host}{target}"

    def _fields(self, method: str) -> dict[str, str]:
        request = AWSRequest(method, self._url)
        request.context["client_config"] = _UNSIGNED
        signed(request, self._credentials, DEFAULT_REGION)
        fields = {name: str(text) for name, text in request.headers.items()}
        return {**fields, "Host": self._host}
