"""
Tests for `kvd.http.authorization`: which rights an operation needs.
"""

from __future__ import annotations

from typing import get_args

import pytest

from kvd.access import authentication
from kvd.access.permit import Permit
from kvd.access.rights_file import parse_rights
from kvd.access.tokens import token_digest
from kvd.errors import BadRequest, Forbidden, PeerError
from kvd.http import authorization
from kvd.http.authorization import Authorization
from kvd.model.exchanges import Values
from kvd.model.keys import Key
from kvd.model.operations import (
    Delete,
    Exchange,
    FixedReply,
    Get,
    List,
    Operation,
    Put,
    PutPart,
    WriteBelow,
)
from kvd.model.replies import Reply
from kvd.model.requests import Request

RIGHTS = f"""
[users.ci.rights]
"/from/" = ["read"]
"/to/" = ["write"]
"/both/" = ["read", "write"]
"/cas/" = ["read", "write"]
"/all/" = ["read", "write", "delete", "list"]
"/all/but/" = ["read"]
[[users.ci.tokens]]
sha256 = "{token_digest("kvd_ci").hex()}"
[prefixes."/all/"]
write-once = true
[prefixes."/cas/"]
content-addressed = true
"""
HASH = "ab" * 32


async def nothing(values: Values, body: bytes) -> Reply:
    """
    What is never carried out here.
    """
    raise NotImplementedError


class DeleteTwice(Delete):
    """
    An operation that does more than that from which it is derived.
    """


class FixedReplyTwice(FixedReply):
    """
    Likewise.
    """


def copy(source: str, target: str) -> Exchange:
    """
    From one key to another.
    """
    return Exchange(nothing, (Get(Key(source.encode())), Put(Key(target.encode()))))


def move(source: str, target: str, *removed: str) -> Exchange:
    """
    From one key to another; some are removed.
    """
    deletes = tuple(Delete(Key(key.encode())) for key in (source, *removed))
    return Exchange(nothing, (*copy(source, target).needs, *deletes))


def permit(operation: Operation) -> Permit:
    """
    What the user may do.
    """
    rules = parse_rights(RIGHTS, "file")
    knows = authentication.Authentication(
        rules,
        throttle=None,  # type: ignore[arg-type]  # nobody fails
        logins=None,  # type: ignore[arg-type]  # nobody logs in
        off_reactor=None,  # type: ignore[arg-type]  # nor has a password
        has_password=lambda hash, password: False,
    )
    decides = Authorization(
        rules,
        knows,
        rates=None,  # type: ignore[arg-type]  # nothing is limited
        serving=None,  # type: ignore[arg-type]  # likewise
        clock=None,  # type: ignore[arg-type]  # likewise
    )
    request = Request(
        "X",
        b"/",
        minor=1,
        fields={b"authorization": b"Bearer kvd_ci"},
        length=None,
        chunked=False,
        keep_alive=True,
        expects_continue=False,
    )
    permitted = decides.authorize(request, operation, None)
    assert isinstance(permitted, Permit)
    return permitted


@pytest.mark.parametrize(
    ("operation", "refusal"),
    [
        (copy("from/a", "to/b"), None),
        (PutPart(Key(b"to/b")), None),
        (PutPart(Key(b"from/b")), "write"),
        # A part has neither the digest nor the key of the value.
        (PutPart(Key(b"cas/part")), None),
        (copy("both/a", "both/b"), None),
        (copy("to/a", "to/b"), "may not read"),
        (copy("from/a", "from/b"), "may not write"),
        (copy("none/a", "to/b"), "may not read"),
        (move("all/a", "to/b"), None),
        (move("both/a", "to/b"), "may not delete"),
        (move("all/a", "to/b", "all/c", "all/but/d"), "may not delete"),
        (FixedReply(204), None),
        (List(b"all/but/"), "may not list"),
        # It would name those in all/but/ too.
        (List(b"all/"), "may not list"),
        (List(b""), "may not list"),
        (Exchange(nothing, (WriteBelow(b"to/"),)), None),
        (Exchange(nothing, (WriteBelow(b"to/inner/"),)), None),
        (Exchange(nothing, (WriteBelow(b"all/"),)), "may not write"),
    ],
)
def test_an_operation_needs_the_rights_of_all_its_parts(
    operation: Operation, refusal: str | None
) -> None:
    """
    Whoever lacks one of them may not do the whole.
    """
    if refusal is None:
        assert operation.__class__ is permit(operation).operation.__class__
    else:
        with pytest.raises(Forbidden, match=refusal):
            permit(operation)


def test_what_only_a_body_names_is_decided_later() -> None:
    """
    By the same rights, with the same rules.
    """
    also = permit(FixedReply(200)).also

    assert Delete(Key(b"all/a")) == also(Delete(Key(b"all/a")))
    assert also(Put(Key(b"all/a"))).once
    with pytest.raises(Forbidden, match="may not delete"):
        also(Delete(Key(b"all/but/a")))
    with pytest.raises(BadRequest, match="has to be the SHA-256"):
        also(Put(Key(b"cas/b")))
    addressed = also(Put(Key(f"cas/{HASH}".encode())))
    assert [bytes.fromhex(HASH)] == [each.value for each in addressed.digests]


@pytest.mark.parametrize(
    "operation", [DeleteTwice(Key(b"all/a")), FixedReplyTwice(200), None]
)
def test_an_operation_without_a_stated_right_is_a_fault(operation: Operation) -> None:
    """
    Also one that is derived from an operation with a right.
    """
    with pytest.raises(KeyError) as raised:
        permit(operation)

    assert not isinstance(raised.value, PeerError)


def test_every_operation_states_its_right() -> None:
    """
    Or needs none, or asks for others.
    """
    operations = get_args(Operation)
    stated = {*authorization._NEEDED, FixedReply, Exchange}

    assert stated >= {*operations}
    assert all(issubclass(each, operations) for each in stated)
