"""
Tests for `kvd.http.values`: what dialects may do with the store for one request.
"""

from __future__ import annotations

from hashlib import sha256
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from kvd.errors import BadRequest, DigestMismatch, Forbidden, ValueFixed
from kvd.http.values import PermittedValues
from kvd.interfaces import ICachingStore
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.model.operations import FixedReply
from kvd.model.values import ValueInfo
from kvd.store.memory import MemoryStore, MemoryValue
from tests.http.test_admission import admitted
from tests.http.test_operations_rights import permit
from tests.moving.test_mirror import put

VALUE = b"value"
GZIP = {"content-encoding": "gzip"}
ADDRESS = Key(b"cas/" + sha256(VALUE).hexdigest().encode())
OTHER_ADDRESS = Key(b"cas/" + sha256(b"other").hexdigest().encode())


def double(authorization: object) -> Any:
    """
    What a process has for its requests.
    """
    return SimpleNamespace(
        authorization=authorization, store=MemoryStore(), clock=Clock(), readahead=None
    )


@implementer(ICachingStore)
class Remembering(MemoryStore):
    """
    A store with a cache, which opens what it has last heard of.
    """

    cache = hits = resume = None

    def __init__(self) -> None:
        super().__init__()
        self._known: tuple[ValueInfo, bytes] | None = None

    def stat(self, key: Key) -> Any:
        """
        Of the store itself.
        """
        self._known = self.values.get(key)
        return super().stat(key)

    def open(self, key: Key, whole: bool = False) -> Any:
        """
        Of the cache.
        """
        known = self._known or self.values.get(key)
        assert known is not None
        self._known = known
        return MemoryValue(self, *known)


class CachedTests(SynchronousTestCase):
    """
    What dialects decide by is not what a cache has.
    """

    def test_small_values_are_read_as_they_are_now(self) -> None:
        """
        A lock that another machine has taken is seen at once.
        """
        store = Remembering()
        context = double(None)
        context.store = store
        values = PermittedValues(context, admitted(None))
        for content in (b"old", b"new"):
            put(store, b"lock", content)
            found = self.successResultOf(
                Deferred.fromCoroutine(values.read(Key(b"lock")))
            )
            assert found is not None
            assert content == found[1]


class RulesTests(SynchronousTestCase):
    """
    The rules of a prefix hold whatever the method is called.
    """

    def setUp(self) -> None:
        self.context = context = double(object())
        self.store = context.store
        self.clock = context.clock
        self.values = PermittedValues(context, admitted(permit(FixedReply(200))))
        # As the operator of the machine would.
        self.anybody = PermittedValues(context, admitted(None))

    def do(self, coroutine: Any) -> Any:
        """
        What comes of it.
        """
        outcome: list[Any] = []
        Deferred.fromCoroutine(coroutine).addBoth(outcome.append)
        while not outcome:
            self.clock.advance(1)
        if isinstance(outcome[0], Failure):
            outcome[0].raiseException()
        return outcome[0]

    def place(self, key: bytes, metadata: dict[str, str] | None = None) -> Key:
        """
        A value that is there.
        """
        written = self.anybody.write(Key(key), VALUE, UNCONDITIONAL, metadata or {})
        self.do(written)
        return Key(key)

    def refused(self, coroutine: Any, kind: type[Exception], sentence: str) -> None:
        """
        Nothing changes.
        """
        before = dict(self.store.values)
        with pytest.raises(kind, match=sentence):
            self.do(coroutine)
        assert before == self.store.values
        assert 0 == self.store.uploads

    def test_what_is_verified_is_read_ahead(self) -> None:
        """
        Nobody else waits for the disk meanwhile, nor when it is copied then.
        """
        source = self.place(b"both/value")
        steps: list[str] = []

        def ahead(descriptor: int, offset: int, count: int) -> Deferred[None]:
            steps.append(f"{descriptor}: {count} from {offset}")
            return deferLater(self.clock, 1.0, lambda: steps.append("ahead"))

        def read(value: MemoryValue, offset: int, count: int) -> bytes:
            steps.append("read")
            return VALUE

        self.context.readahead = ahead
        with (
            mock.patch.object(MemoryValue, "fileno", return_value=7),
            mock.patch.object(MemoryValue, "read", read),
        ):
            self.do(self.values.copy(source, ADDRESS))
        assert ["7: 5 from 0", "ahead", "read"] * 2 == steps

    def test_nobody_can_poison_a_content_addressed_prefix(self) -> None:
        """
        Neither with another value, nor with one that clients would decode to another.
        """
        plain, encoded = self.place(b"both/a"), self.place(b"both/z", GZIP)
        values = self.values
        for attempt in (
            values.copy(plain, OTHER_ADDRESS),
            values.write(OTHER_ADDRESS, VALUE),
        ):
            self.refused(attempt, DigestMismatch, "sha256")
        for attempt in (
            values.copy(encoded, ADDRESS),
            values.copy(plain, ADDRESS, UNCONDITIONAL, GZIP),
            values.write(ADDRESS, VALUE, UNCONDITIONAL, GZIP),
        ):
            self.refused(attempt, BadRequest, "Content-Encoding")

        self.do(values.copy(encoded, ADDRESS, UNCONDITIONAL, {}))

        assert VALUE == self.store.values[ADDRESS][1]

    def test_a_value_is_written_once(self) -> None:
        """
        Also what is said about it; a move removes nothing then.
        """
        plain, once = self.place(b"both/a"), self.place(b"all/a")
        values = self.values
        for attempt in (
            values.copy(plain, once),
            values.copy(once, once, UNCONDITIONAL, GZIP),
            values.write(once, VALUE),
            values.move(self.place(b"all/b"), once),
        ):
            self.refused(attempt, ValueFixed, "cannot be replaced")

    def test_each_step_needs_its_right(self) -> None:
        """
        And nothing tells what is there.
        """
        values = self.values
        self.place(b"to/a")
        for key in (Key(b"to/a"), Key(b"to/none")):
            self.refused(values.stat(key), Forbidden, "may not read")
            self.refused(values.read(key), Forbidden, "may not read")
            self.refused(values.remove(key), Forbidden, "may not delete")
            self.refused(values.copy(key, Key(b"to/b")), Forbidden, "may not read")
            self.refused(
                values.copy(Key(b"from/none"), Key(b"from/b")),
                Forbidden,
                "may not write",
            )
            self.refused(values.move(key, Key(b"to/b")), Forbidden, "may not delete")
        for prefix in (b"", b"to/", b"all/"):
            for listing in (values.list(prefix), values.folder(prefix)):
                self.refused(anext(listing), Forbidden, "may not list")
