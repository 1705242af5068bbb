"""
Tests for templates that are for some keys only: what the fast path serves of the
requests that users send.
"""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
from twisted.trial.unittest import SynchronousTestCase

from kvd.access.rights_file import parse_rights
from kvd.access.scope import Scope
from kvd.http.authorization import Authorization
from kvd.http.fast_path import native
from kvd.http.templates import MOST_SCOPES
from kvd.ipc.row import word_of_method
from tests.http.fast_path.both import Worker
from tests.http.fast_path.cases import get, put
from tests.http.test_authorization import PASSWORD_HASH, basic, status


class ScopeTests(SynchronousTestCase):
    """
    What the fast path serves of the requests that users send.
    """

    text = f"""
    [users.ci]
    password = "{PASSWORD_HASH}"
    rights = {{ "/" = ["read"], "/w/" = ["read", "write"], "/secret/" = [] }}
    [prefixes."/w/once/"]
    write-once = true
    """

    def serve(self, *requests: bytes) -> tuple[list[int], int]:
        """
        The statuses of the replies, and how many were the fast path's.
        """
        rules = parse_rights(self.text, "file")
        worker = Worker(
            fast_path=True, durability="process", rules=rules, reports=False
        )
        self.addCleanup(worker.clean_up)
        for request in requests:
            worker.connect(request)
        statuses = list(map(status, worker._replies))
        worker.end()
        return statuses, 0 if worker.watched is None else worker.watched.served

    def test_it_knows_whose_password_was_verified(self) -> None:
        """
        The first request is not its own, nor any of a wrong password, nor one below
        another prefix.
        """
        who = basic("ci", "secret")
        asked = get("k", who)
        wrong = get("k", basic("ci", "guess"))

        assert (
            [404, 404, 401, 401, 404, 403, 401],
            2 if native else 0,
        ) == self.serve(
            *[asked, asked, wrong, wrong, asked],
            *[get("secret/k", who), get("secret/k")],
        )

    def test_it_writes_where_nothing_is_to_be_checked(self) -> None:
        """
        Values that are written once are compared by Python.
        """
        who = basic("ci", "secret")
        requests = [
            put(key, b"value", who) for key in ("w/x", "w/a", "w/b", "w/once/k", "k")
        ]

        assert ([201] * 4 + [403], 2 if native else 0) == self.serve(*requests)

    def test_it_stops_when_a_token_expires(self) -> None:
        """
        Python is asked then, and says what is wrong.
        """
        scope = Authorization.scope

        def long_ago(*arguments: Any) -> Scope | None:
            found = scope(*arguments)
            return found and found._replace(expires=1.5)

        who = basic("ci", "secret")
        with mock.patch.object(Authorization, "scope", long_ago):
            assert ([404] * 3, 0) == self.serve(*[get("k", who)] * 3)

    def test_a_long_list_of_prefixes_is_left_to_python(self) -> None:
        """
        The compiled module would look through it for each request.
        """
        more = "\n".join(f'"/{n}/" = ["read"]' for n in range(MOST_SCOPES))
        text = f'[anonymous.rights]\n"/" = ["read"]\n{more}'
        with mock.patch.object(self, "text", text):
            assert ([404] * 3, 0) == self.serve(*[get("k")] * 3)


@pytest.mark.parametrize("scopes", [[], (b"",), ("\x01",), (1,), (b"\x01", None), None])
def test_a_scope_is_a_byte_and_a_prefix(scopes: object) -> None:
    """
    Anything else is refused, not read.
    """
    assert native is not None
    template = native.put_template(
        word_of_method("PUT"),
        *(True, 1, b"", 201, (b"", b"", b""), 204, (b"", b"", b""), b""),
    )

    with pytest.raises((ValueError, TypeError)):
        native.limit_template(template, scopes, 0, None, False)
    native.limit_template(template, (b"\x01a/", b"\x00"), 0, None, False)
    native.limit_template(template, (), 1, None, True)
