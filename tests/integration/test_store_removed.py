"""
A daemon whose store somebody clears up, moves or replaces while it serves, and one that
has no descriptors left.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.integration.http import ask, ask_over
from tests.integration.test_daemon import eventually, workers_of
from tests.integration.twistd import Twistd

pytestmark = pytest.mark.integration


def replace_one(daemon: Twistd) -> None:
    """
    Kill a worker and wait until another is in its place.
    """
    before = set(workers_of(daemon))
    os.kill(min(before), signal.SIGKILL)
    eventually(
        lambda: (
            len(set(workers_of(daemon)) - before) == 1
            and len(workers_of(daemon)) == len(before)
        ),
        "the worker is replaced",
    )


def created(port: int, key: str) -> int:
    """
    How many of eight clients that may only create a key at the same moment did.
    """
    only_new = {"If-None-Match": "*"}
    with ThreadPoolExecutor(8) as clients:
        replies = list(
            clients.map(
                lambda number: ask(port, "PUT", key, b"%d" % number, only_new), range(8)
            )
        )
    assert {201, 412} >= {reply.status for reply in replies}
    winners = [number for number, each in enumerate(replies) if each.status == 201]
    assert ask(port, "GET", key).body in [b"%d" % number for number in winners]
    return len(winners)


def serve(folder: Path) -> Twistd:
    """
    A daemon with two workers, between which connections alternate.
    """
    options = ["--store=file:values", "--procs=2", "--policy=roundrobin"]
    return Twistd([*options, "--durability=process", "--control=off"], folder)


def test_removed_folder_of_kvd(tmp_path: Path) -> None:
    """
    What was kvd's own is made anew, and after a worker was replaced, too, all workers
    lock the same keys: of those who may only create a key, one does.
    """
    hidden = tmp_path / "values/.kvd"
    with serve(tmp_path) as daemon:
        for number in range(12):
            assert 201 == ask(daemon.port, "PUT", f"/before-{number}", b"v").status
        shutil.rmtree(hidden)
        for number in range(12):
            assert 201 == ask(daemon.port, "PUT", f"/after-{number}", b"v").status
            assert 204 == ask(daemon.port, "PUT", f"/before-{number}", b"v").status
        for number in range(6):
            (hidden / "lock").unlink()
            if number % 2:
                replace_one(daemon)
            for key in range(8):
                assert 1 == created(daemon.port, f"/{number}/{key}")
        daemon.stop()
        text = "".join(daemon.lines)
    assert "Traceback" not in text
    assert ["attributes", "lock"] == sorted(os.listdir(hidden))


def test_moved_store(tmp_path: Path) -> None:
    """
    All workers go on with the folder that was there at the start, also those that are
    started when another has its name. The log says so.
    """
    values = tmp_path / "values"
    with serve(tmp_path) as daemon:
        daemon.read_on()
        assert 201 == ask(daemon.port, "PUT", "/key", b"value").status
        values.rename(tmp_path / "old")
        values.mkdir()
        replace_one(daemon)
        for _ in range(12):
            assert b"value" == ask(daemon.port, "GET", "/key").body
        for key in range(8):
            assert 1 == created(daemon.port, f"/new-{key}")
        # The new worker may only just have begun.
        eventually(
            lambda: (
                "is no longer the folder that kvd opened at its start"
                in "".join(daemon.lines)
            ),
            "the log says so",
        )
    assert [] == os.listdir(values)
    assert 10 == len(os.listdir(tmp_path / "old"))


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_no_descriptors(tmp_path: Path, durability: str) -> None:
    """
    A PUT meanwhile is answered 503 with Retry-After. When there are some again, it
    works; nothing is left behind.
    """
    options = ["--store=file:values", "--procs=0", f"--durability={durability}"]
    with Twistd([*options, "--control=off"], tmp_path) as daemon:
        pid = daemon.process.pid
        with closing(HTTPConnection("127.0.0.1", daemon.port)) as connection:
            assert 404 == ask_over(connection, "GET", "/a/b/c").status
            limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            used = max(int(name) for name in os.listdir(f"/proc/{pid}/fd"))
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 1, limits[1]))
            for number in range(20):
                reply = ask_over(connection, "PUT", f"/a/b/{number}", b"value")
                assert 503 == reply.status, reply.body
                assert "1" == reply.fields["retry-after"]
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
            assert 201 == ask_over(connection, "PUT", "/a/b/c", b"value").status
            assert b"value" == ask_over(connection, "GET", "/a/b/c").body
        assert 1 == len(list((tmp_path / "values/.kvd").glob("*-*")))
        daemon.stop()
    assert ["attributes", "lock"] == sorted(os.listdir(tmp_path / "values/.kvd"))
    assert ["c"] == os.listdir(tmp_path / "values/a/b")
