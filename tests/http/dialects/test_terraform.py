"""
Tests for `kvd.http.dialects.terraform`: the exchanges of the ``http`` backend, as it is
documented. The program is in no registry that the tests can reach.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import md5

from kvd.settings import DialectChoice
from tests.http.dialects.cases import DialectCase
from tests.http.test_connection import body, status

STATE = "/tf/team/network"
OURS = b'{"ID":"cf1a6a51","Operation":"OperationTypePlan","Who":"a@host"}'
THEIRS = b'{"ID":"0b7cd5c2","Operation":"OperationTypeApply","Who":"b@host"}'


def digest(content: bytes) -> str:
    """
    What Terraform sends with a state.
    """
    text = b64encode(md5(content, usedforsecurity=False).digest()).decode()
    return f"Content-MD5: {text}\r\nContent-Type: application/json\r\n"


class TerraformTests(DialectCase):
    """
    A state and its lock.
    """

    dialects = (DialectChoice("/tf/", "terraform"),)

    def test_a_run_of_terraform(self) -> None:
        """
        Lock, read, write, unlock; all replies are exactly 200.
        """
        state = b'{"version": 4}'
        self.statuses(
            (f"LOCK {STATE}", "", OURS, 200),
            (f"GET {STATE}", "", None, 404),
            (f"POST {STATE}?ID=cf1a6a51", digest(state), state, 200),
            (f"POST {STATE}?ID=cf1a6a51", digest(state), b"damaged", 400),
            (f"UNLOCK {STATE}", "", OURS, 200),
            (f"GET {STATE}", "", None, 200),
        )
        assert state == self.value(STATE[1:].encode())
        self.statuses(
            (f"DELETE {STATE}", "", None, 200),
            (f"DELETE {STATE}", "", None, 404),
        )
        assert [] == self.keys()

    def test_who_finds_a_lock_is_told_whose_it_is(self) -> None:
        """
        Whatever it wanted to do; reading is free.
        """
        self.put(STATE[1:].encode(), b"{}")
        self.statuses((f"LOCK {STATE}", "", OURS, 200))
        for line, content in (
            (f"LOCK {STATE}", THEIRS),
            (f"UNLOCK {STATE}", THEIRS),
            (f"POST {STATE}?ID=0b7cd5c2", b"{}"),
            (f"POST {STATE}", b"{}"),
            (f"DELETE {STATE}", None),
        ):
            reply = self.request(line, "", content)
            assert (line, 423, OURS) == (line, status(reply), body(reply))
        self.statuses((f"GET {STATE}", "", None, 200))

    def test_a_lock_that_was_left_behind_is_removed_by_force(self) -> None:
        """
        Terraform sends no body then; whoever had the lock can write no more.
        """
        self.statuses(
            (f"LOCK {STATE}", "", OURS, 200),
            (f"UNLOCK {STATE}", "", b"", 200),
            (f"UNLOCK {STATE}", "", OURS, 200),
            (f"POST {STATE}?ID=cf1a6a51", "", b"{}", 423),
            (f"LOCK {STATE}", "", THEIRS, 200),
        )

    def test_a_lock_that_is_lost_during_the_upload_counts(self) -> None:
        """
        Nothing is published.
        """
        self.statuses((f"LOCK {STATE}", "", OURS, 200))
        head = f"POST {STATE}?ID=cf1a6a51 HTTP/1.1\r\nHost: kvd\r\n"
        self.client.send(head.encode() + b"Content-Length: 2\r\n\r\n{")
        other = self.connect()
        other.send(f"UNLOCK {STATE} HTTP/1.1\r\nHost: kvd\r\n\r\n".encode())
        assert 200 == status(other.receive())

        assert 423 == status(self.client.send(b"}").receive())
        assert [] == self.keys()

    def test_other_requests_are_refused(self) -> None:
        """
        The key of a lock is no state's.
        """
        self.statuses(
            (f"GET {STATE}.kvd-lock", "", None, 400),
            (f"LOCK {STATE}", "", b"[]", 400),
            (f"LOCK {STATE}", "", b"{}", 400),
            (f"LOCK {STATE}", "", b"x" * 70_000, 413),
            (f"PATCH {STATE}", "", b"{}", 405),
            ("GET /tf/", "", None, 400),
        )
