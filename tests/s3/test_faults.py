"""
Engines that fail, and what the client hears.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Address
from typing import Any, cast
from unittest import mock

from cryptography import x509
from twisted.internet import ssl, tcp
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols import tls
from twisted.python.failure import Failure
from twisted.web.server import Site

from kvd.client.connecting import ClientTLS
from kvd.errors import (
    ConditionUnsupported,
    EngineFailed,
    EngineSilent,
    EngineUnavailable,
    PreconditionFailed,
    StoreFault,
    StoreFull,
)
from kvd.interfaces import IStreamedUpload
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.s3 import multipart_upload
from kvd.s3.connections import IDLE_SECONDS
from kvd.s3.endpoints import Endpoints
from kvd.s3.engine import ATTEMPTS
from kvd.s3.health import CHECK_SECONDS
from kvd.s3.requests import Ask
from kvd.s3.store import ObjectStore
from kvd.s3.value import HEAD_BYTES
from kvd.store.contract.asking import ABSENT, KEY, Asking, holds
from tests.certificates import Certificate, authority, make_certificate
from tests.ports import unused_port
from tests.s3.cases import EngineCase
from tests.s3.memory_engine import MemoryEngine, Object, Refusal

LARGE = bytes(range(256)) * 4400
"""
More than waits for its last byte.
"""


class Said(Protocol):
    """
    Answers each request with the same bytes, and may close then.
    """

    def dataReceived(self, data: bytes) -> None:
        factory, transport = cast(Any, self.factory), cast(Any, self.transport)
        factory.count += 1
        factory.heard.append(data)
        transport.write(factory.said)
        if factory.closes:
            transport.loseConnection()


def saying(said: bytes, *, closes: bool) -> Any:
    """
    A factory of `Said`, with what its protocols have heard.
    """
    factory: Any = Factory.forProtocol(Said)
    factory.noisy, factory.count, factory.heard = False, 0, []
    factory.said, factory.closes = said, closes
    return factory


class FaultCase(EngineCase, Asking):
    """
    Stores over engines that fail.
    """

    def say(self, said: bytes, *, closes: bool = True) -> Any:
        """
        Have all requests answered with the same bytes.
        """
        factory = saying(said, closes=closes)
        self.urls[:] = [self.listen(factory)]
        return factory

    def ask_everything(self, kind: type[Exception]) -> set[str]:
        """
        The sentences with which all requests to a store fail.
        """
        store = self.make_store()
        asked = [
            lambda: store.open(KEY),
            lambda: store.stat(KEY),
            lambda: self.put(store),
            lambda: store.remove(KEY, UNCONDITIONAL),
            lambda: store.list(b"", b"", 10).next_slice(),
            lambda: self.put_large(store),
        ]
        return {self.error(kind, ask) for ask in asked}

    def put_large(self, store: ObjectStore) -> None:
        """
        Store a value that is sent ahead.
        """
        upload = self.begin(store, KEY, len(LARGE))
        assert IStreamedUpload.providedBy(upload)
        try:
            for at in range(0, len(LARGE), 65536):
                self.result(upload.write(LARGE[at : at + 65536]))
        except BaseException:
            upload.discard()
            raise
        self.result(upload.commit(UNCONDITIONAL))


class UnreachableTests(FaultCase):
    """
    Engines that do not answer.
    """

    def test_engine_that_refuses_connections(self) -> None:
        """
        503 for everything, with the system's reason.
        """
        self.urls[:] = [f"http://127.0.0.1:{unused_port()}"]

        assert {"The engine cannot be reached: Connection refused."} == (
            self.ask_everything(EngineUnavailable)
        )

    def test_engine_that_hangs(self) -> None:
        """
        504 for everything after the timeout; nothing is tried twice.
        """
        factory = self.say(b"", closes=False)

        (said,) = self.ask_everything(EngineSilent)
        assert "no byte moved for 30 seconds" in said
        assert factory.count < 100

    def test_engine_that_hangs_in_a_value(self) -> None:
        """
        504 too.
        """
        self.say(
            b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-9/10\r\n"
            b'ETag: "tag"\r\nContent-Length: 10\r\n\r\nhalf',
            closes=False,
        )
        store = self.make_store()

        assert "in the middle of a value" in self.error(
            EngineSilent, lambda: store.open(KEY)
        )

    def test_engine_that_breaks_off(self) -> None:
        """
        502 for everything, after some attempts.
        """
        factory = self.say(b"")

        assert {"The engine ended the connection before it answered."} == (
            self.ask_everything(EngineFailed)
        )
        assert factory.count > ATTEMPTS

    def test_engine_that_breaks_off_in_a_value(self) -> None:
        """
        502: nothing is given out for the whole.
        """
        self.say(
            b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-9/10\r\n"
            b'ETag: "tag"\r\nContent-Length: 10\r\n\r\nhalf'
        )
        store = self.make_store()

        assert "broke off" in self.error(EngineFailed, lambda: store.open(KEY))

    def test_engine_that_does_not_say_how_long_a_value_is(self) -> None:
        """
        500, and no connection stays for a body that nobody reads.
        """
        factory = self.say(
            b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-199999/*\r\n"
            b'ETag: "tag"\r\nContent-Length: 200000\r\n\r\n' + bytes(200_000),
            closes=False,
        )
        store = self.make_store()

        for _ in range(3):
            assert "how long" in self.error(StoreFault, lambda: store.open(KEY))
        self.reactor.settle()
        assert 3 == factory.count
        kinds = [type(each) for each in self.reactor.getReaders()]
        assert tcp.Server not in kinds

    def test_engine_that_sends_another_part_of_a_value(self) -> None:
        """
        500: it is not taken for the one that was asked for.
        """
        factory = self.say(
            b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-65535/65546\r\n"
            b'ETag: "tag"\r\nContent-Length: 65536\r\n\r\n' + bytes(65536),
            closes=False,
        )
        value = self.value(self.make_store())
        factory.said = (
            b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-9/65546\r\n"
            b'ETag: "tag"\r\nContent-Length: 10\r\n\r\n0123456789'
        )

        said = self.error(StoreFault, lambda: value.read(65536, 10))
        assert "from 0 on" in said

        factory.said = factory.said.replace(b"bytes 0-9/65546", b"bytes 5-14/65546")
        said = self.error(StoreFault, lambda: self.make_store().open(KEY))
        assert "from 5 on" in said

    def test_engine_that_sends_more_of_a_value(self) -> None:
        """
        500, rather than all of it in memory; and no connection stays for the rest.
        """
        size = 1_000_000
        head = b'HTTP/1.1 206 Partial Content\r\nETag: "tag"\r\n'
        head += b"Content-Range: bytes 0-%d/1000000\r\n%b\r\n"
        for last, length in (
            (size - 1, b"Content-Length: %d\r\n" % size),
            (size - 1, b"Transfer-Encoding: chunked\r\n\r\n%x" % size),
            (65_535, b"Content-Length: %d\r\n" % size),
            (65_535, b"Transfer-Encoding: chunked\r\n\r\n%x" % size),
        ):
            self.say(head % (last, length) + bytes(size), closes=False)
            store = self.make_store()

            assert "more" in self.error(StoreFault, partial(store.open, KEY))
            self.reactor.settle()
            kinds = [type(each) for each in self.reactor.getReaders()]
            assert tcp.Server not in kinds

    def test_rest_of_a_value_that_is_longer(self) -> None:
        """
        The same, where a part was asked for.
        """
        factory = self.say(
            b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-65535/200000\r\n"
            b'ETag: "tag"\r\nContent-Length: 65536\r\n\r\n' + bytes(65536),
            closes=False,
        )
        value = self.value(self.make_store())
        factory.said = (
            b"HTTP/1.1 206 Partial Content\r\n"
            b"Content-Range: bytes 65536-199999/200000\r\n"
            b'ETag: "tag"\r\nContent-Length: 134464\r\n\r\n' + bytes(134464)
        )

        assert "more" in self.error(StoreFault, partial(value.read, 65536, 10))
        self.reactor.settle()
        assert tcp.Server not in [type(each) for each in self.reactor.getReaders()]

    def test_something_else_that_answers(self) -> None:
        """
        502, for what speaks HTTP and for what does not.
        """
        self.say(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n<a>", closes=False)
        store = self.make_store()
        listed = store.list(b"", b"", 10)
        assert "no XML" in self.error(EngineFailed, listed.next_slice)
        # All have an entity tag.
        asked: list[Callable[[], Any]] = [
            partial(self.put, store),
            partial(self.put_large, store),
            partial(store.open, KEY),
            partial(store.open, KEY, whole=True),
            partial(store.stat, KEY),
        ]
        for ask in asked:
            assert "no entity tag" in self.error(EngineFailed, ask)

        self.say(b"SSH-2.0-OpenSSH\r\n", closes=False)
        self.error(EngineFailed, lambda: self.make_store().open(KEY))

    def test_something_else_does_not_work(self) -> None:
        """
        That it answers is no sign: it is left alone for longer each time.
        """
        self.say(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", closes=False)
        store = self.make_store()
        with (
            mock.patch.object(Endpoints, "worked") as worked,
            mock.patch.object(Endpoints, "failed") as failed,
        ):
            self.error(EngineFailed, lambda: store.open(KEY))

        assert 0 == worked.call_count
        assert ATTEMPTS == failed.call_count


class IdleTests(FaultCase):
    """
    Connections that wait for the next request.
    """

    def test_they_end_before_the_engine_ends_them(self) -> None:
        """
        A request that crosses with that would fail.
        """
        self.put(self.make_store())
        assert self.connections()
        self.reactor.advance(IDLE_SECONDS - 1)
        assert self.connections()
        for _ in range(3):
            self.reactor.advance(1)
        assert not self.connections()

    def connections(self) -> int:
        """
        How many there are to the engine.
        """
        return sum(isinstance(each, tcp.Client) for each in self.reactor.getReaders())


class FailingTests(FaultCase):
    """
    Engines that answer that they fail.
    """

    def fail_always(self, status: int, code: str) -> None:
        """
        All requests fail.
        """
        self.memory.fail_next = [(status, code)] * 1000

    def test_busy_engine(self) -> None:
        """
        503 for everything that has been tried often enough.
        """
        self.fail_always(503, "SlowDown")
        said = self.ask_everything(EngineUnavailable)

        assert all("busy (503" in sentence for sentence in said)

    def test_failing_engine(self) -> None:
        """
        502.
        """
        self.fail_always(500, "InternalError")
        said = self.ask_everything(EngineFailed)

        assert all("The engine failed (500" in sentence for sentence in said)

    def test_full_engine(self) -> None:
        """
        507, and the old value stays.
        """
        store = self.make_store()
        self.put(store, body=b"old")
        self.memory.fail_only = "PUT"
        self.memory.fail_next = [(403, "QuotaExceeded")] * 2
        self.error(StoreFull, lambda: self.put(store))
        self.error(StoreFull, lambda: self.put_large(store))

        assert b"old" == self.get(store)

    def test_last_attempt_alone_is_told(self) -> None:
        """
        What went wrong in the attempts before it is in the log, and no context of its
        error: a traceback would have both, as if one had led to the other.
        """
        self.memory.fail_next = [(503, "SlowDown"), (403, "AccessDenied")]
        asked = Deferred.fromCoroutine(self.make_engine().ask(Ask("GET", "key")))
        self.wait_for(asked)
        error = self.failureResultOf(asked).value

        assert isinstance(error, StoreFault)
        assert error.__context__ is None

    def test_wrong_credentials(self) -> None:
        """
        500, with what to look at.
        """
        store = ObjectStore(self.make_engine(secret="other"), "")
        said = self.error(StoreFault, lambda: self.put(store))

        assert "refuses kvd's credentials (403" in said
        assert "may read, write, delete and list in 'values'" in said

    def test_clock_that_is_wrong(self) -> None:
        """
        500, with the difference.
        """
        self.memory.now = lambda: time.time() + 20 * 60
        store = self.make_store()
        said = self.error(StoreFault, lambda: store.open(KEY))

        assert "because the clocks differ" in said
        assert "(403 RequestTimeTooSkewed)" in said

    def test_absent_bucket(self) -> None:
        """
        500: not the same as an absent value.
        """
        store = ObjectStore(self.make_engine(bucket="absent"), "")

        for ask in (lambda: store.open(KEY), lambda: self.put(store)):
            assert "has no bucket 'absent'" in self.error(StoreFault, ask)

    def test_nothing_is_acknowledged_that_failed(self) -> None:
        """
        Engines fail at random; what was acknowledged is there, and nothing torn.
        """
        store = self.make_store()
        acknowledged: dict[bytes, bytes] = {}
        for number in range(40):
            failures = self.random.choice([0, 0, 1, 2, 5])
            self.memory.fail_next = [
                self.random.choice([(500, ""), (503, "SlowDown"), (507, "")])
                for _ in range(failures)
            ]
            body = b"%d" % number * self.random.choice([1, 1000])
            try:
                self.put(store, KEY, body)
            except StoreFault:
                continue
            except StoreFull:
                continue
            acknowledged[KEY] = body
            self.memory.fail_next = []
            assert body == self.get(store)

        assert acknowledged


class RefusedRequestsTests(FaultCase):
    """
    Requests side by side that are refused.
    """

    def test_connections_serve_the_next_requests(self) -> None:
        """
        None is closed when its next request is on its way.
        """
        engine = self.make_engine()
        self.memory.objects["tests/key"] = Object(b"old", {}, '"tag"', 0.0)
        count = 4

        async def ask() -> None:
            for _ in range(10):
                reply = await engine.ask(
                    Ask(
                        "PUT",
                        "tests/key",
                        fields={"if-none-match": "*"},
                        expected=frozenset({412}),
                    )
                )
                engine.dismiss(reply)

        asked = [Deferred.fromCoroutine(ask()) for _ in range(count)]
        self.finish(gatherResults(asked))

        assert 10 * count == len(self.memory.seen)


class CookieTests(FaultCase):
    """
    Engines, and balancers before them, that set cookies.
    """

    def test_none_comes_back(self) -> None:
        """
        What one request was told is not said by the next.
        """
        factory = self.say(
            b'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Length: 5\r\n'
            b"Set-Cookie: told=secret; Path=/\r\n\r\nvalue",
            closes=False,
        )
        engine = self.make_engine()
        for _ in range(3):
            asked = Deferred.fromCoroutine(engine.ask(Ask("GET", "key")))
            engine.dismiss(self.finish(asked))
            self.reactor.settle()

        assert 3 == len(factory.heard)
        for head in factory.heard:
            assert b"cookie" not in head.lower()
            assert 1 == head.count(b"\r\nHost: 127.0.0.1:")


class ConditionTests(FaultCase):
    """
    Engines that do not keep conditions.
    """

    def test_create_once_is_refused(self) -> None:
        """
        501 where several writers would win; other conditions are kept.
        """
        self.memory.ignored = {("PUT", "if-none-match")}
        store = self.make_store()
        said = self.error(
            ConditionUnsupported, lambda: self.put(store, conditions=ABSENT)
        )

        assert "does not keep If-None-Match for a PUT" in said
        assert {} == self.memory.objects
        etag = self.put(store).info.etag
        self.put(store, body=b"new", conditions=holds(etag))

    def test_compare_and_swap_is_refused(self) -> None:
        """
        501 for PUT and DELETE.
        """
        self.memory.ignored = {("PUT", "if-match"), ("DELETE", "if-match")}
        store = self.make_store()
        etag = self.put(store, conditions=ABSENT).info.etag

        for ask in (
            lambda: self.put(store, conditions=holds(etag)),
            lambda: store.remove(KEY, holds(etag)),
        ):
            assert "does not keep If-Match" in self.error(ConditionUnsupported, ask)
        assert b"value" == self.get(store)

    def test_removal_is_refused_where_nothing_is_replaced(self) -> None:
        """
        An engine that compares only before it removes, as Swift does, takes what comes
        meanwhile with it.
        """
        self.memory.ignored = {("PUT", "if-match")}
        store = self.make_store()
        etag = self.put(store).info.etag
        said = self.error(ConditionUnsupported, lambda: store.remove(KEY, holds(etag)))

        assert "does not keep If-Match for a DELETE" in said
        assert b"value" == self.get(store)

    def test_the_store_says_whether_it_keeps_both(self) -> None:
        """
        So that nothing is offered that needs them; tags may need to be bare.
        """
        none = set[tuple[str, str]]()
        for ignored, bare, kept in (
            (none, False, True),
            (none, True, True),
            ({("PUT", "if-none-match")}, False, False),
            ({("PUT", "if-match")}, False, False),
            ({("DELETE", "if-match")}, False, True),
        ):
            self.memory.ignored, self.memory.bare_tags = ignored, bare
            store = self.make_store()
            answer = store.keeps_conditions()
            assert isinstance(answer, Deferred)
            assert (ignored, kept) == (ignored, self.finish(answer))

    def test_tags_without_quotes(self) -> None:
        """
        Some engines take no others.
        """
        self.memory.bare_tags = True
        store = self.make_store()
        etag = self.put(store).info.etag
        etag = self.put(store, body=b"new", conditions=holds(etag)).info.etag
        self.result(store.remove(KEY, holds(etag)))

    def test_lost_reply_is_no_reason_to_refuse(self) -> None:
        """
        The winner of the trial asks again, and hears that somebody has won.
        """
        self.memory.lose_next = 1
        store = self.make_store()

        assert self.put(store, conditions=ABSENT).created

    def test_loser_hears_of_a_failure(self) -> None:
        """
        From Ceph, which says 500 where another client came before. The condition does
        not hold then, and the gateway is not to blame.
        """
        self.memory.conflict = Refusal(500, "UnknownError")
        store = self.make_store()
        self.put(store, conditions=ABSENT)
        for body in (b"late", LARGE):
            key = Key(b"%d" % len(body))
            upload = self.begin(store, key, len(body), conditions=ABSENT)
            for at in range(0, len(body), 65_536):
                self.result(upload.write(body[at : at + 65_536]))
            answer = upload.commit(ABSENT)
            # Later than the look at the old value.
            while ("HEAD", f"tests/{len(body)}") not in self.memory.seen[-1:]:
                self.reactor.settle(1)
            self.memory._store(f"tests/{len(body)}", b"first", {}, '"tag"')
            self.error(PreconditionFailed, lambda: answer)  # noqa: B023
            assert b"first" == self.get(store, key)

    def test_failed_trial_is_repeated(self) -> None:
        """
        What an engine keeps cannot be known while it is away.
        """
        store = self.make_store()
        self.memory.fail_only = "PUT"
        self.memory.fail_next = [(507, "")]
        self.error(StoreFull, lambda: self.put(store, conditions=ABSENT))
        self.memory.fail_next = []
        store.start()

        assert self.put(store, conditions=ABSENT).created


class EndpointsTests(FaultCase):
    """
    Several gateways.
    """

    def setUp(self) -> None:
        super().setUp()
        self.second = MemoryEngine()
        self.second.objects = self.memory.objects
        self.urls.append(self.serve(self.second))

    def test_all_gateways_serve(self) -> None:
        """
        Requests go to all of them.
        """
        store = self.make_store()
        for _ in range(4):
            self.put(store)

        assert self.memory.seen
        assert self.second.seen

    def test_parts_are_sent_where_the_upload_began(self) -> None:
        """
        The other one may not have heard of the upload yet.
        """
        self.patch(multipart_upload, "PART_BYTES", len(LARGE) // 4)
        store = self.make_store()
        for upload in (self.begin(store), self.begin(store)):
            for at in range(0, len(LARGE), 65_536):
                self.result(upload.write(LARGE[at : at + 65_536]))
            if not self.memory.objects:
                self.result(upload.commit(UNCONDITIONAL))
                assert LARGE == self.get(store)
        upload.discard()
        self.reactor.settle(50)

        assert {} == self.memory.uploads == self.second.uploads

    def test_store_may_be_closed_twice(self) -> None:
        """
        As with one gateway.
        """
        store = self.make_store()
        for _ in range(2):
            self.result(store.close())

    def test_gateway_that_is_gone(self) -> None:
        """
        Nobody notices, not even a large value.
        """
        self.urls[0] = f"http://127.0.0.1:{unused_port()}"
        store = self.make_store()
        for _ in range(3):
            self.put(store)
            self.put_large(store)

        assert LARGE == self.get(store)

    def test_gateway_that_ends_all_connections(self) -> None:
        """
        A large value cannot be sent again by kvd. Its client sends it again, to the
        other gateway.
        """
        said = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        factory = saying(said, closes=False)
        self.urls[0] = self.listen(factory)
        store = self.make_store()
        self.reactor.settle(20)
        factory.said, factory.closes = b"", True
        failed = 0
        for _ in range(8):
            try:
                self.put_large(store)
            except EngineFailed:
                failed += 1

        assert failed <= 1
        assert LARGE == self.get(store)

    def test_gateway_that_answers_with_failures(self) -> None:
        """
        It is asked again, and then another one.
        """
        self.memory.fail_next = [(500, "InternalError")] * 1000
        store = self.make_store()
        for number in range(8):
            self.put(store, Key(b"%d" % number))

        assert 8 <= len(self.memory.objects)

    def test_rest_of_a_value_comes_from_where_it_began(self) -> None:
        """
        The other one may not have heard of the value yet.
        """
        store = self.make_store()
        self.put_large(store)
        for _ in range(2):
            before = len(self.memory.seen)
            value = self.result(store.open(KEY))
            other = self.second if len(self.memory.seen) > before else self.memory
            with mock.patch.object(other, "objects", {}):
                assert LARGE[70_000:70_010] == self.result(value.read(70_000, 10))
            value.close()
            # The next one begins at the other gateway.
            self.result(store.stat(KEY))

    def test_gateway_that_returns_behind_a_balancer(self) -> None:
        """
        A balancer of connections leaves those that it has where they are; a new one
        shows that there is a gateway that answers.
        """
        failure, success = (
            b"HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n" % status
            for status in (b"503 Service Unavailable", b"200 OK")
        )

        class Pinned(Protocol):
            def connectionMade(self) -> None:
                self.said = cast(Any, self.factory).said

            def dataReceived(self, data: bytes) -> None:
                cast(Any, self.transport).write(self.said)

        factory: Any = Factory.forProtocol(Pinned)
        factory.noisy, factory.said = False, failure
        self.urls[0] = self.listen(factory)
        pinned, _ = self.make_engine()._endpoints.all
        self.reactor.settle(20)
        assert pinned.failures
        factory.said = success
        self.reactor.advance(CHECK_SECONDS)
        self.reactor.settle(20)

        assert not pinned.failures

    def test_gateway_that_hangs_is_left_alone(self) -> None:
        """
        It is asked every few seconds, and requests go to the other one.
        """
        factory = saying(b"", closes=False)
        self.urls[0] = self.listen(factory)
        store = self.make_store()
        self.reactor.settle(20)
        for _ in range(10):
            self.reactor.advance(1.0)

        for _ in range(5):
            self.put(store)
        assert b"value" == self.get(store)


class TLSTests(FaultCase):
    """
    An engine that speaks TLS.
    """

    def setUp(self) -> None:
        super().setUp()
        # Twisted flushes what was encrypted in a turn of the reactor that is installed.
        self.patch(tls, "_get_default_clock", lambda: self.reactor)

    def serve_tls(self, certificate: Certificate) -> None:
        """
        Serve the engine over TLS.
        """
        # Twisted's annotations name what pyOpenSSL takes no more.
        shown: dict[str, Any] = {
            "privateKey": certificate.key,
            "certificate": certificate.certificate,
        }
        options = ssl.CertificateOptions(**shown)
        site = Site(self.memory, reactor=self.reactor)
        site.noisy = False
        port = self.reactor.listenSSL(0, site, options, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.urls[:] = [f"https://127.0.0.1:{port.getHost().port}"]

    def made(self, name: x509.GeneralName) -> Certificate:
        """
        A certificate of the authority.
        """
        return make_certificate(None, authority(), [name])

    def test_own_authority(self) -> None:
        """
        Values come and go, of any size.
        """
        self.tls = ClientTLS(authority().cert_pem.encode())
        self.serve_tls(self.made(x509.IPAddress(IPv4Address("127.0.0.1"))))
        store = self.make_store()
        self.put(store)
        assert b"value" == self.get(store)
        self.put_large(store)
        assert LARGE == self.get(store)

    def test_one_context_for_all_requests(self) -> None:
        """
        Not one for each, with all authorities.
        """
        self.tls = ClientTLS(authority().cert_pem.encode())
        self.serve_tls(self.made(x509.IPAddress(IPv4Address("127.0.0.1"))))
        store = self.make_store()
        with mock.patch.object(
            ssl, "optionsForClientTLS", wraps=ssl.optionsForClientTLS
        ) as made:
            self.put(store)
            for _ in range(3):
                assert b"value" == self.get(store)

        assert 1 == made.call_count

    def test_nothing_goes_past_the_encryption(self) -> None:
        """
        There is no socket to which bytes can be moved.
        """
        self.tls = ClientTLS(authority().cert_pem.encode())
        self.serve_tls(self.made(x509.IPAddress(IPv4Address("127.0.0.1"))))
        store = self.make_store()
        upload = self.begin(store, KEY, len(LARGE))
        self.result(upload.write(LARGE[:1000]))
        streamed = IStreamedUpload(upload)
        assert streamed.socket() is None
        self.result(upload.write(LARGE[1000:]))
        self.result(upload.commit(UNCONDITIONAL))

        assert LARGE == self.get(store)

    def refusal(self) -> str:
        """
        What a client hears.
        """
        store = self.make_store()
        return self.error(EngineFailed, lambda: store.open(KEY))

    def test_certificate_of_another_authority(self) -> None:
        """
        Nothing is asked.
        """
        self.serve_tls(self.made(x509.IPAddress(IPv4Address("127.0.0.1"))))

        assert "shows no certificate that is trusted here" in self.refusal()
        assert [] == self.memory.seen

    def test_certificate_of_another_name(self) -> None:
        """
        Nothing is asked.
        """
        self.tls = ClientTLS(authority().cert_pem.encode())
        self.serve_tls(self.made(x509.DNSName("elsewhere.example")))

        assert "shows no certificate that is trusted here" in self.refusal()
        assert [] == self.memory.seen


class Holding(Protocol):
    """
    Answers each request with the beginning of a reply, and waits.
    """

    def connectionMade(self) -> None:
        factory = cast(Any, self.factory)
        factory.open.append(self)

    def dataReceived(self, data: bytes) -> None:
        factory = cast(Any, self.factory)
        factory.count += data.count(b"HTTP/1.1")
        cast(Any, self.transport).write(factory.said)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        cast(Any, self.factory).open.remove(self)


class HoldingCase(FaultCase):
    """
    Stores over an engine that answers as the test says.
    """

    def hold(self, said: bytes) -> Any:
        """
        Have all requests answered with the same beginning.
        """
        factory: Any = Factory.forProtocol(Holding)
        factory.noisy, factory.count, factory.open = False, 0, []
        factory.said = said
        self.urls[:] = [self.listen(factory)]
        return factory

    def part(self, first: int, last: int) -> bytes:
        """
        The head of a reply with a part of a value.
        """
        return (
            b'HTTP/1.1 206 Partial Content\r\nETag: "tag"\r\n'
            b"Content-Range: bytes %d-%d/%d\r\nContent-Length: %d\r\n\r\n"
            % (first, last, len(LARGE), last + 1 - first)
        )


class ShortTests(HoldingCase):
    """
    Replies with less of a value than was asked for.
    """

    def test_rest_of_a_value_is_asked_for_until_nothing_comes(self) -> None:
        """
        A read gives at least one byte, or fails: else its caller would read for ever.
        """
        factory = self.hold(self.part(0, HEAD_BYTES - 1) + bytes(HEAD_BYTES))
        value = self.result(self.make_store().open(KEY))
        at = HEAD_BYTES
        for _ in range(3):
            factory.said = self.part(at, at + 99) + bytes(100)
            assert bytes(100) == self.result(value.read(at, HEAD_BYTES))
            at += 100
        factory.said = self.part(at, at - 1)
        factory.count = 0

        self.error(EngineFailed, lambda: value.read(at, HEAD_BYTES))
        assert 1 == factory.count
        value.close()


class NextRequestTests(HoldingCase):
    """
    A connection serves one request after the other.
    """

    def test_it_is_free_once_the_last_bytes_are_taken(self) -> None:
        """
        A request that follows at once needs no connection of its own.
        """
        factory = self.hold(
            b'HTTP/1.1 200 OK\r\nETag: "tag"\r\nContent-Length: 5\r\n\r\n'
        )
        engine = self.make_engine()

        async def ask_and_take() -> bytes:
            reply = await engine.ask(Ask("GET", "key"))
            return await engine.take(engine.receive(reply))

        async def ask_twice() -> tuple[bytes, bytes]:
            return await ask_and_take(), await ask_and_take()

        asked = Deferred.fromCoroutine(ask_twice())
        for count in (1, 2):
            self.reactor.settle(50)
            assert count == factory.count
            assert 1 == len(factory.open)
            cast(Any, factory.open[0].transport).write(b"value")

        assert (b"value", b"value") == self.finish(asked)


class LeavingTests(HoldingCase):
    """
    Clients that leave while the engine is waited for.
    """

    def test_value_that_is_closed_before_its_rest_comes(self) -> None:
        """
        Its connection ends, whether the reply has begun or not; and the engine is not
        asked again.
        """
        rest = self.part(HEAD_BYTES, len(LARGE) - 1)
        for has_begun in (False, True):
            factory = self.hold(self.part(0, HEAD_BYTES - 1) + bytes(HEAD_BYTES))
            value = self.result(self.make_store().open(KEY))
            factory.said = rest if has_begun else b""
            read = value.read(HEAD_BYTES, HEAD_BYTES)
            assert isinstance(read, Deferred)
            self.reactor.settle(50)
            assert 2 == factory.count
            value.close()
            if not has_begun:
                cast(Any, factory.open[-1].transport).write(rest)
            self.reactor.settle(50)

            self.failureResultOf(read, CancelledError)
            assert 2 == factory.count
            assert len(factory.open) <= 1, "one that is kept for the next request"

    def test_wait_for_a_body_that_is_cancelled(self) -> None:
        """
        Its connection ends: nobody else knows of it.
        """
        for said, ask in (
            (self.part(0, HEAD_BYTES - 1), lambda store: store.open(KEY)),
            (
                b'HTTP/1.1 200 OK\r\nETag: "tag"\r\nContent-Length: 100000\r\n\r\n',
                lambda store: store.open(KEY, whole=True),
            ),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n<List",
                lambda store: store.list(b"", b"", 10).next_slice(),
            ),
            (
                b"HTTP/1.1 500 Failed\r\nContent-Length: 100000\r\n\r\n<Error",
                lambda store: store.list(b"", b"", 10).next_slice(),
            ),
        ):
            factory = self.hold(said)
            asked = ask(self.make_store())
            self.reactor.settle(50)
            assert 1 == len(factory.open)
            asked.cancel()
            self.reactor.settle(50)

            self.failureResultOf(asked, CancelledError)
            assert [] == factory.open

    def test_check_of_a_gateway_leaves_no_connection(self) -> None:
        """
        Nobody reads what it answers, which may never end.
        """
        factory = self.hold(b"HTTP/1.1 200 OK\r\n\r\n<Never")
        self.urls.append(self.urls[0])
        self.make_engine()
        self.reactor.settle(50)

        assert 2 == factory.count
        assert [] == factory.open
