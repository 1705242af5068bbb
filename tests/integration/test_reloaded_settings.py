"""
Which settings hold at once on SIGHUP, which hold at a worker when it is replaced, and
which need a new start.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

import pytest

from tests.integration.http import ask_over
from tests.integration.test_hangup import read_until
from tests.integration.twistd import Twistd
from tests.patience import PATIENCE_SECONDS

pytestmark = pytest.mark.integration

RIGHTS: Final = """
[anonymous.rights]
"/" = ["read", "write"]
"""

BEFORE: Final = """
users = "users.toml"
allowed-hosts = ["one.example"]
trusted-proxies = "127.0.0.0/8"
[cors]
"/" = "https://one.example"
[limits]
max-value = "1MiB"
"""

AFTER: Final = """
users = "users.toml"
allowed-hosts = ["two.example"]
trusted-proxies = "off"
[cors]
"/" = "https://two.example"
[limits]
max-value = "1KiB"
"""


class Changed:
    """
    A daemon with one worker, which an upload keeps while the settings change.
    """

    def __init__(self, daemon: Twistd, folder: Path, stack: ExitStack) -> None:
        self.daemon = daemon
        self._folder = folder
        self._stack = stack

    def connect(self) -> HTTPConnection:
        """
        One more client.
        """
        port = self.daemon.port
        one = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
        self._stack.callback(one.close)
        return one

    def client_of(self, target: str) -> str:
        """
        The client that the access log names for a request.
        """
        log = self._folder / "access.log"
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            for entry in map(json.loads, log.read_text().splitlines()):
                if entry["target"] == target:
                    return str(entry["client"])
            time.sleep(0.05)
        raise AssertionError(target)


def first_host(changed: Changed, connection: HTTPConnection) -> bool:
    fields = {"Host": "one.example"}
    status = ask_over(connection, "GET", "/k", None, fields).status
    assert status in (200, 421)
    return status == 200


def first_origin(changed: Changed, connection: HTTPConnection) -> bool:
    fields = {"Origin": "https://one.example"}
    reply = ask_over(connection, "GET", "/k", None, fields)
    assert 200 == reply.status
    return "access-control-allow-origin" in reply.fields


def first_limit(changed: Changed, connection: HTTPConnection) -> bool:
    status = ask_over(connection, "PUT", "/long", bytes(5000)).status
    assert status in (201, 204, 413)
    return status != 413


def first_proxies(changed: Changed, connection: HTTPConnection) -> bool:
    target = f"/{time.monotonic_ns()}"
    ask_over(connection, "GET", target, None, {"X-Forwarded-For": "192.0.2.1"})
    return changed.client_of(target) == "192.0.2.1"


def write_again(changed: Changed, connection: HTTPConnection) -> bool:
    value = str(time.monotonic_ns()).encode()
    status = ask_over(connection, "PUT", "/once/k", value).status
    assert status in (201, 204, 409)
    return status != 409


def write_anything(changed: Changed, connection: HTTPConnection) -> bool:
    status = ask_over(connection, "PUT", "/cas/k", b"v").status
    assert status in (201, 204, 400)
    return status != 400


def write_where_all_may_read(changed: Changed, connection: HTTPConnection) -> bool:
    status = ask_over(connection, "PUT", "/read/k", b"v").status
    assert status in (201, 204, 401)
    return status != 401


IsAsBefore = Callable[[Changed, HTTPConnection], bool]

AT_ONCE: Final[list[IsAsBefore]] = [
    write_again,
    write_anything,
    write_where_all_may_read,
]
WHEN_REPLACED: Final[list[IsAsBefore]] = [
    first_host,
    first_origin,
    first_limit,
    first_proxies,
]

MORE_RIGHTS: Final = """
"/read/" = ["read"]
[prefixes."/once/"]
write-once = true
[prefixes."/cas/"]
content-addressed = true
"""


@contextmanager
def changing(folder: Path) -> Iterator[Changed]:
    """
    Before the change.
    """
    (folder / "values").mkdir()
    (folder / "values" / "k").write_text("value")
    (folder / "kvd.toml").write_text(BEFORE)
    (folder / "users.toml").write_text(RIGHTS)
    (folder / "users.toml").chmod(0o600)
    options = ["--procs=2", "--policy=roundrobin", "--config=kvd.toml"]
    options += ["--durability=process", "--store=file:./values", "--control=off"]
    options += ["--drain-timeout=600", "--access-log=access.log"]
    options += ["--access-log-format=json"]
    with Twistd(options, folder) as daemon, ExitStack() as stack:
        yield Changed(daemon, folder, stack)


def test_rights_hold_at_once_and_the_rest_when_a_worker_is_replaced(
    tmp_path: Path,
) -> None:
    """
    Uploads keep both workers: the first one drains, and the second waits for its turn.
    Its clients meet the new rights, and the rules of prefixes, and the old limits,
    origins, hosts and proxies. When the uploads have ended, all that is new holds.
    """
    with changing(tmp_path) as changed:
        # Of each pair, one is at each worker.
        uploads, kept = [[changed.connect() for _ in range(2)] for _ in range(2)]
        for number, upload in enumerate(uploads):
            upload.putrequest("PUT", f"/upload{number}")
            upload.putheader("Content-Length", "1000")
            upload.endheaders(bytes(100))
        for one in kept:
            for is_as_before in (*AT_ONCE, *WHEN_REPLACED):
                assert is_as_before(changed, one), is_as_before.__name__

        (tmp_path / "kvd.toml").write_text(AFTER)
        (tmp_path / "users.toml").write_text(RIGHTS + MORE_RIGHTS)
        changed.daemon.process.send_signal(signal.SIGHUP)
        read_until(changed.daemon, "all workers have the rights file")
        second = kept[1]
        deadline = time.monotonic() + PATIENCE_SECONDS
        for is_as_before in AT_ONCE:
            while is_as_before(changed, second):
                assert time.monotonic() < deadline, is_as_before.__name__
        for is_as_before in WHEN_REPLACED:
            assert is_as_before(changed, second), is_as_before.__name__

        for upload in uploads:
            upload.send(bytes(900))
            assert 201 == upload.getresponse().status
            upload.close()
        for one in kept:
            one.close()
        read_until(changed.daemon, "settings: done")
        for _ in range(2):
            one = changed.connect()
            for is_as_before in (*AT_ONCE, *WHEN_REPLACED):
                assert not is_as_before(changed, one), is_as_before.__name__


def test_the_room_for_values_needs_a_new_start(tmp_path: Path) -> None:
    """
    The log says so.
    """
    with changing(tmp_path) as changed:
        (tmp_path / "kvd.toml").write_text(f'max-size = "1MiB"\n{BEFORE}')
        changed.daemon.process.send_signal(signal.SIGHUP)
        read_until(changed.daemon, "max_size cannot change while kvd runs")
