"""
The tests of all kinds of uploads to an engine.
"""

from __future__ import annotations

import gc
import hashlib
import os
import time
from collections.abc import Iterator
from typing import Any, cast

from twisted.internet import tcp
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.web._newclient import RequestTransmissionFailed

from kvd.errors import (
    EngineFailed,
    EngineUnavailable,
    PreconditionFailed,
    StoreBusy,
    StoreFault,
    StoreFull,
)
from kvd.interfaces import Answer, IStreamedUpload, IUpload
from kvd.model.conditions import UNCONDITIONAL, Conditions
from kvd.model.keys import Key
from kvd.s3 import multipart_upload
from kvd.s3.buffered_upload import BUFFERED_BYTES
from kvd.s3.store import WAITING_BYTES, ObjectStore
from kvd.store.contract.asking import ABSENT, KEY, PRESENT, Asking, holds
from tests.s3.cases import EngineCase, close_all
from tests.s3.memory_engine import SKEW_SECONDS, Refusal

CHUNK_BYTES = 64 * 1024
LARGE = bytes(range(256)) * 4400
"""
More than waits for its commit.
"""


def chunks(body: bytes) -> Iterator[bytes]:
    """
    A body as it arrives.
    """
    for at in range(0, len(body), CHUNK_BYTES):
        yield body[at : at + CHUNK_BYTES]


class UploadCase(EngineCase, Asking):
    """
    Uploads to an engine.
    """

    def setUp(self) -> None:
        super().setUp()
        self.store = self.make_store()

    def write(self, upload: IUpload, body: bytes) -> None:
        """
        Write a body, chunk by chunk.
        """
        for chunk in chunks(body):
            self.result(upload.write(chunk))

    def begin_large(self, conditions: Conditions = UNCONDITIONAL) -> IUpload:
        """
        Begin the upload of `LARGE`.
        """
        return self.begin(self.store, KEY, len(LARGE), conditions=conditions)

    def stored(self) -> bytes | None:
        """
        What the engine has.
        """
        found = self.memory.objects.get("tests/key")
        return None if found is None else found.body


