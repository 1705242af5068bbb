"""
What clients see of values that overtook each other, and of files that others have
changed, by the true daemon.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from tests.integration.http import Reply, ask
from tests.integration.small_disk import tmpfs
from tests.integration.twistd import Twistd

pytestmark = pytest.mark.integration


def options(fast_path: str, durability: str) -> list[str]:
    """
    Of a daemon whose workers all remember values.
    """
    return [
        *("--procs=2", "--policy=roundrobin", "--store=file:values"),
        *(f"--fast-path={fast_path}", f"--durability={durability}"),
    ]


def asked_of_all(port: int, method: str, target: str, **more: str) -> Reply:
    """
    What each worker says, twice: all say the same.
    """
    fields = {name.replace("_", "-"): value for name, value in more.items()}
    replies = [ask(port, method, target, None, fields) for _ in range(6)]
    said = {(reply.status, reply.body, reply.fields.get("etag")) for reply in replies}
    assert 1 == len(said), said
    return replies[0]


def second_of(date: str) -> int:
    """
    Of an HTTP date.
    """
    return int(parsedate_to_datetime(date).timestamp())


@pytest.mark.parametrize("fast_path", ["on", "off"])
@pytest.mark.parametrize("durability", ["process", "disk"])
def test_an_upload_that_is_overtaken_is_the_newest(
    tmp_path: Path, fast_path: str, durability: str
) -> None:
    """
    When it is published at last: caches and conditions see that the value changed.
    """
    with Twistd(options(fast_path, durability), tmp_path) as daemon:
        port = daemon.port
        with socket.create_connection(("127.0.0.1", port), 30) as slow:
            slow.sendall(
                b"PUT /doc HTTP/1.1\r\nHost: localhost\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n1\r\nA\r\n"
            )
            for body in (b"B", b"C"):
                assert ask(port, "PUT", "/doc", body).status in (201, 204)
            seen = asked_of_all(port, "GET", "/doc")
            assert b"C" == seen.body
            date = seen.fields["last-modified"]
            while time.time() < second_of(date) + 1:
                time.sleep(0.01)
            slow.sendall(b"0\r\n\r\n")
            assert slow.recv(1 << 16).startswith(b"HTTP/1.1 204 ")

        reply = asked_of_all(port, "GET", "/doc", If_Modified_Since=date)
        assert (200, b"A") == (reply.status, reply.body)
        later = reply.fields["last-modified"]
        assert second_of(date) < second_of(later) <= second_of(reply.fields["date"])
        unchanged = {"If-Unmodified-Since": date}
        assert 412 == ask(port, "PUT", "/doc", b"lost", unchanged).status
        assert 412 == ask(port, "DELETE", "/doc", None, unchanged).status
        reply = asked_of_all(port, "GET", "/doc", If_Range=date, Range="bytes=0-0")
        assert (200, b"A") == (reply.status, reply.body)
        assert 304 == asked_of_all(port, "GET", "/doc", If_Modified_Since=later).status


@pytest.mark.parametrize("fast_path", ["on", "off"])
def test_what_others_changed_is_theirs(tmp_path: Path, fast_path: str) -> None:
    """
    Whatever a worker remembers: new content, a new entity tag, no metadata.
    """
    with Twistd(options(fast_path, "process"), tmp_path) as daemon:
        port = daemon.port
        for body in (b"other", b"of another length", b""):
            put = ask(port, "PUT", "/k", b"value", {"Content-Type": "text/plain"})
            old = put.fields["etag"]
            assert b"value" == asked_of_all(port, "GET", "/k").body
            (tmp_path / "by-others").write_bytes(body)
            subprocess.run(["cp", "by-others", "values/k"], cwd=tmp_path, check=True)

            reply = asked_of_all(port, "GET", "/k", If_None_Match=old)
            assert (200, body) == (reply.status, reply.body)
            assert "application/octet-stream" == reply.fields["content-type"]
            assert old != reply.fields["etag"]
            assert 412 == ask(port, "DELETE", "/k", None, {"If-Match": old}).status
            assert 412 == ask(port, "PUT", "/k", b"x", {"If-Match": old}).status
            assert 204 == ask(port, "DELETE", "/k").status
            assert 404 == asked_of_all(port, "GET", "/k").status


@pytest.mark.parametrize("fast_path", ["on", "off"])
def test_forged_attributes_pass_nothing_on(tmp_path: Path, fast_path: str) -> None:
    """
    A reply holds no field that kvd would not have stored, and always comes.
    """
    path = tmp_path / "values/k"
    with Twistd(options(fast_path, "process"), tmp_path) as daemon:
        port = daemon.port
        for line in (
            b"content-type: a\rSet-Cookie: b",
            b"content-type: \xe2\x82\xac",
            b"content-type: \xff",
            b"transfer-encoding: chunked",
            b"content-length: 1",
            b"location: http://evil.example/",
            b"Content-Type: a",
        ):
            ask(port, "PUT", "/k", b"value")
            os.setxattr(path, "user.kvd", os.getxattr(path, "user.kvd") + line + b"\n")
            reply = asked_of_all(port, "GET", "/k")
            assert (200, b"value") == (reply.status, reply.body)
            assert "application/octet-stream" == reply.fields["content-type"]
            assert not {"set-cookie", "location", "transfer-encoding"} & {*reply.fields}
            assert "5" == reply.fields["content-length"]
            assert 204 == ask(port, "DELETE", "/k").status


def test_any_date_is_listed(tmp_path: Path) -> None:
    """
    Also by a file system that has all of them, in streams and in pages.
    """
    seconds = (-(2**40), -1, 0, 253402300799, 253402300800, 2**40)
    with (
        tmpfs(tmp_path / "values", "size=4m"),
        Twistd(options("on", "process"), tmp_path) as daemon,
    ):
        port = daemon.port
        for number, second in enumerate(seconds):
            path = tmp_path / f"values/{number}"
            path.write_bytes(b"value")
            os.utime(path, (second, second))
            assert second == path.stat().st_mtime
        for target in ("/", "/?limit=10"):
            reply = asked_of_all(port, "GET", target)
            assert 200 == reply.status
            lines = map(json.loads, reply.body.splitlines())
            dates = {line["key"]: line["changed"] for line in lines}
            assert "0001-01-01T00:00:00.000Z" == dates["0"]
            assert "1969-12-31T23:59:59.000Z" == dates["1"]
            assert "9999-12-31T23:59:59.000Z" == dates["3"]
            assert dates["3"] == dates["4"] == dates["5"]
        for number in range(len(seconds)):
            reply = asked_of_all(port, "GET", f"/{number}")
            assert (200, b"value") == (reply.status, reply.body)
            date, now = reply.fields["last-modified"], reply.fields["date"]
            assert second_of(date) <= second_of(now)
            assert 204 == ask(port, "PUT", f"/{number}", b"new").status
            date = asked_of_all(port, "GET", f"/{number}").fields["last-modified"]
            assert 0 <= time.time() - second_of(date) < 60


@pytest.mark.parametrize("fast_path", ["on", "off"])
def test_a_link_above_a_value_is_seen_by_all(tmp_path: Path, fast_path: str) -> None:
    """
    Those that remember the value, and those that do not.
    """
    values = tmp_path / "values"
    with Twistd(options(fast_path, "process"), tmp_path) as daemon:
        port = daemon.port
        ask(port, "PUT", "/a/k", b"value")
        assert b"value" == asked_of_all(port, "GET", "/a/k").body
        (values / "a").rename(values / "b")
        (values / "a").symlink_to("b")
        assert 404 == asked_of_all(port, "GET", "/a/k").status
        refused = ask(port, "PUT", "/a/k", b"other")
        assert 409 == refused.status
        assert b"/a, which is a link" in refused.body
        assert 404 == ask(port, "DELETE", "/a/k").status
        assert b"value" == asked_of_all(port, "GET", "/b/k").body


def test_a_store_that_was_restored(tmp_path: Path) -> None:
    """
    From a copy with attributes, to another daemon: all entity tags are as they were.
    """
    with Twistd(options("on", "disk"), tmp_path) as daemon:
        for number in range(40):
            ask(daemon.port, "PUT", f"/{number % 4}/{number}", b"%d" % number)
        listed = sorted(ask(daemon.port, "GET", "/").body.splitlines())
    assert 40 == len(listed)
    shutil.move(tmp_path / "values", tmp_path / "old")
    subprocess.run(["cp", "-a", "old", "values"], cwd=tmp_path, check=True)
    shutil.rmtree(tmp_path / "old")
    with Twistd(options("on", "disk"), tmp_path) as daemon:
        assert listed == sorted(ask(daemon.port, "GET", "/").body.splitlines())
        assert 204 == ask(daemon.port, "DELETE", "/1/1").status
