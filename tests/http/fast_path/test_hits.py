"""
Tests for `kvd.http.hits`: values of another store that are in a near cache.
"""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from kvd.errors import KeyAbsent
from kvd.http.connection import HttpConnection
from kvd.http.context import ProcessContext
from kvd.http.dialects.choice import Dialects
from kvd.http.fast_path import REMAINS, SERVED
from kvd.http.templates import fast_path_to
from kvd.interfaces import ICachedValue, IValue
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.model.values import Metadata, ValueInfo
from kvd.near import store as near_store
from kvd.near.store import NearStore
from kvd.net.transport import ServerTransport
from kvd.settings import Limits
from kvd.store.contract.asking import T
from kvd.store.file import FileStore
from kvd.testing import MemoryStore
from tests.http.fast_path.cases import (
    FastPathCase,
    body_of,
    field,
    get,
    head,
    put,
    without_date,
)
from tests.http.fast_path.test_leaks import LeakCase
from tests.stepped import SteppedReactor, connect
from tests.store.cases import FileStoreCase

HIT = "kvd; hit"
FRESH_SECONDS = 10.0


class HitCase(FastPathCase):
    """
    FastPath to a near cache.
    """

    def setUp(self) -> None:
        self.reactor = SteppedReactor()
        self.addCleanup(self.reactor.dispose)
        super().setUp()

    def make_process(self, store: FileStore) -> ProcessContext:
        """
        The store is the cache of one in memory.
        """
        self.origin = MemoryStore()
        self.caching = NearStore(self.origin, store, FRESH_SECONDS, self.reactor)
        return ProcessContext(self.caching, Dialects(()), self.limits, self.reactor)

    def wait_for(self, answer: Deferred[T]) -> None:
        """
        A value gets into the cache in several turns of the reactor.
        """
        for _ in range(60):
            if answer.called:
                return
            self.reactor.settle()

    def keep(self, key: str, body: bytes, metadata: Metadata | None = None) -> str:
        """
        Have a value in the store, and in the cache.
        """
        upload = self.result(
            self.caching.begin(Key(key.encode()), len(body), metadata or {})
        )
        if body:
            self.result(upload.write(body))
        info = self.result(upload.commit(UNCONDITIONAL)).info
        for _ in range(2):
            self.read(key)
        assert isinstance(info, ValueInfo)
        return info.etag

    def read(self, key: str) -> str:
        """
        Read a value as Python does; where it came from.
        """
        value: IValue = self.result(self.caching.open(Key(key.encode())))
        done = 0
        while done < value.info.size:
            done += len(self.result(value.read(done, 1 << 20)))
        status = ICachedValue(value).cache_status
        value.close()
        self.reactor.settle()
        return status

    def ordinary(self, request: bytes) -> bytes:
        """
        The reply without the fast path.
        """
        fast_path, self.process.fast_path = self.process.fast_path, None
        client = connect(self.reactor, HttpConnection(self.process))
        reply = client.send(request).receive()
        client.socket.close()
        self.reactor.settle()
        self.process.fast_path = fast_path
        return reply

    def files(self) -> list[Path]:
        """
        What is in the cache.
        """
        return [
            path
            for path in Path(self.path).rglob("*")
            if path.is_file() and ".kvd" not in path.parts
        ]


