"""
What kvd over a real engine is tried with: SeaweedFS in every build
(`tests.integration.test_seaweedfs`), and all of them by ``make test-engines``.

A subclass says what its engine keeps of the conditions; the rest must be refused.
"""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kvd.errors import ConditionUnsupported
from kvd.lab.measuring.processes import wait_for
from kvd.s3 import listing
from kvd.s3.guards import Change
from kvd.s3.store import WAITING_BYTES, ObjectStore
from kvd.store.contract.asking import ABSENT, KEY, holds
from tests.integration.http import Reply, ask, talk
from tests.integration.twistd import Twistd
from tests.patience import PATIENCE_SECONDS
from tests.s3 import contract, sharing
from tests.s3.cases import EngineCase
from tests.s3.memory_engine import BUCKET
from tests.s3.processes import RunningEngine

LOCK = (
    b'<lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope>'
    b"<locktype><write/></locktype></lockinfo>"
)

DAEMON_PREFIX = "daemon"
"""
That of all values of a kvd before an engine.
"""


def location(engine: RunningEngine, prefix: str, most: int | None = None) -> str:
    """
    A store in an engine.

    Args:
        engine: Runs.
        prefix: That of the store.
        most: How many of its gateways are used; None: all.
    """
    return f"s3://{BUCKET}/{prefix}?endpoint={','.join(engine.urls[:most])}"


@contextmanager
def started(engine: RunningEngine) -> Iterator[RunningEngine]:
    """
    An engine that runs.
    """
    try:
        engine.start()
        yield engine
    finally:
        engine.stop()


@contextmanager
def served(engine: RunningEngine, folder: Path) -> Iterator[Twistd]:
    """
    kvd before an engine, with two workers.
    """
    options = [
        f"--store={location(engine, DAEMON_PREFIX)}",
        "--procs=2",
        "--control=off",
    ]
    options += ["--body-timeout=2s", "--dialect=/dav/=webdav"]
    environment = {**os.environ, **engine.environment}
    with Twistd(options, folder, environment=environment) as daemon:
        yield daemon
        daemon.stop()
        print("".join(daemon.lines)[-5000:])
        assert "Traceback" not in "".join(daemon.lines)


class RealEngineCase(EngineCase):
    """
    A test case with a real engine, which takes as long as it takes.
    """

    step_seconds = turn_seconds = 0.01

    @pytest.fixture(autouse=True)
    def _with_engine(self, engine: RunningEngine) -> None:
        self.running = engine

    def setUp(self) -> None:
        super().setUp()
        self.urls[:] = self.running.urls
        self.user = self.running.environment["AWS_ACCESS_KEY_ID"]

    def make_store(self, prefix: str = "") -> ObjectStore:
        """
        A store of its own.
        """
        return super().make_store(prefix or f"tests/{os.urandom(8).hex()}/")


class RealEngineContract(contract.EngineContract, RealEngineCase):
    """
    The engine behaves as the double, but for the conditions that it does not keep.
    """


class RealStoreContract(contract.Conditions, RealEngineCase, sharing.SharedBucket):
    """
    `ObjectStore` in the engine is a store.
    """

    has_folders = False
    max_key_bytes = 980
    many_values = 30

    def setUp(self) -> None:
        self.patch(listing, "SLICE_KEYS", 10)
        super().setUp()

    def test_large_value_is_described(self) -> None:
        """
        As it is from then on.
        """
        body = os.urandom(WAITING_BYTES + 1)
        store = self.make_store()
        for created in (True, False):
            published = self.put(store, body=body)
            assert created == published.created
            assert published.info == self.result(store.stat(KEY))

    def test_create_once(self) -> None:
        """
        See `StoreContract`; or it is refused.
        """
        if Change.PUT in self.creates:
            super().test_create_once()
            return
        store = self.make_store()
        self.error(ConditionUnsupported, lambda: self.put(store, conditions=ABSENT))

    def test_compare_and_swap(self) -> None:
        """
        See `StoreContract`; or it is refused.
        """
        if Change.PUT in self.replaces:
            super().test_compare_and_swap()
            return
        store = self.make_store()
        meant = holds(self.put(store).info.etag)
        self.error(ConditionUnsupported, lambda: self.put(store, conditions=meant))

    def test_value_is_copied(self) -> None:
        """
        See `StoreContract`; or it is refused, as the copy must not replace anything.
        """
        if Change.PUT in self.creates:
            super().test_value_is_copied()
        else:
            self.error(ConditionUnsupported, super().test_value_is_copied)

    def test_remove_what_was_meant(self) -> None:
        """
        See `StoreContract`; or it is refused.
        """
        if Change.REMOVE in self.replaces:
            super().test_remove_what_was_meant()
            return
        store = self.make_store()
        meant = holds(self.put(store).info.etag)
        self.error(ConditionUnsupported, lambda: store.remove(KEY, meant))


