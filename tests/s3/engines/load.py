"""
Load on kvd over an engine, while a node of that is killed and returns.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import threading
import time
from urllib.parse import urlsplit

from kvd.s3.store import WAITING_BYTES
from tests.integration.http import ask
from tests.s3.memory_engine import BUCKET
from tests.s3.over_engine import DAEMON_PREFIX
from tests.s3.processes import RunningEngine
from tests.s3.seaweedfs import status_of

WRITERS = 4
LOAD_SECONDS = 15.0
REVIVED_SECONDS = 1.0
"""
As ``RestartSec=1`` in ``etc/cluster``: the program of a node that has ended by itself
is started again after such a time.
"""
SIZES = (1000, 70_000, 400_000, 1_500_000)
"""
kvd repeats the requests of all but the last: that is longer than what waits in kvd for
its last byte.
"""

MOST_OLDER = 0.05
"""
Of all values, where the engine does not keep the order: without kvd, it was 10 of 490
keys that one client wrote twice through one gateway of SeaweedFS.
"""


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
        self.replaced: set[str] = set()
        """The digests of values that were acknowledged before."""
        self.failed_once = 0
        self.failed_twice: list[str] = []
        self.long_failed_twice: list[str] = []
        """Of values whose requests kvd cannot repeat."""
        self._port = port
        self._number = number
        self._until = until

    def run(self) -> None:
        while time.monotonic() < self._until:
            body = os.urandom(SIZES[self.count % len(SIZES)])
            self.count += 1
            # The sizes take turns among these too.
            replaces = self.replaces and self.count % 5 == 0
            number = self.count // 2 if replaces else self.count
            target = f"/{self._number}/{number}"
            before = self.acknowledged.pop(target, "")
            said = self._put(target, body)
            if said:
                self.failed_once += 1
                print(f"{target}, {len(body)} bytes: {said}")
                said = self._put(target, body)
            if not said:
                self.acknowledged[target] = hashlib.sha256(body).hexdigest()
                self.replaced.add(before)
            # Else it has either value: a reply may have been lost.
            elif len(body) > WAITING_BYTES:
                self.long_failed_twice.append(f"{target}: {said}")
            else:
                self.failed_twice.append(f"{target}: {said}")

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
    The digest of a value, or what was said in its place. A client asks once more after
    a failure.
    """
    said = ""
    for _ in range(2):
        try:
            reply = ask(port, "GET", target)
        except (OSError, http.client.HTTPException) as error:
            said = repr(error)
        else:
            if reply.status == 200:
                return hashlib.sha256(reply.body).hexdigest()
            said = f"{reply.status} {reply.body.decode()}"
        print(f"{target}: {said}")
    return said


def said_of(engine: RunningEngine, target: str) -> list[int]:
    """
    The status that each gateway gives a HEAD of a value, asked itself.
    """
    user = engine.environment["AWS_ACCESS_KEY_ID"]
    places = [
        (urlsplit(url).hostname or "", urlsplit(url).port or 0) for url in engine.urls
    ]
    path = f"/{BUCKET}/{DAEMON_PREFIX}{target}"
    return [status_of(host, port, "HEAD", path, user) for host, port in places]


def assert_node_is_not_missed(
    engine: RunningEngine, port: int, *, replaces: bool, keeps_order: bool
) -> None:
    """
    A node is killed while clients store values, and returns. No acknowledged value is
    lost or wrong, and each failure is cured by one retry, if it was not that of a value
    that kvd sends as it comes.

    Args:
        engine: Runs.
        port: That of a kvd before it.
        replaces: Whether values replace others.
        keeps_order: Whether the engine keeps the newer one then.
    """
    until = time.monotonic() + LOAD_SECONDS
    writers = [Writer(port, number, until) for number in range(WRITERS)]
    for writer in writers:
        writer.replaces = replaces
        writer.start()
    time.sleep(LOAD_SECONDS / 3)
    engine.kill_node(1)
    ended = []
    for _ in range(int(LOAD_SECONDS / 3 / REVIVED_SECONDS)):
        time.sleep(REVIVED_SECONDS)
        ended += engine.revive()
    engine.start_node(1)
    for writer in writers:
        while writer.is_alive():
            writer.join(REVIVED_SECONDS)
            ended += engine.revive()

    acknowledged = {k: v for writer in writers for k, v in writer.acknowledged.items()}
    replaced = {each for writer in writers for each in writer.replaced}
    once = sum(writer.failed_once for writer in writers)
    long_twice = [said for writer in writers for said in writer.long_failed_twice]
    count = sum(writer.count for writer in writers)
    print(f"{count} stored, {once} of them retried by the client")
    print(f"{len(long_twice)} that were sent as they came failed again: {long_twice}")
    wrong = {
        target: found
        for target, digest in acknowledged.items()
        if (found := read(port, target)) != digest
    }
    older = [target for target, found in wrong.items() if found in replaced]
    print(f"{len(older)} have an older value: {older}")
    print(f"ended beside the node that was killed: {ended}")
    lost = {
        target: f"{wrong[target]}; the gateways say {said_of(engine, target)}"
        for target in wrong.keys() - older
    }
    assert not lost, lost
    assert len(older) <= (0 if keeps_order else MOST_OLDER * count)
    twice = [said for writer in writers for said in writer.failed_twice]
    assert not twice, twice
