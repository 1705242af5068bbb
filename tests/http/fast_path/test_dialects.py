"""
The fast path beside other dialects: it serves the plain keys, and no others.
"""

from __future__ import annotations

import re

import pytest
from twisted.trial.unittest import SynchronousTestCase

from kvd.http.fast_path import native
from kvd.settings import DialectChoice
from tests.http.fast_path.both import Worker
from tests.http.fast_path.cases import get, put

DIALECTS = (
    DialectChoice("/old/", "classic"),
    DialectChoice("/old/new/", "plain"),
    DialectChoice("/v%61st/", "classic"),
)


@pytest.mark.skipif(native is None, reason="the compiled module is what is tested")
class FastPathBesideDialectsTests(SynchronousTestCase):
    """
    Two workers do the same, of which one has no fast path.
    """

    def setUp(self) -> None:
        self.workers = [
            Worker(fast_path=fast_path, durability="process", dialects=DIALECTS)
            for fast_path in (True, False)
        ]
        for worker in self.workers:
            self.addCleanup(worker.clean_up)
        self.addCleanup(self.end)

    def end(self) -> None:
        """
        Both did the same.
        """
        outcomes = [worker.end() for worker in self.workers]
        assert outcomes[0] == outcomes[1]

    def ask(self, request: bytes) -> tuple[int, int]:
        """
        The status, and how many requests the fast path has served.
        """
        watched = self.workers[0].watched
        assert watched is not None
        before = watched.served
        for worker in self.workers:
            worker.connect(request)
        (status,) = re.findall(rb"HTTP/1\.1 (\d+)", self.workers[0]._replies[-1])
        return int(status), watched.served - before

    def test_plain_keys_alone_are_served(self) -> None:
        """
        Whichever request of a form comes first, and in any spelling of its key.
        """
        for again in range(3):
            for key, stored, is_fast in (
                ("old/k", 200, 0),
                ("k", 204 if again else 201, 1),
                ("old/new/k", 204 if again else 201, 1),
                ("vast/k", 200, 0),
                ("%6fld/k", 200, 0),
                ("old", 409, 0),
            ):
                found, served = self.ask(put(key, b"value"))
                assert (key, stored) == (key, found)
                assert (key, is_fast) == (key, served), again
                found, served = self.ask(get(key))
                assert (key, 404 if key == "old" else 200) == (key, found)
                if key != "old":
                    assert (key, is_fast) == (key, served), again
        # classic knows no conditions.
        conditional = b"If-None-Match: *\r\n"
        assert (200, 0) == self.ask(get("old/k", conditional))
        assert 304 == self.ask(get("k", conditional))[0]
        assert (200, 0) == self.ask(get("old/k", conditional))
