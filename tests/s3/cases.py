"""
Test cases with an engine, over true sockets, in a reactor that the test moves.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from random import Random
from typing import Any, TypeVar, cast

from botocore.credentials import Credentials
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.server import Site

from kvd.client.connecting import ClientTLS
from kvd.s3.connections import Connections
from kvd.s3.endpoints import Endpoints
from kvd.s3.engine import Engine
from kvd.s3.guards import Change, Kept
from kvd.s3.signing import Identity, Signer
from kvd.s3.store import ObjectStore
from tests.chance import new_seed
from tests.s3.memory_engine import ACCESS_KEY, BUCKET, SECRET_KEY, MemoryEngine
from tests.stepped import TURNS, SteppedReactor

T = TypeVar("T")


# botocore has a logger, and nobody reads it.
logging.getLogger("botocore").setLevel(logging.WARNING)


def at_once(work: Callable[[], T], /) -> Deferred[T]:
    """
    An `OffReactor` that needs no thread.
    """
    return maybeDeferred(work)


MOST_ASKED = 10
"""
After so many rounds a client that always asks for more is left alone for now.
"""


def keeps_all(*_: object) -> Deferred[Kept]:
    """
    What `kvd.s3.guards.try_conditions` finds out about a good engine.
    """
    every = frozenset(Change)
    return succeed(Kept(create=every, quoted=every, bare=frozenset()))


def close_all(reactor: SteppedReactor) -> None:
    """
    Close all connections of a reactor, those of servers too.
    """
    reactor.settle()
    for each in reactor.removeAll():
        cast(Any, each).connectionLost(Failure(ConnectionDone()))


class EngineReactor(SteppedReactor):
    """
    Comes to rest when the engine does too.
    """

    engine: MemoryEngine | None = None

    def settle(self, turns: int = TURNS) -> None:
        """
        See `SteppedReactor`.
        """
        asked = -1
        for _ in range(MOST_ASKED):
            super().settle(2 * turns)
            before, asked = asked, len(self.engine.seen) if self.engine else -1
            if asked == before:
                return


def make_client(
    urls: list[str],
    reactor: Any,
    random: Random,
    secret: str = SECRET_KEY,
    bucket: str = BUCKET,
    tls: ClientTLS | None = None,
    user: str = ACCESS_KEY,
) -> Engine:
    """
    A client of engines in memory.
    """
    identity = Identity(Credentials(user, secret), "us-east-1")
    return Engine(
        bucket,
        Endpoints(urls, reactor, random),
        Signer(at_once, find=lambda: identity),
        Connections(reactor, tls),
        reactor,
        random,
    )


class EngineCase(SynchronousTestCase):
    """
    A test case with an engine in memory.
    """

    step_seconds = 0.1
    """How much later it is after each turn of the reactor."""
    turn_seconds = 0.0005
    """How long a turn waits for something to happen."""
    tls: ClientTLS | None = None
    """Whom the client believes over TLS."""
    user = ACCESS_KEY
    """The access key."""

    def setUp(self) -> None:
        self.reactor = SteppedReactor()
        self.addCleanup(self.reactor.dispose)
        self.start_engine()

    def start_engine(self) -> None:
        """
        Serve an engine that is empty.
        """
        self.addCleanup(close_all, self.reactor)
        self.random = Random(new_seed())
        self.memory = MemoryEngine()
        self.urls = [self.serve(self.memory)]

    def serve(self, engine: MemoryEngine) -> str:
        """
        Serve an engine on a port of its own.

        Returns:
            Its URL.
        """
        site = Site(engine, reactor=self.reactor)
        site.noisy = False
        return self.listen(site)

    def listen(self, factory: Any) -> str:
        """
        Listen with any factory.
        """
        port = self.reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return f"http://127.0.0.1:{port.getHost().port}"

    def make_engine(self, secret: str = SECRET_KEY, bucket: str = BUCKET) -> Engine:
        """
        A client of the engine.
        """
        engine = make_client(
            self.urls, self.reactor, self.random, secret, bucket, self.tls, self.user
        )
        self.addCleanup(lambda: self.finish(engine.close()))
        return engine

    def make_store(self, prefix: str = "tests/") -> ObjectStore:
        """
        A store in the engine.
        """
        return ObjectStore(self.make_engine(), prefix)

    def wait_for(self, answer: Deferred[Any]) -> None:
        """
        Let time pass until a Deferred has fired.
        """
        for _ in range(20_000):
            if answer.called:
                return
            self.reactor._now += self.step_seconds
            self.reactor.iterate(self.turn_seconds)
        raise AssertionError("no answer came")

    def finish(self, answer: Deferred[T]) -> T:
        """
        The result of a Deferred.
        """
        self.wait_for(answer)
        return self.successResultOf(answer)
