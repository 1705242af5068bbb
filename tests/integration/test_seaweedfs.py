"""
The store over a real engine: SeaweedFS, started once, and what it has in common with
the double of it (`tests.s3.memory_engine`).
"""

from __future__ import annotations

import json
import os
import tempfile
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvd.s3 import listing
from kvd.s3.store import ObjectStore
from kvd.testing import StoreContract
from tests.integration.http import Reply, ask, talk
from tests.integration.twistd import Twistd
from tests.s3 import contract
from tests.s3.cases import EngineCase
from tests.s3.memory_engine import BUCKET
from tests.s3.seaweedfs import SeaweedFS

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def seaweedfs() -> Iterator[SeaweedFS]:
    """
    One node.
    """
    with tempfile.TemporaryDirectory() as folder:
        engine = SeaweedFS(Path(folder))
        try:
            engine.start()
            yield engine
        finally:
            engine.stop()


@pytest.fixture(scope="module")
def daemon(
    seaweedfs: SeaweedFS, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Twistd]:
    """
    kvd before it, with two workers.
    """
    store = f"s3://{BUCKET}/daemon?endpoint={','.join(seaweedfs.urls)}"
    options = [f"--store={store}", "--procs=2", "--control=off", "--body-timeout=2s"]
    options.append("--dialect=/dav/=webdav")
    environment = {**os.environ, **seaweedfs.environment}
    folder = tmp_path_factory.mktemp("daemon")
    with Twistd(options, folder, environment=environment) as daemon:
        yield daemon
        daemon.stop()
        assert "Traceback" not in "".join(daemon.lines)


def test_locks_hold_over_the_engine(daemon: Twistd) -> None:
    """
    It keeps the conditions that they need, so class 2 is offered.
    """
    info = (
        b'<lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope>'
        b"<locktype><write/></locktype></lockinfo>"
    )
    assert "1, 2" == ask(daemon.port, "OPTIONS", "/dav/").fields["dav"]
    locked = ask(daemon.port, "LOCK", "/dav/locked", info)
    assert 201 == locked.status
    token = locked.fields["lock-token"]
    assert 423 == ask(daemon.port, "LOCK", "/dav/locked", info).status
    assert 423 == ask(daemon.port, "PUT", "/dav/locked", b"value").status
    mine = {"If": f"({token})"}
    assert 204 == ask(daemon.port, "PUT", "/dav/locked", b"value", mine).status
    unlock = {"Lock-Token": token}
    assert 204 == ask(daemon.port, "UNLOCK", "/dav/locked", b"", unlock).status
    assert 204 == ask(daemon.port, "PUT", "/dav/locked", b"value").status


