"""
Tests for `kvd.net.tls_groups`.
"""

from __future__ import annotations

import os
import ssl
import struct
from pathlib import Path

import pytest

from kvd.net.tls_groups import CURVES, OpenSSL, without_fields
from tests.tls import server_context

CURVE, FIELDS = 0x0017, 0x0100
"""
Groups (RFC 8446 section 4.2.7): a curve, P-256, and the smallest group with finite
fields, ffdhe2048.
"""


def vector(data: bytes, bytes_of_length: int = 2) -> bytes:
    """
    Data behind its length.
    """
    return len(data).to_bytes(bytes_of_length, "big") + data


def hello(group: int) -> bytes:
    """
    The first message of a client that knows one group only, and has sent no key for it
    yet: the server asks for one if it knows the group too.
    """
    extensions = {
        43: vector(b"\3\4", 1),  # TLS 1.3
        13: vector(bytes.fromhex("040308040401")),  # signatures
        10: vector(struct.pack("!H", group)),
        51: vector(b""),
    }
    body = (
        b"\3\3"
        + bytes(32)
        + vector(bytes(32), 1)
        + vector(b"\x13\1")
        + vector(b"\0", 1)
        + vector(
            b"".join(
                struct.pack("!H", kind) + vector(data)
                for kind, data in extensions.items()
            )
        )
    )
    return b"\x16\3\1" + vector(b"\1" + vector(body, 3))


def test_a_group_that_is_expensive_is_not_used() -> None:
    """
    The same message with a curve is answered.
    """
    for group, error in ((CURVE, ssl.SSLWantReadError), (FIELDS, ssl.SSLError)):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = server_context().wrap_bio(incoming, outgoing, server_side=True)
        incoming.write(hello(group))
        with pytest.raises(error) as raised:
            server.do_handshake()

        assert error is raised.type


def test_what_the_system_says_of_contexts_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Whatever its sections are called.
    """
    file = tmp_path / "openssl.cnf"
    monkeypatch.setitem(os.environ, "OPENSSL_CONF", str(file))
    assert {} == dict(OpenSSL().of_system())

    file.write_text(
        "openssl_conf = a\n[a]\nssl_conf = b\n[b]\nsystem_default = c\n[c]\n"
        "CipherString = DEFAULT@SECLEVEL=2\nGroups = P-256:ffdhe3072\n"
    )
    expected = {"CipherString": "DEFAULT@SECLEVEL=2", "Groups": "P-256:ffdhe3072"}
    assert expected == dict(OpenSSL().of_system())


@pytest.mark.parametrize(
    ("groups", "kept"),
    [
        ("P-256:ffdhe3072", "P-256"),
        ("?ffdhe2048/?X25519:?FFDHE3072", "?X25519"),
        ("X448", "X448"),
    ],
)
def test_the_groups_that_stay(groups: str, kept: str) -> None:
    """
    In their order.
    """
    assert kept == without_fields(groups)


@pytest.mark.parametrize("groups", [None, "", "ffdhe2048"])
def test_none_that_could_stay(groups: str | None) -> None:
    """
    The recommended curves are used.
    """
    assert without_fields(groups).endswith(CURVES)
