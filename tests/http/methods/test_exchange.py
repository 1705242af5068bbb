"""
Tests for `kvd.http.methods.exchange`: bodies that a dialect generates.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kvd.http.methods.exchange import Generated


class GeneratedTests(SynchronousTestCase):
    """
    A generator is a source of a reply.
    """

    def setUp(self) -> None:
        self.waits_for: Deferred[bytes] | None = None
        self.ended = 0

    async def pieces(self, *pieces: bytes) -> AsyncGenerator[bytes, None]:
        """
        These, then what comes later, if anything does.
        """
        try:
            for piece in pieces:
                yield piece
            if self.waits_for is not None:
                yield await self.waits_for
        finally:
            self.ended += 1

    def test_pieces_come_until_the_end(self) -> None:
        """
        Empty ones are skipped, since an empty chunk would be the last one.
        """
        source = Generated(self.pieces(b"", b"one", b"", b"", b"two", b""))

        found = [self.successResultOf(source.next_chunk()) for _ in range(4)]
        assert [b"one", b"two", b"", b""] == found
        assert 1 == self.ended

    def test_generator_is_closed_where_the_client_leaves(self) -> None:
        """
        Before its first piece, between two, or while it waits for the store.
        """
        Generated(self.pieces(b"never")).close()
        assert 0 == self.ended
        source = Generated(self.pieces(b"one", b"two"))
        assert b"one" == self.successResultOf(source.next_chunk())
        source.close()
        assert 1 == self.ended
        self.waits_for = Deferred()
        source = Generated(self.pieces())
        coming = source.next_chunk()
        source.close()
        assert 1 == self.ended
        self.waits_for.callback(b"late")
        assert b"late" == self.successResultOf(coming)
        assert 2 == self.ended
