"""
The true daemon on a file system that renames what is removed while it is open.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from random import Random

import pytest

from tests.chance import new_seed
from tests.exploring import TIMES
from tests.integration.fuse import fuse, needs_fuse, renamed_by_fuse
from tests.integration.http import ask, read_to_end
from tests.integration.test_daemon import eventually
from tests.integration.twistd import Twistd
from tests.patience import PATIENCE_SECONDS

pytestmark = [pytest.mark.integration, needs_fuse]

# More than the kernel takes from a server whose client does not read.
LARGE_BYTES = 6 << 20
OLD = os.urandom(1 << 20) * (LARGE_BYTES >> 20)
NEW = b"new"

READERS = 3
CHANGES = round(6 * TIMES)
MARK_BYTES = 16
# Of a value that is a mark again and again: the fast path serves the first of them.
REPEATS = (100, LARGE_BYTES // MARK_BYTES)


def options(durability: str, fast_path: str = "on") -> list[str]:
    """
    Of a daemon whose store is on FUSE.
    """
    return [
        *("--procs=2", "--policy=roundrobin", "--store=file:values"),
        *(f"--durability={durability}", f"--fast-path={fast_path}"),
    ]


def begin_to_read(port: int, target: str) -> socket.socket:
    """
    A client that has asked, and read no more than the first byte: the file is open.
    """
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    sock.settimeout(PATIENCE_SECONDS)
    sock.connect(("127.0.0.1", port))
    head = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    sock.sendall(head.encode())
    assert b"H" == sock.recv(1)
    return sock


def listed(port: int) -> list[str]:
    """
    All keys, as both kinds of listings have them.
    """
    streamed, page = (ask(port, "GET", target).body for target in ("/", "/?limit=99"))
    keys = sorted(json.loads(line)["key"] for line in streamed.splitlines())
    assert keys == [json.loads(line)["key"] for line in page.splitlines()]
    return keys


def is_whole(body: bytes) -> bool:
    """
    Whether it is one mark again and again.
    """
    return body in [body[:MARK_BYTES] * repeats for repeats in REPEATS]


def assert_emptied(port: int, targets: list[str], values: Path) -> None:
    """
    Nothing stays in the store once each of some keys has had a value, which was read,
    and lost it. Not always at once: whoever closes a file does not wait until FUSE
    knows, and if it is removed at the same moment, its folder has to stay once more.
    """

    def only_kvd_stays() -> bool:
        for target in targets:
            ask(port, "PUT", target, NEW)
            assert [NEW] * 4 == [ask(port, "GET", target).body for _ in range(4)]
            assert 204 == ask(port, "DELETE", target).status
        return [".kvd"] == os.listdir(values)

    eventually(only_kvd_stays, "folders went with their last values")
    for target in targets:
        assert 404 == ask(port, "GET", target).status


@pytest.mark.parametrize("durability", ["disk", "process"])
@pytest.mark.parametrize("change", ["DELETE", "PUT"])
def test_what_is_removed_while_it_is_read_is_no_key(
    tmp_path: Path, change: str, durability: str
) -> None:
    """
    The reader gets all of it, and nobody gets to it by the name that it has meanwhile.
    """
    with (
        fuse(tmp_path / "values") as values,
        Twistd(options(durability), tmp_path) as daemon,
    ):
        port = daemon.port
        assert 201 == ask(port, "PUT", "/films/one", OLD).status
        with begin_to_read(port, "/films/one") as reader:
            body = None if change == "DELETE" else NEW
            assert 204 == ask(port, change, "/films/one", body).status
            # At durability "process" what was replaced is kept for some seconds.
            eventually(lambda: bool(renamed_by_fuse(values)), "FUSE renamed it")
            (renamed,) = renamed_by_fuse(values)

            for _ in range(4):  # By each worker.
                found = ask(port, "GET", "/films/one")
                assert (404 if body is None else 200) == found.status
                assert body in (None, found.body)
            assert ([] if body is None else ["films/one"]) == listed(port)
            target = f"/films/{renamed.name}"
            for method in "GET", "HEAD", "PUT", "DELETE":
                sent = b"x" if method == "PUT" else None
                assert 400 == ask(port, method, target, sent).status
            assert len(OLD) == renamed.stat().st_size

            assert 201 == ask(port, "PUT", "/films/two", NEW).status
            assert NEW == ask(port, "GET", "/films/two").body
            expected = ["films/two"] if body is None else ["films/one", "films/two"]
            assert expected == listed(port)
            assert read_to_end(reader).endswith(b"\r\n\r\n" + OLD)

        eventually(lambda: not renamed_by_fuse(values), "FUSE removed it")
        assert_emptied(port, [f"/{key}" for key in expected], values)


def test_a_folder_that_had_to_stay_is_in_nobodys_way(tmp_path: Path) -> None:
    """
    It cannot go with its last value while that is read. Once that has been read it is
    as good as none, and goes with the next value.
    """
    with (
        fuse(tmp_path / "values") as values,
        Twistd(options("disk"), tmp_path) as daemon,
    ):
        port = daemon.port
        for target in "/films/old/one", "/films":
            assert 201 == ask(port, "PUT", "/films/old/one", OLD).status
            with begin_to_read(port, "/films/old/one") as reader:
                assert 204 == ask(port, "DELETE", "/films/old/one").status
                assert renamed_by_fuse(values)
                assert 409 == ask(port, "PUT", "/films", NEW).status
                assert read_to_end(reader).endswith(b"\r\n\r\n" + OLD)
            eventually(lambda: not renamed_by_fuse(values), "FUSE removed it")
            assert [] == listed(port)

            assert 201 == ask(port, "PUT", target, NEW).status
            assert_emptied(port, [target], values)


@pytest.mark.parametrize("fast_path", ["on", "off"])
def test_small_values_that_were_read_keep_no_folder(
    tmp_path: Path, fast_path: str
) -> None:
    """
    No worker holds them open for the next reader, as it does elsewhere.
    """
    with (
        fuse(tmp_path / "values") as values,
        Twistd(options("process", fast_path), tmp_path) as daemon,
    ):
        port = daemon.port
        for number in range(10):
            target = f"/films/{number}"
            assert 201 == ask(port, "PUT", f"{target}/one", NEW).status
            assert [NEW] * 4 == [
                ask(port, "GET", f"{target}/one").body for _ in range(4)
            ]
            assert 204 == ask(port, "DELETE", f"{target}/one").status
        eventually(lambda: not renamed_by_fuse(values), "nobody holds them")
        assert 201 == ask(port, "PUT", "/films", NEW).status
        assert_emptied(port, ["/films"], values)


class Crowd:
    """
    Clients that read some keys, and one that lists all, for the length of a ``with``.
    """

    def __init__(self, port: int, targets: list[str]) -> None:
        self._port = port
        self._targets = targets
        self._over = threading.Event()
        self._clients = [threading.Thread(target=self._list)]
        for number in range(READERS):
            self._clients += [threading.Thread(target=self._read, args=(number,))]
        self.wrong: SimpleQueue[str] = SimpleQueue()
        """What should not have been."""
        self.whole: SimpleQueue[str] = SimpleQueue()
        """The keys of values that were read."""

    def __enter__(self) -> Crowd:
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for client in self._clients:
            client.join()

    def _read(self, number: int) -> None:
        for turn in count(number):
            if self._over.is_set():
                break
            target = self._targets[turn % len(self._targets)]
            reply = ask(self._port, "GET", target)
            if reply.status == 200 and is_whole(reply.body):
                self.whole.put(target)
            elif reply.status != 404:
                self.wrong.put(f"{target}: {reply.status}, {len(reply.body)} bytes")

    def _list(self) -> None:
        while not self._over.is_set():
            for target in "/", "/?limit=99":
                lines = ask(self._port, "GET", target).body.splitlines()
                for key in [json.loads(line)["key"] for line in lines]:
                    if f"/{key}" not in self._targets:
                        self.wrong.put(f"{key} is listed")


@pytest.mark.explores
@pytest.mark.parametrize("fast_path", ["on", "off"])
@pytest.mark.parametrize("durability", ["disk", "process"])
def test_values_that_change_while_they_are_read_are_whole(
    tmp_path: Path, durability: str, fast_path: str
) -> None:
    """
    Many clients read them, and one lists them, while they are replaced and removed.
    """
    random = Random(new_seed())
    targets = [f"/{folder}/{name}" for folder in "ab" for name in "xy"]
    with (
        fuse(tmp_path / "values") as values,
        Twistd(options(durability, fast_path), tmp_path) as daemon,
    ):
        port = daemon.port
        renamed = 0
        for target in targets:
            mark = os.urandom(MARK_BYTES)
            assert 201 == ask(port, "PUT", target, mark * max(REPEATS)).status
        with Crowd(port, targets) as crowd:
            for _ in range(CHANGES):
                target = random.choice(targets)
                with begin_to_read(port, target) as reader:
                    # A large value that is read cannot go before it has been: the
                    # first one that is removed is renamed, however chance has it.
                    if not renamed or random.random() < 0.3:
                        assert ask(port, "DELETE", target).status in (204, 404)
                    else:
                        body = os.urandom(MARK_BYTES) * random.choice(REPEATS)
                        assert ask(port, "PUT", target, body).status in (201, 204)
                        assert body == ask(port, "GET", target).body
                    renamed += len(renamed_by_fuse(values))
                    head, _, body = read_to_end(reader).partition(b"\r\n\r\n")
                    assert is_whole(body) or head.startswith(b"TTP/1.1 404 ")

        assert crowd.wrong.empty(), crowd.wrong.get()
        assert not crowd.whole.empty()
        assert renamed
        eventually(lambda: not renamed_by_fuse(values), "FUSE removed all")
        assert_emptied(port, targets, values)
    # Here, since only what it wrote until it served is known before.
    assert not any("#error" in line for line in daemon.lines), daemon.lines
