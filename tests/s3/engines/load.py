"""
Load on kvd over an engine, while a node of that is killed and returns.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import threading
import time

from tests.integration.http import ask
from tests.s3.processes import RunningEngine

WRITERS = 4
LOAD_SECONDS = 15.0
SIZES = (1000, 70_000, 400_000)


class Writer(threading.Thread):
    """
    Stores values, and remembers those that were acknowledged.
    """

    replaces = True
    """Whether every fourth replaces one of some seconds ago."""

    def __init__(self, port: int, number: int, until: float) -> None:
        super().__init__()
        self.count = 0
        self.acknowledged: dict[str, str] = {}
        self.failed_once = 0
        self.failed_twice: list[str] = []
        self._port = port
        self._number = number
        self._until = until

    def run(self) -> None:
        while time.monotonic() < self._until:
            body = os.urandom(SIZES[self.count % len(SIZES)])
            self.count += 1
            replaces = self.replaces and self.count % 4 == 0
            number = self.count // 2 if replaces else self.count
            target = f"/{self._number}/{number}"
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


def assert_node_is_not_missed(
    engine: RunningEngine, port: int, *, replaces: bool, settle_seconds: float
) -> None:
    """
    A node is killed while clients store values, and returns. No acknowledged value is
    lost or wrong, and each failure is cured by one retry.

    Args:
        engine: Runs.
        port: That of a kvd before it.
        replaces: Whether values replace others.
        settle_seconds: How long the older one may still be read.
    """
    until = time.monotonic() + LOAD_SECONDS
    writers = [Writer(port, number, until) for number in range(WRITERS)]
    for writer in writers:
        writer.replaces = replaces
        writer.start()
    time.sleep(LOAD_SECONDS / 3)
    engine.kill_node(1)
    time.sleep(LOAD_SECONDS / 3)
    engine.start_node(1)
    for writer in writers:
        writer.join()

    acknowledged = {k: v for writer in writers for k, v in writer.acknowledged.items()}
    once = sum(writer.failed_once for writer in writers)
    count = sum(writer.count for writer in writers)
    print(f"{count} stored, {once} of them retried by the client")
    wrong = [t for t, digest in acknowledged.items() if read(port, t) != digest]
    print(f"{len(wrong)} were read with another value at first")
    deadline = time.monotonic() + settle_seconds
    while wrong and time.monotonic() < deadline:
        wrong = [t for t in wrong if read(port, t) != acknowledged[t]]
    assert [] == wrong
    assert [] == [said for writer in writers for said in writer.failed_twice]
