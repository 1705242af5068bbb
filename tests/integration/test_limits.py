"""
A daemon whose store has limits.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.integration.commands import run_kvd
from tests.integration.http import ask
from tests.integration.test_status import status_of, until
from tests.integration.twistd import Twistd

pytestmark = pytest.mark.integration

BLOCK = 4096
LIMIT = 50 * BLOCK


def usage_of(folder: Path) -> list[dict[str, Any]]:
    """
    What a daemon has counted, when it has.
    """
    until(lambda: all(quota["counted"] for quota in status_of(folder / "c")["usage"]))
    usage: list[dict[str, Any]] = status_of(folder / "c")["usage"]
    return usage


def sums(*arguments: str, folder: Path) -> dict[str, dict[str, int]]:
    """
    What ``kvd du`` says, by prefix.
    """
    done = run_kvd("du", "--json", *arguments, folder=folder)
    assert (0, "") == (done.returncode, done.stderr)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {row.pop("prefix"): row for row in rows}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """
    A folder with values from before.
    """
    values = tmp_path / "values" / "old"
    values.mkdir(parents=True)
    for number in range(20):
        (values / str(number)).write_bytes(bytes(2 * BLOCK))
    return tmp_path


def options(folder: Path, *more: str) -> list[str]:
    """
    Those of the daemons.
    """
    return [
        f"--store=file:{folder}/values",
        f"--control={folder}/c",
        f"--max-size={LIMIT}",
        "--procs=2",
        "--durability=process",
        *more,
    ]


def test_limit_refuses(folder: Path) -> None:
    """
    What is there counts, as do uploads that are on their way. A refusal comes before
    the body, and instead of ``100 Continue``. What a killed worker held can be used
    again. The next daemon knows the count from its first moment.
    """
    quota = "--quota=/small/=3000:full=refuse"
    with Twistd(options(folder, quota), folder) as daemon:
        whole, small = usage_of(folder)
        assert (40 * BLOCK, 20, LIMIT) == tuple(
            whole[name] for name in ("taken", "values", "limit")
        )
        assert ("/small/", 0) == (small["prefix"], small["taken"])
        assert 201 == ask(daemon.port, "PUT", "/a", bytes(5 * BLOCK)).status

        with socket.create_connection(("127.0.0.1", daemon.port), 30) as client:
            client.sendall(
                b"PUT /b HTTP/1.1\r\nHost: localhost\r\n"
                b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % (5 * BLOCK)
            )
            assert client.recv(1000).startswith(b"HTTP/1.1 100 ")
            client.sendall(b"part")
            refused = ask(daemon.port, "PUT", "/c", b"x", {"Expect": "100-continue"})
            assert 507 == refused.status
            assert b"no room for /c" in refused.body
            assert 5 * BLOCK == usage_of(folder)[0]["uploads"]
            for row in status_of(folder / "c")["workers"]:
                os.kill(row["pid"], signal.SIGKILL)
            assert client.recv(1000) == b""
        until(lambda: 0 == usage_of(folder)[0]["uploads"])

        assert 413 == ask(daemon.port, "PUT", "/small/a", bytes(3001)).status
        assert 413 == ask(daemon.port, "PUT", "/d", bytes(LIMIT + 1)).status
        assert 201 == ask(daemon.port, "PUT", "/b", bytes(5 * BLOCK)).status
        assert 507 == ask(daemon.port, "PUT", "/c", b"x").status
        assert 204 == ask(daemon.port, "DELETE", "/b").status
        assert 201 == ask(daemon.port, "PUT", "/c", b"x").status
        assert 46 * BLOCK == usage_of(folder)[0]["taken"]
    found = sums("--store", str(folder / "values"), folder=folder)
    assert (46 * BLOCK, 22) == (found[""]["taken"], found[""]["values"])
    assert 40 * BLOCK == found["old/"]["bytes"] <= found["old/"]["disk"]
    with Twistd(options(folder), folder) as daemon:
        assert 46 * BLOCK == status_of(folder / "c")["usage"][0]["taken"]
        url = f"http://127.0.0.1:{daemon.port}"
        asked = run_kvd("--url", url, "du", "old")
        assert asked.stdout.splitlines()[1].split() == [
            *("20", str(40 * BLOCK), str(40 * BLOCK), "/old/")
        ]


def test_limit_evicts(folder: Path) -> None:
    """
    Every PUT is stored, the last ones are there, and the limit holds; also where a
    body comes in chunks.
    """
    for number in range(20):
        os.utime(folder / "values" / "old" / str(number), (number, number))
    with Twistd(options(folder, "--full=evict"), folder) as daemon:
        for number in range(40):
            body: Any = bytes(3 * BLOCK)
            if number % 4 == 0:
                body = iter([body])
            assert 201 == ask(daemon.port, "PUT", f"/new/{number}", body).status
            assert 200 == ask(daemon.port, "GET", f"/new/{number}").status
            assert usage_of(folder)[0]["taken"] <= LIMIT
        assert 0 < usage_of(folder)[0]["evicted"]
        assert 404 == ask(daemon.port, "GET", "/old/0").status
    found = sums("--store", str(folder / "values"), folder=folder)
    assert found[""]["taken"] <= LIMIT