class StreamedTests(UploadCase):
    """
    A large value of known length is sent in one request, as it comes.
    """

    def test_value_is_sent_in_one_request(self) -> None:
        """
        It comes back, and its description is the same.
        """
        upload = self.begin_large()
        self.write(upload, LARGE)
        published = self.result(upload.commit(UNCONDITIONAL))

        assert published.created
        assert LARGE == self.stored()
        assert LARGE == self.get(self.store)
        assert published.info == self.result(self.store.stat(KEY))
        assert 1 == [method for method, _ in self.memory.seen].count("PUT")

    def test_the_engine_need_not_be_asked_when_it_was(self) -> None:
        """
        Where it has said so in its reply.
        """
        for tells_time, asked in ((True, 1), (False, 2)):
            self.memory.tells_time = tells_time
            self.memory.seen.clear()
            upload = self.begin_large()
            self.write(upload, LARGE)
            published = self.result(upload.commit(UNCONDITIONAL))
            heads = [method for method, _ in self.memory.seen].count("HEAD")

            assert asked == heads
            assert published.info == self.result(self.store.stat(KEY))

    def test_time_of_a_value_is_the_engines(self) -> None:
        """
        If that is later than when it was begun, whoever says so.
        """
        now = time.time() + SKEW_SECONDS / 2
        self.memory.now = lambda: now
        for tells_time in (True, False):
            self.memory.tells_time = tells_time
            upload = self.begin_large()
            self.write(upload, LARGE)
            published = self.result(upload.commit(UNCONDITIONAL))

            assert int(now) == published.info.changed
            assert published.info == self.result(self.store.stat(KEY))

    def test_nothing_is_published_before_the_commit(self) -> None:
        """
        All bytes have come, and the engine has not got the last ones.
        """
        upload = self.begin_large()
        self.write(upload, LARGE)
        self.reactor.settle(50)

        assert self.stored() is None
        self.put(self.store, body=b"other")
        assert not self.result(upload.commit(UNCONDITIONAL)).created

    def test_discarded_upload_is_broken_off(self) -> None:
        """
        A client that leaves: the old value stays, and the connection ends.
        """
        self.put(self.store, body=b"old")
        for share in (1, len(LARGE) // 2, len(LARGE)):
            upload = self.begin_large()
            self.write(upload, LARGE[:share])
            upload.discard()
            upload.discard()
            self.reactor.settle(50)

            assert b"old" == self.stored()

    def test_wrong_length_is_broken_off(self) -> None:
        """
        Fewer or more bytes than were announced are not published.
        """
        upload = self.begin_large()
        self.write(upload, LARGE[:-1])
        self.error(StoreFault, lambda: upload.commit(UNCONDITIONAL))
        upload = self.begin_large()
        self.write(upload, LARGE)
        self.error(StoreFault, lambda: upload.write(b"more"))
        upload.discard()
        self.reactor.settle(50)

        assert self.stored() is None

    def test_conditions_go_with_the_head(self) -> None:
        """
        They are decided when the upload begins, and again by the engine at its end.
        """
        etag = self.put(self.store, body=b"old").info.etag
        self.error(PreconditionFailed, lambda: self.begin_large(ABSENT))
        self.error(PreconditionFailed, lambda: self.begin_large(holds("other")))
        late = self.begin_large(holds(etag))
        first = self.begin_large(PRESENT)
        self.write(late, LARGE)
        self.write(first, LARGE)
        assert not self.result(first.commit(PRESENT)).created
        self.error(PreconditionFailed, lambda: late.commit(holds(etag)))

        assert LARGE == self.stored()

    def test_engine_decides_in_the_end(self) -> None:
        """
        Another client is faster by less than the look at the old value.
        """
        upload = self.begin_large(ABSENT)
        self.write(upload, LARGE)
        answer = upload.commit(ABSENT)
        assert isinstance(answer, Deferred)
        self.wait_for_request("HEAD")
        self.memory._store("tests/key", b"fast", {}, '"tag"')
        self.error(PreconditionFailed, lambda: answer)

        assert b"fast" == self.stored()

    def wait_for_request(self, method: str) -> None:
        """
        Let time pass until the engine has had another request.
        """
        count = len(self.memory.seen)
        for _ in range(1000):
            if (method, "tests/key") in self.memory.seen[count:]:
                return
            self.reactor.settle(1)
        raise AssertionError("no request came")

    def test_other_conditions_come_too_late(self) -> None:
        """
        What was not known when the upload began cannot be asked for at its end.
        """
        upload = self.begin_large()
        self.write(upload, LARGE)

        assert "try again" in self.error(StoreBusy, lambda: upload.commit(ABSENT))
        assert self.stored() is None

    def test_engine_that_refuses_ends_the_upload(self) -> None:
        """
        Whoever writes on hears why.
        """
        self.memory.fail_only = "PUT"
        self.memory.fail_next = [(507, "InsufficientStorage")]
        upload = self.begin_large()
        self.write(upload, LARGE)
        said = self.error(StoreFull, lambda: upload.commit(UNCONDITIONAL))

        assert "no room" in said
        assert "InsufficientStorage" in said

    def test_bytes_that_come_between_two_attempts_are_sent(self) -> None:
        """
        The engine breaks off before it has the first of them, so it is asked again.
        """
        upload = self.begin_large()
        self.reactor.settle(50)
        (engine,) = (
            each for each in self.reactor.getReaders() if isinstance(each, tcp.Server)
        )
        engine.abortConnection()
        self.reactor.settle(3)
        self.write(upload, LARGE)
        self.result(upload.commit(UNCONDITIONAL))

        assert LARGE == self.stored()

    def test_head_is_sent_before_what_is_moved(self) -> None:
        """
        Bytes wait for it, even if none was written before.
        """
        upload = self.begin_large()
        streamed = IStreamedUpload(upload)
        while (descriptor := streamed.socket()) is None:
            self.reactor.settle(1)
        before = streamed.queued
        room: Answer[None] = streamed.room()
        self.result(room)
        assert (True, False) == (before, streamed.queued)
        streamed.moved(os.write(descriptor, LARGE[:1000]))
        self.write(upload, LARGE[1000:])
        self.result(upload.commit(UNCONDITIONAL))

        assert LARGE == self.stored()

    def test_body_is_not_sent_twice(self) -> None:
        """
        Once a byte was taken, a failure is final.
        """
        self.memory.fail_only = "PUT"
        self.memory.fail_next = [(503, "SlowDown")]
        upload = self.begin_large()
        self.write(upload, LARGE)
        self.error(EngineUnavailable, lambda: upload.commit(UNCONDITIONAL))

        assert 1 == [method for method, _ in self.memory.seen].count("PUT")


class Stubborn(Protocol):
    """
    A server that does not read.
    """

    def connectionMade(self) -> None:
        cast(Any, self.factory).connections.append(self)
        cast(Any, self.transport).pauseProducing()


class BackpressureTests(UploadCase):
    """
    An engine that takes nothing stops the client.
    """

    def setUp(self) -> None:
        super().setUp()
        factory: Any = Factory.forProtocol(Stubborn)
        factory.noisy = False
        self.connections = factory.connections = list[Stubborn]()
        self.urls[:] = [self.listen(factory)]
        self.store = self.make_store()

    def test_writes_wait_for_room(self) -> None:
        """
        Beyond what sockets hold, a write waits; and it fails when the engine leaves.
        """
        size = 1 << 30
        upload = self.begin(self.store, KEY, size)
        chunk = bytes(CHUNK_BYTES)
        written = 0
        while True:
            answer = upload.write(chunk)
            written += len(chunk)
            self.reactor.settle(3)
            if isinstance(answer, Deferred) and not answer.called:
                break
            self.result(answer)
            assert written < 64 << 20
        cast(Any, self.connections[0].transport).abortConnection()

        assert "before it answered" in self.error(EngineFailed, lambda: answer)
        upload.discard()


class PartsTests(UploadCase):
    """
    A value of unknown length goes in parts.
    """

    def setUp(self) -> None:
        super().setUp()
        self.patch(multipart_upload, "PART_BYTES", 300_000)

    def test_parts_become_a_value(self) -> None:
        """
        It comes back, described as it was published.
        """
        upload = self.begin(self.store, KEY, None, {"content-type": "a/b"})
        self.write(upload, LARGE)
        assert self.stored() is None
        published = self.result(upload.commit(UNCONDITIONAL))

        assert LARGE == self.get(self.store)
        assert published.info == self.result(self.store.stat(KEY))
        assert {"content-type": "a/b"} == published.info.metadata
        assert len(LARGE) == published.info.size
        assert {} == self.memory.uploads

    def test_short_value_needs_no_parts(self) -> None:
        """
        What fits in memory is sent in one request, with its digest.
        """
        upload = self.begin(self.store, KEY, None)
        body = LARGE[:BUFFERED_BYTES]
        self.write(upload, body)
        self.result(upload.commit(UNCONDITIONAL))

        assert body == self.stored()
        fields = self.memory.objects["tests/key"].fields
        assert hashlib.sha256(body).hexdigest() == fields["x-amz-meta-kvd-sha256"]
        assert [] == [method for method, _ in self.memory.seen if method == "POST"]

    def test_a_program_that_ends_waits_for_nothing(self) -> None:
        """
        A commit that is closed, or freed, asks the engine for nothing more.
        """
        upload = self.begin(self.store, KEY, None)
        self.write(upload, LARGE)
        commit = cast(Any, upload)._commit(UNCONDITIONAL)
        commit.send(None)
        asked = len(self.memory.seen)
        commit.close()
        self.reactor.settle(50)
        assert asked == len(self.memory.seen)
        assert self.stored() is None
        # Of the request that was on its way, nobody hears.
        close_all(self.reactor)
        gc.collect()
        self.flushLoggedErrors(RequestTransmissionFailed)

    def test_client_that_leaves_aborts_the_parts(self) -> None:
        """
        The engine keeps no part, whenever the client leaves.
        """
        for share in (10, len(LARGE) // 2, len(LARGE)):
            upload = self.begin(self.store, KEY, None)
            self.write(upload, LARGE[:share])
            upload.discard()
            upload.discard()
            self.reactor.settle(50)

            assert {} == self.memory.uploads
            assert self.stored() is None

    def test_client_that_leaves_during_a_part(self) -> None:
        """
        A part on its way is broken off, and the others are aborted.
        """
        upload = self.begin(self.store, KEY, None)
        self.write(upload, LARGE[: 512 * 1024])
        assert self.memory.uploads
        for chunk in chunks(LARGE[: CHUNK_BYTES * 4]):
            answer = upload.write(chunk)
            if isinstance(answer, Deferred):
                break
        assert isinstance(answer, Deferred)
        answer.addErrback(lambda _: None)
        upload.discard()
        self.reactor.settle(50)

        assert {} == self.memory.uploads

    def test_client_that_leaves_before_the_engine_has_named_the_upload(self) -> None:
        """
        It is aborted once its name is known.
        """
        upload = self.begin(self.store, KEY, None)
        answers = [upload.write(chunk) for chunk in chunks(LARGE[: 5 * CHUNK_BYTES])]
        last = answers[-1]
        assert isinstance(last, Deferred)
        last.addErrback(lambda _: None)
        while not self.memory.uploads:
            self.reactor.iterate(0)
        assert not last.called
        upload.discard()
        self.reactor.settle(50)

        assert {} == self.memory.uploads
        assert self.stored() is None

    def test_value_with_conditions_goes_in_one_request(self) -> None:
        """
        Engines keep no conditions when they join parts. A value that was created
        meanwhile stays.
        """
        late = self.begin(self.store, KEY, None, conditions=ABSENT)
        self.write(late, LARGE)
        upload = self.begin(self.store, KEY, None, conditions=ABSENT)
        self.write(upload, LARGE)

        assert self.result(upload.commit(ABSENT)).created
        self.error(PreconditionFailed, lambda: late.commit(ABSENT))
        assert LARGE == self.get(self.store)
        assert [] == [method for method, _ in self.memory.seen if method == "POST"]

    def test_conditions_that_come_too_late(self) -> None:
        """
        When the parts have been sent, they cannot be asked for.
        """
        upload = self.begin(self.store, KEY, None)
        self.write(upload, LARGE)

        assert "try again" in self.error(StoreBusy, lambda: upload.commit(ABSENT))
        assert {} == self.memory.uploads

    def test_lost_reply_is_no_failure(self) -> None:
        """
        The engine joined the parts, and its reply was lost: a second attempt finds no
        parts, and the value in place.
        """
        upload = self.begin(self.store, KEY, None)
        self.write(upload, LARGE)
        join = self.memory._go_on

        def joined_and_lost(*arguments: object) -> bytes:
            join(*arguments)  # type: ignore[arg-type]
            self.memory._go_on = join  # type: ignore[method-assign]
            raise uploads_refusal()

        def only_the_end(request: object, method: str, *rest: object) -> bytes:
            act = joined_and_lost if method == "POST" else join
            return act(request, method, *rest)  # type: ignore[arg-type]

        self.memory._go_on = only_the_end  # type: ignore[method-assign, assignment]

        assert self.result(upload.commit(UNCONDITIONAL)).info.size == len(LARGE)
        assert LARGE == self.stored()

    def test_failed_part_aborts_the_upload(self) -> None:
        """
        An engine that is full: the client hears of it, and nothing is left.
        """
        upload = self.begin(self.store, KEY, None)
        self.write(upload, LARGE[: 512 * 1024])
        assert self.memory.uploads
        self.memory.fail_next = [(507, "")]
        self.error(StoreFull, lambda: self.write(upload, LARGE))
        upload.discard()
        self.reactor.settle(50)

        assert {} == self.memory.uploads


def uploads_refusal() -> Exception:
    """
    What the engine says in place of a reply that was lost.
    """
    return Refusal(500, "InternalError")


class GatheredTests(UploadCase):
    """
    A small value is sent at its commit.
    """

    def test_failure_that_passes_is_retried(self) -> None:
        """
        Three failures are not noticed, as long as the value waits in memory, or in a
        file.
        """
        for body in (b"value", LARGE[:BUFFERED_BYTES], LARGE[:WAITING_BYTES]):
            self.memory.fail_only = "PUT"
            self.memory.fail_next = [(500, ""), (503, "SlowDown"), (500, "Internal")]
            upload = self.begin(self.store, KEY, len(body))
            self.write(upload, body)
            self.result(upload.commit(UNCONDITIONAL))

            assert body == self.stored()

    def test_value_that_waits_has_a_length(self) -> None:
        """
        Fewer or more bytes than were announced are not published.
        """
        body = LARGE[:WAITING_BYTES]
        upload = self.begin(self.store, KEY, len(body))
        self.write(upload, body[:-1])
        self.error(StoreFault, lambda: upload.commit(UNCONDITIONAL))
        upload = self.begin(self.store, KEY, len(body))
        self.write(upload, body)
        self.error(StoreFault, lambda: upload.write(b"more"))
        upload.discard()

        assert self.stored() is None

    def test_conditions_of_a_value_that_waits(self) -> None:
        """
        Those of its commit count.
        """
        body = LARGE[:WAITING_BYTES]
        etag = self.put(self.store, body=b"old").info.etag
        upload = self.begin(self.store, KEY, len(body))
        self.write(upload, body)
        assert not self.result(upload.commit(holds(etag))).created

        assert body == self.stored()

    def test_created_once_although_the_reply_was_lost(self) -> None:
        """
        The second attempt finds the value of the first: that is no conflict.
        """
        answer = self.memory._answer

        def stored_and_lost(
            request: object, method: str, name: str, *rest: object
        ) -> object:
            said = answer(request, method, name, *rest)  # type: ignore[arg-type]
            if method == "PUT" and name == "tests/key":
                self.memory._answer = answer  # type: ignore[method-assign]
                raise uploads_refusal()
            return said

        self.memory._answer = stored_and_lost  # type: ignore[method-assign, assignment]
        published = self.put(self.store, body=b"mine", conditions=ABSENT)

        assert published.created
        assert b"mine" == self.stored()
        self.error(PreconditionFailed, lambda: self.late(self.store))

    def late(self, store: ObjectStore) -> object:
        """
        Create the key again.
        """
        return self.put(store, body=b"late", conditions=ABSENT)

    def test_damaged_value_is_not_given_out(self) -> None:
        """
        The digest that was stored with a value is compared when it is read.
        """
        self.put(self.store, body=b"value")
        self.memory.objects["tests/key"].body = b"valve"

        assert "damaged" in self.error(StoreFault, lambda: self.store.open(KEY))

    def test_key_without_a_name_is_refused(self) -> None:
        """
        A key whose name would be too long cannot have a value.
        """
        key = Key(b"/".join([b"-" * 255] * 4))

        assert "shorter key" in self.error(Exception, lambda: self.put(self.store, key))
