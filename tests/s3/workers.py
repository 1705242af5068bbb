"""
A worker over an engine in memory, in the place of one over a folder.
"""

from __future__ import annotations

from random import Random
from typing import Any, cast
from unittest import mock

from twisted.web.server import Site
from zope.interface import implementer

from kvd.interfaces import IStore, IStoreMaker
from kvd.s3 import store as store_module
from kvd.s3.store import ObjectStore
from kvd.settings import Bounds, Durability
from tests.chance import new_seed
from tests.http.fast_path.both import Outcome, SteppedStoreMaker, Worker
from tests.s3.cases import EngineReactor, close_all, keeps_all, make_client
from tests.s3.memory_engine import MemoryEngine
from tests.stepped import SteppedReactor


@implementer(IStoreMaker)
class _EngineMaker(SteppedStoreMaker):
    """
    Opens the store of a worker.
    """

    def __init__(self, reactor: Any, url: str) -> None:
        super().__init__(reactor)
        self._url = url

    def open_store(self, path: str, durability: Durability) -> IStore:
        client = make_client([self._url], self._reactor, Random(new_seed()))
        return ObjectStore(client, "tests/")


class EngineWorker(Worker):
    """
    Has no folder.
    """

    def __init__(self, **options: Any) -> None:
        # What the engine keeps is found out by tests of `kvd.s3.guards`.
        self._patched = mock.patch.object(store_module, "try_conditions", keeps_all)
        self._patched.start()
        super().__init__(fast_path=False, durability="process", **options)

    def make_reactor(self) -> SteppedReactor:
        """
        See `Worker`.
        """
        return EngineReactor()

    def dispose(self) -> None:
        """
        See `Worker`.
        """
        close_all(self._reactor)
        super().dispose()

    def make_maker(self, bounds: Bounds | None) -> SteppedStoreMaker:
        """
        See `Worker`.
        """
        reactor = cast(EngineReactor, self._reactor)
        self.memory = reactor.engine = MemoryEngine()
        site = Site(self.memory, reactor=reactor)
        site.noisy = False
        port = cast(Any, reactor).listenTCP(0, site, interface="127.0.0.1")
        return _EngineMaker(reactor, f"http://127.0.0.1:{port.getHost().port}")

    def place(self, key: str, value: bytes) -> None:
        """
        Another worker stores a value.
        """
        self.connect(
            b"PUT /%b HTTP/1.1\r\nHost: kvd\r\nContent-Length: %d\r\n\r\n%b"
            % (key.encode(), len(value), value)
        )

    def end(self) -> Outcome:
        """
        See `Worker`.
        """
        try:
            return super().end()
        finally:
            self._patched.stop()

    def _files(self) -> dict[str, tuple[bytes, bytes]]:
        return {name: (one.body, b"") for name, one in self.memory.objects.items()}
