"""
What takes longer with a real engine than a build may: ``make test-engines``.

Three nodes of SeaweedFS, kvd before them, and load, while a node is killed and
returns.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.http import ask
from tests.integration.twistd import Twistd
from tests.s3.memory_engine import BUCKET
from tests.s3.seaweedfs import SeaweedFS

WRITERS = 4
LOAD_SECONDS = 15.0
SIZES = (1000, 70_000, 400_000)


@pytest.fixture
def seaweedfs(tmp_path: Path) -> Iterator[SeaweedFS]:
    """
    Three nodes.
    """
    engine = SeaweedFS(tmp_path / "engine", 3)
    try:
        engine.start()
        yield engine
    finally:
        engine.stop()


@pytest.fixture
def daemon(seaweedfs: SeaweedFS, tmp_path: Path) -> Iterator[Twistd]:
    """
    kvd before all of them.
    """
    store = f"s3://{BUCKET}/load?endpoint={','.join(seaweedfs.urls)}"
    environment = {**os.environ, **seaweedfs.environment}
    options = [f"--store={store}", "--procs=2", "--control=off"]
    with Twistd(options, tmp_path, environment=environment) as daemon:
        yield daemon
        daemon.stop()
        print("".join(daemon.lines)[-5000:])


class Writer(threading.Thread):
    """
    Stores new values, and remembers those that were acknowledged.
    """

    def __init__(self, port: int, number: int, until: float) -> None:
        super().__init__()
        self.acknowledged: dict[str, str] = {}
        self.failed_once = 0
        self.failed_twice: list[str] = []
        self._port = port
        self._number = number
        self._until = until

    def run(self) -> None:
        count = 0
        while time.monotonic() < self._until:
            body = os.urandom(SIZES[count % len(SIZES)])
            target = f"/{self._number}/{count}"
            count += 1
            said = self._put(target, body)
            if said:
                self.failed_once += 1
                said = self._put(target, body)
            if said:
                self.failed_twice.append(said)
            else:
                self.acknowledged[target] = hashlib.sha256(body).hexdigest()

    def _put(self, target: str, body: bytes) -> str:
        """
        Store a value; a sentence if that failed.
        """
        try:
            reply = ask(self._port, "PUT", target, body)
        except (OSError, http.client.HTTPException) as error:
            return repr(error)
        return "" if reply.status < 300 else reply.body.decode()


def read(port: int, target: str) -> str:
    """
    The digest of a value, which a client asks for twice if need be.
    """
    try:
        body = ask(port, "GET", target).body
    except (OSError, http.client.HTTPException) as error:
        print(f"{target}: {error!r}")
        body = ask(port, "GET", target).body
    return hashlib.sha256(body).hexdigest()


@pytest.mark.timeout(600)
def test_node_that_is_killed_under_load(seaweedfs: SeaweedFS, daemon: Twistd) -> None:
    """
    No acknowledged value is lost or wrong, and each failure is cured by one retry.
    """
    until = time.monotonic() + LOAD_SECONDS
    writers = [Writer(daemon.port, number, until) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    time.sleep(LOAD_SECONDS / 3)
    seaweedfs.kill_node(1)
    time.sleep(LOAD_SECONDS / 3)
    seaweedfs.start_node(1)
    for writer in writers:
        writer.join()

    acknowledged = {k: v for writer in writers for k, v in writer.acknowledged.items()}
    once = sum(writer.failed_once for writer in writers)
    print(f"{len(acknowledged)} acknowledged, {once} retried by the client")
    found = {target: read(daemon.port, target) for target in acknowledged}
    assert acknowledged == found
    assert [] == [said for writer in writers for said in writer.failed_twice]
