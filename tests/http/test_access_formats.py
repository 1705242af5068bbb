"""
Tests for `kvd.http.access_formats`.
"""

import json
import random
import re
from dataclasses import replace
from typing import Final

import pytest

from kvd.http.access_formats import FORMATS, as_json, combined, plain
from kvd.http.access_log import NOBODY, Entry, Sender

ENTRY: Final = Entry(
    ended=1700000000.25,
    peer="127.0.0.1:4711",
    sender=Sender("ci", 1, "curl/8.5.0", "https://ci.example/build"),
    method="PUT",
    key="/a%20b",
    status=201,
    body_bytes=42,
    seconds=0.001234,
)

COMBINED: Final = re.compile(
    r'(\S+) - (\S+) \[([^]]+)\] "([^"]*)" ([0-9]{3}) ([0-9]+) "([^"]*)" "([^"]*)"'
)


def test_plain_line_has_all_of_a_request() -> None:
    """
    Time, worker, client, user, method, escaped key, status, bytes and seconds stand
    in one line, with single blanks between them.
    """
    assert (
        "2023-11-14T22:13:20.250Z worker=3 127.0.0.1:4711 ci PUT /a%20b 201 42 0.001234"
        == plain(ENTRY, worker=3)
    )


def test_a_user_is_one_word_whatever_the_name() -> None:
    """
    Certificates name users with blanks and in any letters; ``-`` is nobody.
    """
    table = [
        (None, "-"),
        ("-", "%2D"),
        ("ci@example.org", "ci@example.org"),
        ("Zoë X", "Zo%C3%AB%20X"),
        ('a"b%20\n', "a%22b%2520%0A"),
    ]
    for user, expected in table:
        entry = replace(ENTRY, sender=Sender(user))
        line = plain(entry, worker=3)
        assert expected == line.split(" ")[3]
        assert 9 == len(line.split())
        assert f" - {expected} [" in combined(entry, worker=3)


def test_combined_line_is_that_of_apache_and_nginx() -> None:
    """
    Client, user, time, request line, status, bytes, referer and user agent.
    """
    assert (
        '127.0.0.1 - ci [14/Nov/2023:22:13:20 +0000] "PUT /a%20b HTTP/1.1" 201 42'
        ' "https://ci.example/build" "curl/8.5.0"' == combined(ENTRY, worker=3)
    )


def test_combined_line_has_the_address_without_the_port() -> None:
    """
    Whatever kind of client it is.
    """
    table = [
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("203.0.113.9", "203.0.113.9"),
        ("unix", "unix"),
    ]
    for peer, expected in table:
        assert expected == combined(replace(ENTRY, peer=peer), 0).split(" ")[0]


def test_json_line_has_every_field() -> None:
    """
    Also those that the other formats have no room for.
    """
    entry = replace(ENTRY, peer="203.0.113.9", proxy="10.0.0.1:80")

    assert {
        "time": "2023-11-14T22:13:20.250Z",
        "worker": 3,
        "client": "203.0.113.9",
        "proxy": "10.0.0.1:80",
        "user": "ci",
        "method": "PUT",
        "target": "/a%20b",
        "protocol": "HTTP/1.1",
        "status": 201,
        "bytes": 42,
        "seconds": 0.001234,
        "referer": "https://ci.example/build",
        "agent": "curl/8.5.0",
    } == json.loads(as_json(entry, worker=3))


def test_what_is_unknown_is_said_to_be() -> None:
    """
    A head that could not be read, without any field.
    """
    entry = replace(ENTRY, sender=NOBODY, method="-", key="-", status=400)

    assert ' "-" 400 42 "-" "-"' in combined(entry, worker=0)
    read = json.loads(as_json(entry, worker=0))
    for name in ("user", "method", "target", "protocol", "referer", "agent", "proxy"):
        assert read[name] is None


@pytest.mark.parametrize("name", FORMATS)
def test_no_client_can_forge_a_line_or_a_field(name: str) -> None:
    """
    Whatever bytes a user agent, a referer or a user's name has: one line of ASCII, with
    as many fields as ever, and what was sent can be read back.
    """
    seed = random.randrange(2**32)
    print("seed", seed)
    source = random.Random(seed)
    nasty = list(b'"\\\r\n\t -[]{}\x00\x1b\x7f\xff\xc3\xa9a') + list(range(256))
    for _ in range(500):
        sent = bytes(source.choices(nasty, k=source.randrange(12)))
        text = sent.decode("utf-8", "surrogateescape")
        user = sent.decode("latin-1")
        line = FORMATS[name](replace(ENTRY, sender=Sender(user, 1, text, text)), 1)

        assert line.isascii()
        assert line.isprintable()
        if name == "plain":
            assert 9 == len(line.split(" "))
        elif name == "combined":
            match = COMBINED.fullmatch(line)
            assert match is not None
            for field in (match[7], match[8]):
                read = re.sub(
                    rb"\\x([0-9A-F]{2})",
                    lambda found: bytes.fromhex(found[1].decode()),
                    field.encode(),
                )
                assert sent == read
        else:
            read_back = json.loads(line)
            assert user == read_back["user"]
            assert sent.decode("utf-8", "backslashreplace") == read_back["agent"]
