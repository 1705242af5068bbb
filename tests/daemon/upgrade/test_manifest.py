"""
Tests for `kvd.daemon.upgrade.manifest`.
"""

from __future__ import annotations

import json
import socket
from dataclasses import replace

import pytest

from kvd.daemon.opening import Sockets
from kvd.daemon.upgrade.manifest import (
    adopted,
    decode,
    fixed_texts,
    make_manifest,
)
from kvd.errors import BadSetting
from kvd.net.listening import ListenerGroup, open_group
from kvd.settings import (
    TLS,
    Settings,
    SystemdAddress,
    TCPAddress,
    UNIXAddress,
)

SETTINGS = Settings(listen=(TCPAddress("127.0.0.1", 0),))


def open_two() -> ListenerGroup:
    """
    Two sockets at a port that the kernel chooses.
    """
    return open_group(TCPAddress("127.0.0.1", 0), 2)


def test_a_manifest_is_read_as_it_was_written() -> None:
    """
    With the descriptors of all sockets, and of what else is inherited.
    """
    group = open_two()
    try:
        written = make_manifest(SETTINGS, Sockets([group], group, None), 90, None)
        read = decode(written.encode())

        assert written.encode() == read.encode()
        members = [member.fileno() for member in group.members]
        assert [*members, *members, 90] == list(read.descriptors())
    finally:
        group.close()


def test_keys_of_a_later_version_are_ignored() -> None:
    """
    As long as the protocol is the same.
    """
    written = json.loads(
        make_manifest(SETTINGS, Sockets([], None, None), None, None).encode()
    )
    written["new"] = 1

    assert not list(decode(json.dumps(written).encode()).descriptors())


def test_an_older_version_does_not_say_whether_it_ignores_its_terminal() -> None:
    """
    Then it ends with that.
    """
    written = json.loads(
        make_manifest(SETTINGS, Sockets([], None, None), None, None, True).encode()
    )
    assert decode(json.dumps(written).encode()).ignores_hangup
    del written["ignores_hangup"]

    assert not decode(json.dumps(written).encode()).ignores_hangup


def test_another_protocol_is_refused() -> None:
    """
    Such versions need a restart.
    """
    written = json.loads(
        make_manifest(SETTINGS, Sockets([], None, None), None, None).encode()
    )
    written["protocol"] += 1
    with pytest.raises(
        BadSetting, match="they hand over in different ways; restart it"
    ):
        decode(json.dumps(written).encode())


@pytest.mark.parametrize(
    "listen", [TCPAddress("127.0.0.1", 0), SystemdAddress(""), None]
)
def test_inherited_sockets_are_not_this_process_to_remove(
    listen: TCPAddress | SystemdAddress | None,
) -> None:
    """
    Nor to add to, until it serves. Their address has the port that they really have.
    """
    group = open_two()
    handed = make_manifest(SETTINGS, Sockets([group], None, None), None, None).groups[0]
    copies = [socket.socket.dup(member) for member in group.members]
    port = group.members[0].getsockname()[1]
    group.close()
    handed = replace(handed, members=[copy.detach() for copy in copies])
    taken = adopted(handed, listen)
    try:
        assert TCPAddress("127.0.0.1", port) == taken.address
        assert (2, True, None) == (taken.given, taken.fixed, taken.inode)
    finally:
        taken.close()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (TCPAddress("127.0.0.1", 80), TCPAddress("127.0.0.1", 81)),
        (TCPAddress("127.0.0.1", 80), TCPAddress("127.0.0.1", 80, backlog=5)),
        (TCPAddress("127.0.0.1", 80), TCPAddress("127.0.0.1", 80, tls=TLS("a", "b"))),
        (SystemdAddress("web"), SystemdAddress("web", tls=TLS("a", "b"))),
        (UNIXAddress("/a"), UNIXAddress("/a", mode=0o600)),
    ],
)
def test_addresses_differ(
    before: TCPAddress | UNIXAddress, after: TCPAddress | UNIXAddress
) -> None:
    """
    Whatever belongs to the socket counts.
    """
    texts = [
        fixed_texts(Settings(listen=(each,)))["listen"] for each in (before, after)
    ]

    assert texts[0] != texts[1]


def test_files_of_tls_may_change() -> None:
    """
    The new daemon reads them itself.
    """
    one, other = (
        Settings(listen=(TCPAddress("::1", 443, tls=TLS(name, name)),)) for name in "ab"
    )

    assert fixed_texts(one) == fixed_texts(other)