class DaemonContract(contract.Conditions):
    """
    What a client sees of kvd over the engine.
    """

    def test_values_over_the_engine(self, daemon: Twistd) -> None:
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
            for first, count in (
                (0, 1),
                (len(body) // 2, 100),
                (len(body) // 3, 200_000),
            ):
                part = body[first : first + count]
                if part:
                    fields = {"Range": f"bytes={first}-{first + count - 1}"}
                    got = ask(daemon.port, "GET", target, fields=fields)
                    assert (206, part) == (got.status, got.body)
            etag = head.fields["etag"]
            same = ask(daemon.port, "GET", target, fields={"If-None-Match": etag})
            assert (304, b"") == (same.status, same.body)

        def lists_all() -> bool:
            listed = ask(daemon.port, "GET", "/sizes/?limit=1000").body
            keys = [json.loads(line)["key"] for line in listed.splitlines()]
            return sorted(target[1:] for target in bodies) == keys

        assert lists_all() or (
            not self.is_consistent and wait_for(lists_all, PATIENCE_SECONDS)
        )
        for target in bodies:
            assert 204 == ask(daemon.port, "DELETE", target).status
            assert 404 == ask(daemon.port, "DELETE", target).status
            assert 404 == ask(daemon.port, "GET", target).status

    def test_conditions_over_the_engine(self, daemon: Twistd) -> None:
        """
        Create once and compare-and-swap, for small values and for those that are sent
        ahead; or a sentence that the engine does not keep that.
        """
        for size in (10, 500_000):
            body, target = os.urandom(size), f"/conditions/{size}"
            once = {"If-None-Match": "*"}
            created = ask(daemon.port, "PUT", target, body, once)
            if Change.PUT in self.creates:
                assert 201 == created.status
            else:
                assert_unsupported(created, "If-None-Match for a PUT")
                assert 201 == ask(daemon.port, "PUT", target, body).status
            assert 412 == ask(daemon.port, "PUT", target, body, once).status
            etag = ask(daemon.port, "HEAD", target).fields["etag"]
            new = ask(daemon.port, "PUT", target, body, {"If-Match": etag})
            if Change.PUT in self.replaces:
                assert 204 == new.status
            else:
                assert_unsupported(new, "If-Match for a PUT")
                new = ask(daemon.port, "PUT", target, body)
            etags = etag, new.fields["etag"]
            old, current = ({"If-Match": each} for each in etags)
            for method, value in (("PUT", b""), ("DELETE", None)):
                assert 412 == ask(daemon.port, method, target, value, old).status
            got = ask(daemon.port, "GET", target)
            assert (body, new.fields["etag"]) == (got.body, got.fields["etag"])
            removed = ask(daemon.port, "DELETE", target, None, current)
            if Change.REMOVE in self.replaces:
                assert 204 == removed.status
            else:
                assert_unsupported(removed, "If-Match for a DELETE")
                assert 200 == ask(daemon.port, "GET", target).status

    def test_locks_over_the_engine(self, daemon: Twistd) -> None:
        """
        WebDAV has them where the engine keeps the conditions that they need; elsewhere
        none is offered.
        """
        keeps = Change.PUT in self.creates & self.replaces
        offered = ask(daemon.port, "OPTIONS", "/dav/").fields["dav"]
        assert ("1, 2" if keeps else "1") == offered
        locked = ask(daemon.port, "LOCK", "/dav/locked", LOCK)
        if not keeps:
            assert 501 == locked.status
            assert 201 == ask(daemon.port, "PUT", "/dav/locked", b"value").status
            return
        assert 201 == locked.status
        token = locked.fields["lock-token"]
        assert 423 == ask(daemon.port, "LOCK", "/dav/locked", LOCK).status
        assert 423 == ask(daemon.port, "PUT", "/dav/locked", b"value").status
        mine = {"If": f"({token})"}
        assert 204 == ask(daemon.port, "PUT", "/dav/locked", b"value", mine).status
        unlock = {"Lock-Token": token}
        assert 204 == ask(daemon.port, "UNLOCK", "/dav/locked", b"", unlock).status
        assert 204 == ask(daemon.port, "PUT", "/dav/locked", b"value").status

    def test_digest_over_the_engine(self, daemon: Twistd) -> None:
        """
        One that does not match publishes nothing.
        """
        for size in (10, 500_000):
            target = f"/digests/{size}"
            ask(daemon.port, "PUT", target, b"old")
            wrong = {"Content-Digest": f"sha-256=:{b64encode(bytes(32)).decode()}:"}
            assert 400 == ask(daemon.port, "PUT", target, bytes(size), wrong).status
            assert b"old" == ask(daemon.port, "GET", target).body

    def test_client_that_leaves_changes_nothing(self, daemon: Twistd) -> None:
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


def ask_chunked(port: int, target: str, body: bytes) -> Reply:
    """
    Store a body of unknown length.
    """
    pieces = [body[at : at + 100_000] for at in range(0, len(body), 100_000)]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    fields = {"Transfer-Encoding": "chunked"}
    return ask(port, "PUT", target, chunks + b"0\r\n\r\n", fields)


def assert_unsupported(reply: Reply, what: str) -> None:
    """
    A reply says that the engine does not keep a condition.
    """
    assert 501 == reply.status
    assert f"does not keep {what}" in reply.body.decode()