class HitTests(HitCase):
    """
    A key whose value is in the cache is served from there.
    """

    def test_replies_are_the_same_as_without_it(self) -> None:
        """
        To whatever is asked, of a value that is in memory, in a file, or empty.
        """
        seed = random.randrange(1 << 32)
        print(f"{seed=}")
        chance = random.Random(seed)
        for size in (0, 5, 4096, 16_385, 70_000):
            for metadata in (
                {},
                {"content-type": "text/plain", "cache-control": "max-age=90071992"},
                {"content-language": "4096", "content-encoding": "gzip"},
            ):
                content = chance.randbytes(size)
                tag = self.keep("a/k", content, metadata).encode()
                for fields in (
                    b"",
                    b"",
                    b"Range: bytes=1-3\r\n",
                    b"Range: bytes=-2000\r\n",
                    b'If-None-Match: "%b"\r\n' % tag,
                    b'If-None-Match: "other"\r\n',
                    b'If-Match: "%b"\r\n' % tag,
                    b"If-Modified-Since: Fri, 31 Dec 2100 00:00:00 GMT\r\n",
                    b'If-Range: "%b"\r\nRange: bytes=0-0\r\n' % tag,
                    b"Connection: close\r\n",
                ):
                    for request in (get("a/k", fields), head("a/k", fields)):
                        self.near, self.far = self.pair()
                        if self.serve(request) == request:
                            # An empty value has no parts.
                            assert size == 0
                            continue
                        reply = self.reply()
                        assert HIT == field(reply, "Cache-Status")
                        expected = self.ordinary(request)
                        assert without_date(expected) == without_date(reply)
                        if request.startswith(b"GET") and b"200 OK" in reply:
                            assert content == body_of(reply)

    def test_each_is_counted_and_reported(self) -> None:
        """
        As any other request.
        """
        self.keep("k", b"value")
        self.report()
        for _ in range(3):
            self.served(get("k"))
        reports = self.reported()
        assert [("GET", "/k", 200, 5)] * 3 == [report[5:9] for report in reports]

    def test_python_serves_what_is_not_known(self) -> None:
        """
        A key that nobody has asked for, or that has no value; and all that changes one.
        """
        self.keep("k", b"value")
        self.assert_left(get("other"))
        self.assert_left(put("k", b"other"))
        self.assert_left(get("k", b"Range: bytes=9-\r\n"))

    def test_the_store_is_asked_again_in_time(self) -> None:
        """
        Not before; then the key is served for as long again.
        """
        self.keep("k", b"value")
        self.reactor.advance(FRESH_SECONDS - 0.01)
        assert b"value" == body_of(self.served(get("k")))
        self.reactor.advance(0.02)
        self.assert_left(get("k"))
        assert "kvd; fwd=stale; fwd-status=304" == self.read("k")
        assert b"value" == body_of(self.served(get("k")))

    def test_a_change_is_noticed_at_once(self) -> None:
        """
        If this process makes it, or hears of it.
        """

        def store() -> None:
            upload = self.result(self.caching.begin(Key(b"k"), 0))
            self.result(upload.commit(UNCONDITIONAL))

        def remove() -> None:
            self.result(self.caching.remove(Key(b"k"), UNCONDITIONAL))

        def hear_of_another() -> None:
            upload = self.result(self.origin.begin(Key(b"k"), 0))
            self.result(upload.commit(UNCONDITIONAL))
            self.result(self.caching.stat(Key(b"k")))

        def hear_of_none() -> None:
            self.result(self.origin.remove(Key(b"k"), UNCONDITIONAL))
            with self.assertRaises(KeyAbsent):  # noqa: PT027  # trial runs it too
                self.result(self.caching.stat(Key(b"k")))

        for change in (store, remove, hear_of_another, hear_of_none):
            self.keep("k", b"value")
            self.served(get("k"))
            change()
            self.assert_left(get("k"))

    def test_as_many_keys_as_the_process_remembers(self) -> None:
        """
        The others are left to Python.
        """
        with mock.patch.object(near_store, "MOST_KNOWN", 2):
            for key in ("a", "b", "c"):
                self.keep(key, b"value")
        self.served(get("b"))
        self.served(get("c"))
        self.assert_left(get("a"))

    def test_a_file_that_is_not_the_one_that_was_found(self) -> None:
        """
        Python looks at it: whether it is gone, shortened, touched, or another one.
        """

        def replace(path: str) -> None:
            other = path + "-other"
            said = os.getxattr(path, "user.kvd")
            status = os.stat(path)
            shutil.copy(path, other)
            changed = said.replace(said[2:34], b"f" * 32)
            os.setxattr(other, "user.kvd", changed)
            os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
            os.rename(other, path)

        for number, damage in enumerate(
            (
                os.unlink,
                lambda path: os.truncate(path, 3),
                lambda path: os.utime(path, (1, 1)),
                lambda path: os.removexattr(path, "user.kvd"),
                replace,
            )
        ):
            for reads in (0, 3):
                key = f"{number}/{reads}"
                before = set(self.files())
                self.keep(key, b"value")
                for _ in range(reads):
                    assert b"value" == body_of(self.served(get(key)))
                (path,) = set(self.files()) - before
                damage(str(path))
                assert get(key) == self.serve(get(key))
                assert b"value" == body_of(self.ordinary(get(key)))
                self.reactor.settle()

    def test_a_value_that_replies_cannot_describe(self) -> None:
        """
        Is left to Python: one of another program, or of before 1970.
        """
        described = self.keep("k", b"value")
        info = self.result(self.caching.stat(Key(b"k")))
        self.read("k")
        assert described == info.etag
        self.served(get("k"))
        hits = self.caching.hits
        assert hits is not None
        for odd in (
            ValueInfo(info.key, 5, "short", info.changed),
            ValueInfo(info.key, 5, "é" * 32, info.changed),
            ValueInfo(info.key, 5, info.etag, -1.0),
            ValueInfo(info.key, 5, info.etag, 1e12),
            ValueInfo(info.key, 5, info.etag, 1.0, {"content-type": "a\nb"}),
        ):
            hits.withdraw(info.key)
            hits.offer(odd, info, 1e9, HIT)
            self.assert_left(get("k"))


