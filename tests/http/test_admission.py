"""
Tests for `kvd.http.admission`: who sends a request, and what it holds until it ends.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kvd.access.counting import CountingMemory, OpenCounts
from kvd.access.networks import OpenConnections
from kvd.access.permit import Permit
from kvd.access.proxies import Proxies
from kvd.errors import AccessRefused, Forbidden, TooManyRequests
from kvd.http.admission import Admission
from kvd.model.keys import Key
from kvd.model.operations import FixedReply, Get, Operation
from kvd.model.requests import Request

GET = Get(Key(b"k"))
OTHER = Get(Key(b"other"))
HOST = "203.0.113.1"


def no_counts() -> OpenCounts:
    """
    Of what is open at a process.
    """
    return CountingMemory().open_counts(0)


class Authorization:
    """
    Permits everything, or nothing.
    """

    def __init__(self, counts: OpenCounts, error: AccessRefused | None = None) -> None:
        self._counts = counts
        self._error = error

    def authorize(
        self,
        request: object,
        operation: Operation,
        peer: object,
        certified: object,
        *,
        may_be_signed: bool,
    ) -> Permit:
        """
        See `kvd.http.authorization.Authorization`.
        """
        if self._error is not None:
            raise self._error
        self._counts.add("user ci")
        return Permit(operation, lambda other: other, "ci", "user ci", self._counts)

    def user_of(self, request: object, certified: object) -> str:
        """
        Likewise.
        """
        return "known"


def process(authorization: object = None, **more: object) -> Any:
    """
    What a process has for its requests.
    """
    nothing = {"proxies": None, "by_address": None, "address_rate": None}
    return SimpleNamespace(authorization=authorization, **nothing | more)


def admission(
    context: Any, user: str | None = None, fields: dict[bytes, bytes] | None = None
) -> Admission:
    """
    That of a request over a Unix socket.

    Args:
        context: Of the process.
        user: Whom the certificate of the client names.
        fields: Of the head.
    """
    transport: Any = SimpleNamespace(
        client="", peer_user=user, peer_name="unix", proxy_name=None, secure=None
    )
    return Admission(
        context,
        transport,
        Request(
            "GET",
            b"/k",
            minor=1,
            fields=fields or {},
            length=None,
            chunked=False,
            keep_alive=True,
            expects_continue=False,
        ),
    )


def admitted(permit: Permit | None) -> Admission:
    """
    That of a request with a permit; None: of one where everything is permitted.
    """
    found = admission(process())
    if permit is None:
        assert found.ask(FixedReply(200), None) is None
    found.permit = permit
    return found


def test_everything_is_permitted_where_nobody_decides() -> None:
    """
    Also if a rights file has come since the request began.
    """
    context = process()
    found = admission(context)
    assert found.ask(GET, None) is None
    context.authorization = Authorization(no_counts(), Forbidden("No."))

    assert OTHER is found.permitted(OTHER)


def test_without_a_permit_nothing_is_permitted() -> None:
    """
    Where there are users; also where there are none any more.
    """
    context = process(Authorization(no_counts(), Forbidden("No.")))
    found = admission(context)
    with pytest.raises(Forbidden):
        found.ask(GET, None)
    with pytest.raises(AssertionError):
        _ = found.permitted
    context.authorization = None
    with pytest.raises(AssertionError):
        _ = found.permitted


def test_permit_ends_with_its_request() -> None:
    """
    Until then it is counted, and says who has sent the request.
    """
    counts = no_counts()
    found = admission(process(Authorization(counts)))
    assert "known" == found.user
    permit = found.ask(GET, None)
    assert isinstance(permit, Permit)
    found.permit = permit

    assert "ci" == found.user
    assert OTHER is found.permitted(OTHER)
    assert 1 == counts["user ci"]
    found.end()
    assert 0 == counts["user ci"]


def test_certificate_names_the_user_where_nobody_decides() -> None:
    """
    For the log.
    """
    assert "ci" == admission(process(), "ci").user
    assert admission(process()).user is None


class Proxied:
    """
    Requests that a proxy forwards.
    """

    def __init__(self, **more: object) -> None:
        self.counts = no_counts()
        self.context = process(
            proxies=Proxies(["unix"], "x-forwarded-for"),
            by_address=OpenConnections(1, self.counts),
            **more,
        )

    def admission(self, host: str = HOST) -> Admission:
        """
        That of one for a host.
        """
        return admission(self.context, fields={b"x-forwarded-for": host.encode()})


def test_client_of_a_proxy_has_its_own_name() -> None:
    """
    The proxy's stands beside it.
    """
    found = Proxied().admission()
    assert ("unix", None) == found.names()
    found.ask(GET, None)

    assert (HOST, "unix") == found.names()
    assert HOST == found.network


def test_client_of_a_proxy_is_counted_until_its_request_ends() -> None:
    """
    One that is refused is not counted, and gives back nothing.
    """
    proxied = Proxied()
    first, second = proxied.admission(), proxied.admission()
    first.ask(GET, None)
    with pytest.raises(TooManyRequests):
        second.ask(GET, None)
    second.end()
    assert 1 == proxied.counts[f"address {HOST}"]

    first.end()
    assert 0 == proxied.counts[f"address {HOST}"]


def test_what_was_counted_before_a_refusal_is_given_back() -> None:
    """
    A client that sends too many requests keeps no place among the connections.
    """

    def too_many(client: object) -> None:
        raise TooManyRequests("Wait.", 1)

    proxied = Proxied(address_rate=too_many)
    found = proxied.admission()
    with pytest.raises(TooManyRequests):
        found.ask(GET, None)
    found.end()

    assert 0 == proxied.counts[f"address {HOST}"]


def test_only_what_asks_for_something_counts_as_a_request() -> None:
    """
    A head that asks for nothing kvd does is refused anyway.
    """
    asked: list[object] = []
    context = process(address_rate=asked.append)
    admission(context).ask(None, None)
    assert [] == asked
    admission(context).ask(GET, None)
    assert [""] == asked
