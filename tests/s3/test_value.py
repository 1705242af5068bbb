"""
The tests of `kvd.s3.value`.
"""

from __future__ import annotations

import os

from kvd.errors import EngineFailed, StoreFault
from kvd.interfaces import IStreamedValue
from kvd.s3.value import HEAD_BYTES
from kvd.store.contract.asking import KEY, Asking
from tests.s3.cases import EngineCase
from tests.s3.memory_engine import Object


class ValueCase(EngineCase, Asking):
    """
    A large value in an engine.
    """

    def setUp(self) -> None:
        super().setUp()
        self.bytes = os.urandom(10 * HEAD_BYTES + 17)
        self.store = self.make_store()
        self.memory.objects["tests/key"] = Object(
            self.bytes, {"content-type": "a/b"}, '"tag"', 1_700_000_000.5
        )

    def asked(self) -> int:
        """
        How many requests there were so far.
        """
        return len(self.memory.seen)


class ReadingTests(ValueCase):
    """
    A value is read in as few requests as that takes.
    """

    def test_two_requests_for_all(self) -> None:
        """
        The first bytes come with the description, the rest as it is read.
        """
        assert self.bytes == self.get(self.store)
        assert 2 == self.asked()

    def test_one_request_for_a_small_value(self) -> None:
        """
        Or for its description.
        """
        self.memory.objects["tests/key"].body = self.bytes[:HEAD_BYTES]
        assert self.bytes[:HEAD_BYTES] == self.get(self.store)
        self.value(self.store).close()

        assert 2 == self.asked()

    def test_short_part_is_asked_for_alone(self) -> None:
        """
        The engine sends no more than what is wanted.
        """
        value = self.value(self.store)
        part = self.bytes[200_000:200_100]
        assert part == self.result(value.read(200_000, 100))
        value.close()

        assert 2 == self.asked()

    def test_any_part_is_read(self) -> None:
        """
        Parts may be read in any order.
        """
        value = self.value(self.store)
        for _ in range(20):
            at = self.random.randrange(len(self.bytes))
            count = self.random.choice([1, 100, HEAD_BYTES])
            got = self.result(value.read(at, count))
            assert got
            assert self.bytes[at : at + count].startswith(got)
        value.close()
        value.close()

    def test_value_of_another_program(self) -> None:
        """
        It has the engine's tag and time, and its type.
        """
        info = self.result(self.store.stat(KEY))

        assert "tag-6553f100" == info.etag
        assert 1_700_000_000 == info.changed
        assert {"content-type": "a/b"} == info.metadata
        assert info == self.value(self.store).info

    def test_replaced_value_is_not_mixed(self) -> None:
        """
        What is not in memory yet is gone.
        """
        value = self.value(self.store)
        self.memory.objects["tests/key"] = Object(self.bytes, {}, '"new"', 1.0)
        first = self.result(value.read(0, HEAD_BYTES))
        assert self.bytes[:HEAD_BYTES] == first

        said = self.error(StoreFault, lambda: value.read(HEAD_BYTES, HEAD_BYTES))
        assert "replaced while it was read" in said

    def test_replaced_value_of_the_same_bytes_is_another_one(self) -> None:
        """
        To the engine it has the same tag.
        """
        body = self.bytes[: 3 * HEAD_BYTES]
        self.put(self.store, body=body)
        value = self.value(self.store)
        self.put(self.store, body=body)

        said = self.error(StoreFault, lambda: value.read(HEAD_BYTES, HEAD_BYTES))
        assert "replaced while it was read" in said

    def test_one_request_for_all_that_is_wanted(self) -> None:
        """
        If it is known that all is, and not only the beginning.
        """
        value = self.result(self.store.open(KEY, whole=True))
        assert self.bytes == self.body(value)
        assert 1 == self.asked()

    def test_damaged_value_is_not_complete(self) -> None:
        """
        Its last bytes are not given out.
        """
        self.put(self.store, body=self.bytes[: 3 * HEAD_BYTES])
        stored = self.memory.objects["tests/key"]
        stored.body = stored.body[:-1] + bytes([stored.body[-1] ^ 1])
        for whole in (False, True):
            value = self.result(self.store.open(KEY, whole))
            self.result(value.read(HEAD_BYTES, HEAD_BYTES))
            value.close()

            said = self.error(StoreFault, lambda: self.get(self.store))
            assert "damaged" in said


class SocketTests(ValueCase):
    """
    A long rest can be taken from the socket.
    """

    def test_what_was_read_comes_first(self) -> None:
        """
        The socket has what is behind that: all but the last byte can be taken.
        """
        self.memory.objects["tests/key"].body = bytes(30 * HEAD_BYTES)
        value = self.value(self.store)
        assert IStreamedValue.providedBy(value)
        at = HEAD_BYTES
        assert value.socket(at) is None
        at += len(self.result(value.read(at, HEAD_BYTES)))
        socket = value.socket(at)
        assert socket is not None
        assert 30 * HEAD_BYTES - at - 1 == socket[1]

        assert value.socket(at + 1) is None
        assert bytes(1) == self.result(value.read(at, 1))
        assert value.socket(at + 1) is None
        value.close()


class BrokenTests(ValueCase):
    """
    An engine that breaks off is asked for the rest.
    """

    def test_rest_is_asked_for(self) -> None:
        """
        As often as some of it comes.
        """
        self.memory.cut_next = 1
        assert self.bytes == self.get(self.store)
        value = self.value(self.store)
        self.memory.cut_next = 3

        assert self.bytes == self.body(value)
        assert 0 == self.memory.cut_next

    def test_engine_that_always_breaks_off(self) -> None:
        """
        If nothing comes, that is the end.
        """
        self.memory.objects["tests/key"].body = self.bytes[: HEAD_BYTES + 1]
        value = self.value(self.store)
        self.memory.cut_next = 1000

        self.error(EngineFailed, lambda: value.read(HEAD_BYTES, 1))