class RestTests(HitCase):
    """
    A reply that the socket does not take at once.
    """

    def test_the_rest_comes_from_the_store_if_the_file_cannot_be_read(self) -> None:
        """
        The client notices nothing, and the cache loses the file.
        """
        content = random.Random(3).randbytes(3_000_000)
        for fails in (False, True):
            self.keep("k", content)
            client = connect(self.reactor, HttpConnection(self.process))
            acts = OSError if fails else ServerTransport.send_file
            with mock.patch.object(
                ServerTransport, "send_file", autospec=True, side_effect=acts
            ) as sent:
                reply = client.send(get("k")).receive()
            assert sent.called
            assert content == body_of(reply)
            assert HIT == field(reply, "Cache-Status")
            client.socket.close()
            self.reactor.settle()
        assert 1 == len(self.files()), "that of the first value"

    def test_a_rest_that_nobody_takes_is_dropped(self) -> None:
        """
        With its file.
        """
        self.keep("k", bytes(3_000_000))
        assert SERVED | REMAINS == self.serve(get("k"))
        rest = self.fast_path.take_remainder()
        os.close(rest.descriptor)
        assert rest.hit is not None
        assert Key(b"k") == rest.hit.key
        self.near, self.far = self.pair()
        assert SERVED | REMAINS == self.serve(get("k"))


@pytest.mark.untraced
class LeakTests(HitCase, LeakCase):
    """
    Nothing grows with the number of requests.
    """

    def test_hits(self) -> None:
        """
        Of one key; and offers that come and go.
        """
        self.keep("k", bytes(1000))
        self.assert_steady(lambda _: self.served(get("k")))
        info = self.result(self.caching.stat(Key(b"k")))
        hits = self.caching.hits
        assert hits is not None

        def offer(number: int) -> None:
            key = Key(b"%d" % number)
            for _ in range(2):
                hits.offer(replace(info, key=key), info, 1e9, HIT)
            hits.withdraw(key)

        self.assert_steady(offer)


class OfferTests(FileStoreCase):
    """
    What the compiled module refuses.
    """

    def test_offers_that_it_cannot_serve(self) -> None:
        """
        Each is a mistake of kvd.
        """
        near = NearStore(MemoryStore(), self.open_store(), 1.0, Clock())
        process = ProcessContext(near, Dialects(()), Limits(), Clock())
        made: Any = fast_path_to(process)
        assert made is not None
        parts = tuple((b"",) * count for count in (5, 8, 4))
        good: list[Any] = [b"k", b"n", "0" * 32, 1.0, "1" * 32, 1, parts, None]
        made.offer(*good)
        for place, bad, error in (
            (2, "0", ValueError),
            (4, "1" * 33, ValueError),
            (5, -1, ValueError),
            (5, 1 << 50, ValueError),
            (6, (), TypeError),
            (6, parts[:2], TypeError),
            (0, "k", TypeError),
        ):
            args = list(good)
            args[place] = bad
            with self.assertRaises(error):  # noqa: PT027  # trial runs it too
                made.offer(*args)
        made.withdraw(b"k")
        made.withdraw(b"k")

    def test_there_is_one_for_a_cache_in_files(self) -> None:
        """
        No other.
        """
        near = NearStore(MemoryStore(), MemoryStore(), 1.0, Clock())
        process = ProcessContext(near, Dialects(()), Limits(), Clock())
        assert None is fast_path_to(process)
        assert None is near.hits