def test_values_over_the_engine(daemon: Twistd) -> None:
    """
    PUT, GET, HEAD, ranges, DELETE, small, sent ahead and in parts.
    """
    sizes = (0, 5, 65_536, 65_537, 300_000, 9_000_000)
    bodies = {f"/sizes/{size}": os.urandom(size) for size in sizes}
    for target, body in bodies.items():
        fields = {"Content-Type": "text/x-test"}
        assert 201 == ask(daemon.port, "PUT", target, body, fields).status
        chunked = ask_chunked(daemon.port, target, body)
        assert (204, "engine") == (chunked.status, chunked.fields["kvd-durability"])
        assert ", durability engine," in "".join(daemon.lines)

    for target, body in bodies.items():
        got = ask(daemon.port, "GET", target)
        head = ask(daemon.port, "HEAD", target)
        assert (200, body) == (got.status, got.body)
        assert len(body) == int(head.fields["content-length"])
        assert got.fields["etag"] == head.fields["etag"]
        for first, count in ((0, 1), (len(body) // 2, 100), (len(body) // 3, 200_000)):
            part = body[first : first + count]
            if part:
                fields = {"Range": f"bytes={first}-{first + count - 1}"}
                got = ask(daemon.port, "GET", target, fields=fields)
                assert (206, part) == (got.status, got.body)
        etag = head.fields["etag"]
        same = ask(daemon.port, "GET", target, fields={"If-None-Match": etag})
        assert (304, b"") == (same.status, same.body)

    listed = ask(daemon.port, "GET", "/sizes/?limit=1000").body
    keys = [json.loads(line)["key"] for line in listed.splitlines()]
    assert sorted(target[1:] for target in bodies) == keys
    for target in bodies:
        assert 204 == ask(daemon.port, "DELETE", target).status
        assert 404 == ask(daemon.port, "DELETE", target).status
        assert 404 == ask(daemon.port, "GET", target).status


def ask_chunked(port: int, target: str, body: bytes) -> Reply:
    """
    Store a body of unknown length.
    """
    pieces = [body[at : at + 100_000] for at in range(0, len(body), 100_000)]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    fields = {"Transfer-Encoding": "chunked"}
    return ask(port, "PUT", target, chunks + b"0\r\n\r\n", fields)


def test_conditions_over_the_engine(daemon: Twistd) -> None:
    """
    Create once and compare-and-swap, for small values and for those that are sent
    ahead; a digest that does not match publishes nothing.
    """
    for size in (10, 500_000):
        body, target = os.urandom(size), f"/conditions/{size}"
        once = {"If-None-Match": "*"}
        assert 201 == ask(daemon.port, "PUT", target, body, once).status
        assert 412 == ask(daemon.port, "PUT", target, body, once).status
        etag = ask(daemon.port, "HEAD", target).fields["etag"]
        new = ask(daemon.port, "PUT", target, body, {"If-Match": etag})
        assert 204 == new.status
        assert 412 == ask(daemon.port, "PUT", target, b"", {"If-Match": etag}).status
        assert (
            412 == ask(daemon.port, "DELETE", target, None, {"If-Match": etag}).status
        )
        wrong = {"Content-Digest": f"sha-256=:{b64encode(bytes(32)).decode()}:"}
        assert 400 == ask(daemon.port, "PUT", target, bytes(size), wrong).status
        got = ask(daemon.port, "GET", target)
        assert (body, new.fields["etag"]) == (got.body, got.fields["etag"])


def test_client_that_leaves_changes_nothing(daemon: Twistd) -> None:
    """
    Whether its length is known or not.
    """
    ask(daemon.port, "PUT", "/left", b"old")
    part = os.urandom(700_000)
    for head in (
        b"Content-Length: 1000000\r\n\r\n" + part,
        b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(part), part),
    ):
        with talk(daemon.port) as sock:
            sock.sendall(b"PUT /left HTTP/1.1\r\nHost: localhost\r\n" + head)
            # Until it is told that its body has stopped.
            assert b" 408 " in sock.recv(1000)

    assert b"old" == ask(daemon.port, "GET", "/left").body


class SeaweedFSCase(EngineCase):
    """
    A test case with SeaweedFS, which takes as long as it takes.
    """

    step_seconds = turn_seconds = 0.01

    @pytest.fixture(autouse=True)
    def _with_engine(self, seaweedfs: SeaweedFS) -> None:
        self.seaweedfs = seaweedfs

    def setUp(self) -> None:
        super().setUp()
        self.urls[:] = self.seaweedfs.urls

    def make_store(self, prefix: str = "") -> ObjectStore:
        """
        A store of its own.
        """
        return super().make_store(prefix or f"tests/{os.urandom(8).hex()}/")


class SeaweedFSContractTests(contract.EngineContract, SeaweedFSCase):
    """
    SeaweedFS behaves as the double.
    """


class SeaweedFSStoreTests(SeaweedFSCase, StoreContract):
    """
    `ObjectStore` in SeaweedFS is a store.
    """

    has_folders = False
    max_key_bytes = 980
    many_values = 30

    def setUp(self) -> None:
        self.patch(listing, "SLICE_KEYS", 10)
        super().setUp()
