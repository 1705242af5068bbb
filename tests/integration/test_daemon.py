"""
The true daemon, its workers, and what becomes of values when things go wrong.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from kvd.admin.control.asking import ControlSocket
from tests.integration.http import ask, ask_over, read_to_end, talk
from tests.integration.small_disk import tmpfs
from tests.integration.twistd import Twistd
from tests.patience import PATIENCE_SECONDS
from tests.processes import has_ended

pytestmark = pytest.mark.integration

POLICIES = [
    *("shared", "reuseport", "roundrobin", "leastbusy"),
    *("steered:by=turns", "steered:by=least"),
]


def eventually(condition: Callable[[], bool], what: str) -> None:
    """
    Wait until something holds, within a bound.
    """
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, f"it never came true that {what}"
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    """
    The processes that a process started.
    """
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except FileNotFoundError:
        return []
    return [int(word) for word in text.split()]


def processes_of(daemon: Twistd) -> list[int]:
    """
    The fork server and its workers.
    """
    return [
        pid
        for child in children(daemon.process.pid)
        for pid in (child, *children(child))
    ]


def workers_of(daemon: Twistd) -> list[int]:
    """
    The workers of a daemon.
    """
    return [pid for child in children(daemon.process.pid) for pid in children(child)]


def debris(store: Path) -> list[Path]:
    """
    What lies in the upload folders.
    """
    return [path for path in (store / ".kvd").glob("*/*") if path.is_file()]


def under_each_policy(options: Sequence[str], folder: Path) -> Iterator[Twistd]:
    """
    A daemon which is switched from policy to policy.
    """
    control = folder / "control"
    with (
        closing(ControlSocket(str(control))) as asked,
        Twistd([*options, f"--control={control}"], folder) as daemon,
    ):
        for policy in POLICIES:
            asked.change("policy", {"policy": policy})
            assert policy == asked.status()["policy"]
            yield daemon


def large_value_comes_back(daemon: Twistd, folder: Path, key: str) -> None:
    """
    40 MB put and fetched with curl are equal.
    """
    url = f"http://127.0.0.1:{daemon.port}/some/{key}"
    put = subprocess.run(
        ["curl", "-sS", "-T", "value", "-w", "%{http_code}", url],
        cwd=folder,
        capture_output=True,
        check=True,
        text=True,
    )
    subprocess.run(["curl", "-sSf", "-o", "got", url], cwd=folder, check=True)
    assert "201" == put.stdout
    subprocess.run(["cmp", "value", "got"], cwd=folder, check=True)


def test_a_large_value_comes_back_as_it_went(tmp_path: Path) -> None:
    """
    Over every policy.
    """
    (tmp_path / "value").write_bytes(os.urandom(40_000_000))
    options = ["--procs=4", "--store=file:values"]
    for number, daemon in enumerate(under_each_policy(options, tmp_path)):
        large_value_comes_back(daemon, tmp_path, f"{number}")


@pytest.mark.parametrize("policy", POLICIES)
def test_so_it_does_without_workers(tmp_path: Path, policy: str) -> None:
    """
    Whichever policy is named.
    """
    (tmp_path / "value").write_bytes(os.urandom(40_000_000))
    options = ["--policy", policy, "--procs=0", "--store=file:values"]
    with Twistd(options, tmp_path) as daemon:
        large_value_comes_back(daemon, tmp_path, "value")


def test_many_small_keys_over_many_connections(tmp_path: Path) -> None:
    """
    100 keys over 50 connections at once: put, listed, fetched, deleted, over every
    policy.
    """
    options = ["--procs=4", "--store=file:values"]
    for daemon in under_each_policy(options, tmp_path):
        with ThreadPoolExecutor(50) as clients:
            list(clients.map(each_key(daemon.port, "PUT", 201), range(50)))
            listing = ask(daemon.port, "GET", "/k/").body
            keys = {json.loads(line)["key"] for line in listing.splitlines()}
            assert {f"k/{number}" for number in range(100)} == keys
            list(clients.map(each_key(daemon.port, "GET", 200), range(50)))
            list(clients.map(each_key(daemon.port, "DELETE", 204), range(50)))
        assert b"" == ask(daemon.port, "GET", "/").body
        assert [] == [p for p in (tmp_path / "values").iterdir() if p.name != ".kvd"]


def each_key(port: int, method: str, expected: int) -> Callable[[int], None]:
    """
    A client of a number, which asks for each of its keys.
    """

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for key in range(number, 100, 50):
            body = b"%d" % key if method == "PUT" else None
            reply = ask_over(connection, method, f"/k/{key}", body)
            assert expected == reply.status
            if method == "GET":
                assert b"%d" % key == reply.body
        connection.close()

    return client


def test_a_counter_loses_nothing(tmp_path: Path) -> None:
    """
    8 clients over 4 workers raise one counter with If-Match.
    """
    with Twistd(["--procs", "4", "--durability", "process"], tmp_path) as daemon:
        ask(daemon.port, "PUT", "/counter", b"0")

        def client(_: int) -> None:
            raised = 0
            while raised < 10:
                now = ask(daemon.port, "GET", "/counter")
                reply = ask(
                    daemon.port,
                    "PUT",
                    "/counter",
                    b"%d" % (int(now.body) + 1),
                    {"If-Match": now.fields["etag"]},
                )
                assert reply.status in (204, 412)
                raised += reply.status == 204

        with ThreadPoolExecutor(8) as clients:
            list(clients.map(client, range(8)))

        assert b"80" == ask(daemon.port, "GET", "/counter").body


def test_one_of_a_thousand_creators_wins(tmp_path: Path) -> None:
    """
    If-None-Match: * over 4 workers gives exactly one 201.
    """
    with Twistd(["--procs", "4", "--durability", "process"], tmp_path) as daemon:

        def create(number: int) -> int:
            fields = {"If-None-Match": "*"}
            return ask(daemon.port, "PUT", "/once", b"%d" % number, fields).status

        with ThreadPoolExecutor(32) as clients:
            statuses = list(clients.map(create, range(1000)))

    assert (1, 999) == (statuses.count(201), statuses.count(412))


@pytest.mark.parametrize("policy", POLICIES)
def test_a_killed_worker_is_replaced(tmp_path: Path, policy: str) -> None:
    """
    Its connections are lost, its queue is not, and another takes its place.
    """
    with Twistd(["--policy", policy, "--procs", "2"], tmp_path) as daemon:
        ask(daemon.port, "PUT", "/k", b"v")
        before = workers_of(daemon)
        assert 2 == len(before)
        os.kill(before[0], signal.SIGKILL)
        for _ in range(100):
            assert b"v" == ask(daemon.port, "GET", "/k").body

        # The fork server may reap it later than others answer a hundred requests.
        eventually(
            lambda: len(set(workers_of(daemon)) - {before[0]}) == 2,
            "there are two other workers",
        )


def test_a_killed_supervisor_leaves_nobody_behind(tmp_path: Path) -> None:
    """
    Fork server and workers end by themselves.
    """
    with Twistd(["--procs", "3"], tmp_path) as daemon:
        everyone = processes_of(daemon)
        assert 4 == len(everyone)
        daemon.process.kill()
        daemon.process.wait()

        eventually(lambda: all(map(has_ended, everyone)), "all processes have ended")


def test_a_killed_fork_server_kills_no_worker(tmp_path: Path) -> None:
    """
    It is started anew, and workers that die later are replaced as before.
    """
    with Twistd(["--procs", "2"], tmp_path) as daemon:
        (forks,) = children(daemon.process.pid)
        workers = workers_of(daemon)
        os.kill(forks, signal.SIGKILL)
        eventually(
            lambda: bool(set(children(daemon.process.pid)) - {forks}),
            "there is another fork server",
        )
        assert not any(map(has_ended, workers))

        os.kill(workers[0], signal.SIGKILL)
        eventually(lambda: len(workers_of(daemon)) == 1, "the worker is replaced")
        assert 404 == ask(daemon.port, "GET", "/none").status


def test_uploads_of_a_killed_daemon_are_swept_and_live_ones_are_not(
    tmp_path: Path,
) -> None:
    """
    A second daemon on the folder leaves the first one's upload alone, and
    removes what a killed one left.
    """
    store = tmp_path / "values"
    options = ["--procs", "2", "--store", f"file:{store}"]
    begin = b"PUT /k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n12345"
    with Twistd(options, tmp_path) as first, talk(first.port) as upload:
        upload.sendall(begin)
        eventually(lambda: len(debris(store)) == 1, "the upload has begun")
        with Twistd(options, tmp_path) as second:
            assert 1 == len(debris(store))
            with talk(second.port) as other:
                other.sendall(begin)
                eventually(lambda: len(debris(store)) == 2, "there are two uploads")
                everyone = processes_of(second)
                second.process.kill()
                second.process.wait()
                eventually(lambda: all(map(has_ended, everyone)), "all have ended")
        with Twistd(options, tmp_path):
            assert 1 == len(debris(store))
        upload.sendall(b"67890")
        assert upload.recv(1000).startswith(b"HTTP/1.1 201 ")
        assert b"1234567890" == ask(first.port, "GET", "/k").body


@pytest.mark.parametrize("policy", POLICIES)
def test_a_worker_that_is_to_end_gives_its_place_to_others(
    tmp_path: Path, policy: str
) -> None:
    """
    It finishes what it has, nobody waits for it, and it is replaced.
    """
    options = ["--policy", policy, "--procs", "2", "--durability", "process"]
    with Twistd(options, tmp_path) as daemon, talk(daemon.port) as sock:
        ask(daemon.port, "PUT", "/k", b"v")
        sock.sendall(
            b"PUT /slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nab"
        )
        store = tmp_path / "values"
        eventually(lambda: len(debris(store)) == 1, "the upload has begun")
        before = set(workers_of(daemon))
        for worker in before:
            os.kill(worker, signal.SIGTERM)
            for _ in range(50):
                assert b"v" == ask(daemon.port, "GET", "/k").body
        sock.sendall(b"cd")
        assert read_to_end(sock).startswith(b"HTTP/1.1 201 ")
        eventually(
            lambda: len(set(workers_of(daemon)) - before) == 2, "both are replaced"
        )
        assert b"abcd" == ask(daemon.port, "GET", "/slow").body


def test_connections_dealt_to_a_stopped_worker_go_to_others(tmp_path: Path) -> None:
    """
    While it is stopped, and none of them is served twice when it goes on.
    """
    options = ["--policy", "roundrobin", "--procs", "3", "--durability", "process"]
    with Twistd([*options, "--access-log", "log"], tmp_path) as daemon:
        stopped = workers_of(daemon)[1]
        os.kill(stopped, signal.SIGSTOP)
        try:
            with ThreadPoolExecutor(10) as clients:
                replies = clients.map(
                    lambda number: ask(daemon.port, "PUT", f"/{number}", b"v").status,
                    range(60),
                )
                assert [201] * 60 == list(replies)
        finally:
            os.kill(stopped, signal.SIGCONT)
        for number in range(60, 90):
            assert 201 == ask(daemon.port, "PUT", f"/{number}", b"v").status
        daemon.stop()
    values = [tmp_path / "values" / str(number) for number in range(90)]
    assert [b"v"] * 90 == [value.read_bytes() for value in values]
    lines = (tmp_path / "log").read_text().splitlines()
    worker_of = {line.split()[5]: line.split()[1] for line in lines}
    assert 90 == len(lines) == len(worker_of)
    # It went on with its share.
    assert 3 == len({worker_of[f"/{number}"] for number in range(60, 90)})


@pytest.mark.parametrize("policy", POLICIES)
def test_sigterm_finishes_what_is_in_service(tmp_path: Path, policy: str) -> None:
    """
    The upload in progress is stored, and says that the connection ends.
    """
    options = ["--policy", policy, "--procs", "1"]
    with (
        Twistd(options, tmp_path) as daemon,
        talk(daemon.port) as sock,
        talk(daemon.port) as idle,
    ):
        sock.sendall(
            b"PUT /k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nab"
        )
        store = tmp_path / "values"
        eventually(lambda: len(debris(store)) == 1, "the upload has begun")
        idle.sendall(b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while not idle.recv(4096).endswith(b"\r\n\r\n"):
            pass
        daemon.process.send_signal(signal.SIGTERM)
        # The worker has heard of the end.
        assert b"" == idle.recv(1)

        def refused() -> bool:
            try:
                socket.create_connection(("127.0.0.1", daemon.port)).close()
            except OSError:
                return True
            return False

        eventually(refused, "no new connection is taken")
        sock.sendall(b"cd")
        reply = read_to_end(sock)
        daemon.process.wait(PATIENCE_SECONDS)

    assert reply.startswith(b"HTTP/1.1 201 ")
    assert b"Connection: close" in reply
    assert b"abcd" == (store / "k").read_bytes()


def test_draining_is_bounded(tmp_path: Path) -> None:
    """
    An upload that stands still is aborted, and leaves nothing.
    """
    options = ["--procs", "1", "--drain-timeout", "0.3"]
    with Twistd(options, tmp_path) as daemon, talk(daemon.port) as sock:
        sock.sendall(
            b"PUT /k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nab"
        )
        store = tmp_path / "values"
        eventually(lambda: len(debris(store)) == 1, "the upload has begun")
        daemon.stop()

    assert [] == debris(store)


def test_limits_hold_in_the_true_daemon(tmp_path: Path) -> None:
    """
    A head that does not end is answered 408 after its time.
    """
    options = ["--procs", "1", "--head-timeout", "0.2"]
    with Twistd(options, tmp_path) as daemon, talk(daemon.port) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n")
        assert read_to_end(sock).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("policy", POLICIES)
def test_connections_above_the_limit_wait(tmp_path: Path, policy: str) -> None:
    """
    Nothing is refused: the next one is served when another ends.
    """
    options = ["--policy", policy, "--procs", "1", "--max-connections", "1"]
    with Twistd(options, tmp_path) as daemon, talk(daemon.port) as first:
        first.sendall(b"GET /k HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert first.recv(1000).startswith(b"HTTP/1.1 404 ")
        with talk(daemon.port) as second:
            second.sendall(b"GET /k HTTP/1.1\r\nHost: localhost\r\n\r\n")
            second.settimeout(0.3)
            with pytest.raises(TimeoutError):
                second.recv(1000)
            first.close()
            second.settimeout(PATIENCE_SECONDS)
            assert second.recv(1000).startswith(b"HTTP/1.1 404 ")


def test_each_request_leaves_a_line_in_the_access_log(tmp_path: Path) -> None:
    """
    Of all workers, in one file.
    """
    options = ["--procs", "2", "--access-log", "access.log"]
    with Twistd(options, tmp_path) as daemon:
        for number in range(20):
            ask(daemon.port, "PUT", f"/k%20{number}", b"abc")
        daemon.stop()
    lines = (tmp_path / "access.log").read_text().splitlines()

    assert 20 == len(lines)
    assert all(" PUT /k%20" in line and " 201 3 " in line for line in lines)


def test_other_addresses_serve_too(tmp_path: Path) -> None:
    """
    IPv6 and a Unix socket beside IPv4, over every policy, and an interface twice where
    the kernel chooses the port; the socket's file goes at the end.
    """
    options = [
        "--procs", "2",
        "--listen", "tcp:0:interface=127.0.0.1",
        "--listen", "tcp:0:interface=[::1]",
        "--listen", "unix:kvd.sock",
        "--listen", "tcp:0:interface=127.0.0.2",
        "--listen", "tcp:0:interface=127.0.0.1",
    ]  # fmt: skip
    interfaces = "127.0.0.1", "::1", "127.0.0.2", "127.0.0.1"
    path = tmp_path / "kvd.sock"
    for daemon in under_each_policy(options, tmp_path):
        for address in zip(interfaces, daemon.ports, strict=True):
            with socket.create_connection(address) as remote:
                remote.sendall(b"GET /k HTTP/1.0\r\n\r\n")
                assert read_to_end(remote).startswith(b"HTTP/1.1 404 ")
        for _ in range(4):
            with socket.socket(socket.AF_UNIX) as local:
                local.connect(str(path))
                local.sendall(b"GET /k HTTP/1.0\r\n\r\n")
                assert read_to_end(local).startswith(b"HTTP/1.1 404 ")
        before = workers_of(daemon)
        os.kill(before[0], signal.SIGKILL)
        eventually(partial(replaced, daemon, before[0]), "the worker is replaced")
        assert path.exists()
    assert not path.exists()


def replaced(daemon: Twistd, pid: int) -> bool:
    """
    Whether there are two workers again after the death of one.
    """
    workers = workers_of(daemon)
    return len(workers) == 2 and pid not in workers


def refusal(options: list[str], folder: Path) -> str:
    """
    What a daemon says that does not start.
    """
    daemon = Twistd(options, folder)
    with pytest.raises(AssertionError, match="kvd ended before it served"):
        daemon.__enter__()
    assert 1 == daemon.process.returncode
    said = "".join(daemon.lines)
    assert "Traceback" not in said
    return said.strip().splitlines()[-1]


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    """
    Also where the kernel would let two daemons share it, whatever their policy.
    """
    for policy, daemon in zip(
        POLICIES, under_each_policy(["--procs=1"], tmp_path), strict=True
    ):
        said = refusal(
            ["--policy", policy, "--listen", f"tcp:{daemon.port}:interface=127.0.0.1"],
            tmp_path,
        )

        assert f"127.0.0.1:{daemon.port}" in said
        assert "in use" in said


def test_impossible_wishes_are_refused_in_a_sentence(tmp_path: Path) -> None:
    """
    Each names what was given and what would be right.
    """
    (tmp_path / "file").write_text("")
    table = [
        (["--procs", "-1"], ["-1", "0"]),
        (["--policy", "roundrobbin"], ["roundrobbin", "shared", "reuseport"]),
        (["--store", "file:file"], ["file", "folder"]),
        (["--store", "s4:bucket"], ["s4", "file", "null"]),
        (["--durability", "paper"], ["paper", "disk", "process"]),
        (["--listen", "tcp:http"], ["http"]),
        (["--dialect", "/=latin"], ["latin", "classic"]),
        (["--config", "missing.toml"], ["missing.toml"]),
    ]
    for options, words in table:
        said = refusal(options, tmp_path)
        for word in words:
            assert word in said, (options, said)


@pytest.mark.parametrize("procs", ["0", "2"])
def test_a_full_disk_is_507_and_leaves_nothing(tmp_path: Path, procs: str) -> None:
    """
    With a known length before the body, else in the middle of it; what fits
    afterwards is stored.
    """
    with (
        tmpfs(tmp_path / "disk", "size=1m") as disk,
        Twistd(["--procs", procs, "--store", f"file:{disk}"], tmp_path) as daemon,
    ):
        early = ask(daemon.port, "PUT", "/large", bytes(2_000_000))
        assert 507 == early.status
        with talk(daemon.port) as sock:
            sock.sendall(
                b"PUT /chunked HTTP/1.1\r\nHost: localhost\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n"
            )
            for _ in range(20):
                sock.sendall(b"%x\r\n%b\r\n" % (100_000, bytes(100_000)))
            assert read_to_end(sock).startswith(b"HTTP/1.1 507 ")
        assert [] == debris(disk)
        assert 404 == ask(daemon.port, "GET", "/chunked").status
        assert 201 == ask(daemon.port, "PUT", "/fits", bytes(500_000)).status
        assert bytes(500_000) == ask(daemon.port, "GET", "/fits").body


def test_no_inode_left_is_507(tmp_path: Path) -> None:
    """
    And a removal makes room again.
    """
    with (
        tmpfs(tmp_path / "disk", "size=1m,nr_inodes=12") as disk,
        Twistd(["--procs", "1", "--store", f"file:{disk}"], tmp_path) as daemon,
    ):
        statuses = [ask(daemon.port, "PUT", f"/{n}", b"x").status for n in range(12)]
        assert 507 == statuses[-1]
        assert {201, 507} == set(statuses)
        assert [] == debris(disk)
        assert 204 == ask(daemon.port, "DELETE", "/0").status
        assert 404 == ask(daemon.port, "GET", "/0").status
        assert 201 == ask(daemon.port, "PUT", "/again", b"x").status
        assert b"x" == ask(daemon.port, "GET", "/again").body


def test_a_store_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """
    At the start, in a sentence.
    """
    with tmpfs(tmp_path / "disk", "size=1m,ro") as disk:
        said = refusal(["--store", f"file:{disk}/values"], tmp_path)

    assert str(disk) in said


def test_two_daemons_on_one_folder_lose_nothing(tmp_path: Path) -> None:
    """
    A counter raised through both, with If-Match, is right in the end.
    """
    options = ["--procs", "2", "--durability", "process", "--store", "file:both"]
    with Twistd(options, tmp_path) as first, Twistd(options, tmp_path) as second:
        ports = [first.port, second.port]
        ask(ports[0], "PUT", "/counter", b"0")

        def client(number: int) -> None:
            raised = 0
            while raised < 10:
                now = ask(ports[number % 2], "GET", "/counter")
                reply = ask(
                    ports[number % 2],
                    "PUT",
                    "/counter",
                    b"%d" % (int(now.body) + 1),
                    {"If-Match": now.fields["etag"]},
                )
                raised += reply.status == 204

        with ThreadPoolExecutor(8) as clients:
            list(clients.map(client, range(8)))

        assert b"80" == ask(ports[1], "GET", "/counter").body


def test_no_spelling_leads_out_of_the_store(tmp_path: Path) -> None:
    """
    Whatever is asked for, the file beside the store is not read or written.
    """
    (tmp_path / "secret").write_text("secret")
    store = tmp_path / "values"
    with Twistd(["--procs", "1"], tmp_path) as daemon:
        (store / "link").symlink_to(tmp_path)
        (store / "file").symlink_to(tmp_path / "secret")
        spellings = [
            "/../secret",
            "/..%2fsecret",
            "/%2e%2e/secret",
            "/%2e%2e%2fsecret",
            "/a/../../secret",
            "/a/%2e%2e/%2e%2e/secret",
            "//secret",
            "/./../secret",
            f"//{tmp_path}/secret",
            "/link/secret",
            "/file",
            "/.kvd/lock",
            "/%2ekvd/lock",
            "/..%00/secret",
        ]
        for spelling in spellings:
            reply = ask(daemon.port, "GET", spelling)
            assert reply.status in (400, 404), spelling
            assert b"secret" != reply.body
            if spelling != "/file":
                reply = ask(daemon.port, "PUT", spelling, b"changed")
                assert reply.status in (400, 409), spelling
        assert 201 == ask(daemon.port, "PUT", "/file", b"changed").status
        assert b"changed" == ask(daemon.port, "GET", "/file").body
        listing = ask(daemon.port, "GET", "/").body.splitlines()

    assert "secret" == (tmp_path / "secret").read_text()
    assert ["file"] == [json.loads(line)["key"] for line in listing]


def test_the_null_store_keeps_nothing_and_says_so(tmp_path: Path) -> None:
    """
    Its durability is none.
    """
    with Twistd(["--procs", "1", "--store", "null:"], tmp_path) as daemon:
        reply = ask(daemon.port, "PUT", "/k", bytes(1_000_000))
        assert (201, "none") == (reply.status, reply.fields["kvd-durability"])
        assert 404 == ask(daemon.port, "GET", "/k").status
        assert b"" == ask(daemon.port, "GET", "/").body
    assert [] == list(tmp_path.iterdir())


def test_the_articles_dialect_is_spoken_where_it_was_chosen(tmp_path: Path) -> None:
    """
    Below its prefix.
    """
    for prefix in ("/", "/old/"):
        options = ["--procs", "1", "--dialect", f"{prefix}=classic"]
        folder = tmp_path / f"at{prefix.count('/')}"
        folder.mkdir()
        with Twistd(options, folder) as daemon:
            key = f"{prefix}k"
            assert 200 == ask(daemon.port, "PUT", f"{prefix}/k/", b"v").status
            stored = folder / "values" / key[1:]
            assert b"v" == stored.read_bytes()
            reply = ask(daemon.port, "GET", key)
            assert (200, b"v") == (reply.status, reply.body)
            assert 404 == ask(daemon.port, "HEAD", key).status
            assert 200 == ask(daemon.port, "DELETE", key).status
            assert not stored.exists()


def test_a_store_that_cannot_be_used_is_named_and_comes_back(tmp_path: Path) -> None:
    """
    Workers are tried again, the reason is said once, and service goes on.
    """
    hidden = tmp_path / "values" / ".kvd"
    with Twistd(["--procs", "1"], tmp_path) as daemon:
        ask(daemon.port, "PUT", "/k", b"v")
        (first,) = workers_of(daemon)
        shutil.rmtree(hidden)
        hidden.write_text("a file in its place")
        os.kill(first, signal.SIGKILL)
        seen = {first}

        def tried_again() -> bool:
            seen.update(workers_of(daemon))
            return len(seen) > 2

        eventually(tried_again, "workers are tried again")
        hidden.unlink()
        assert b"v" == ask(daemon.port, "GET", "/k").body
        daemon.stop()

    said = "".join(daemon.lines)
    # Whoever opens it just when the file goes may find neither a file nor a folder.
    reason = f"the store {hidden.parent} cannot be opened: Not a directory (.kvd)"
    assert 1 == said.count(reason), said
    assert 1 == said.count("was killed by SIGKILL"), said
