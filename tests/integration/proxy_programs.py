"""
The settings for reverse proxies in ``docs/operating.rst``, with the real programs:
nginx, HAProxy and Caddy. ``make test-proxies`` installs them and runs this.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.http import TIMEOUT_SECONDS
from tests.integration.twistd import Twistd
from tests.ports import unused_port

pytestmark = pytest.mark.integration

DOCUMENT: Final = Path(__file__).parent.parent.parent / "docs" / "operating.rst"
CLIENT: Final = "127.0.0.7"
"""
The address of the client: of this machine, and not that of the proxy.
"""

NGINX: Final = """
daemon off;
pid {folder}/pid;
error_log stderr;
worker_processes 1;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{settings}
}}
"""

COMMANDS: Final[dict[str, Callable[[str], list[str]]]] = {
    "nginx": lambda path: ["nginx", "-c", path, "-p", str(Path(path).parent)],
    "haproxy": lambda path: ["haproxy", "-db", "-f", path],
    "caddy": lambda path: ["caddy", "run", "--adapter", "caddyfile", "--config", path],
}


def settings(first_words: str, front: int, back: int) -> str:
    """
    The block of the document that begins with some words, for these ports.
    """
    text = DOCUMENT.read_text()
    blocks = re.findall(r"\.\. code-block:: \w+\n\n((?:   .*\n|\n)+)", text)
    (block,) = [one for one in blocks if one.strip().startswith(first_words)]
    block = block.replace("127.0.0.1:8080", f"127.0.0.1:{back}")
    block, count = re.subn(
        r"(listen |bind :|http://:)80\b",
        lambda found: f"{found[1]}{front}",
        block,
    )
    assert 1 == count
    return block


@contextmanager
def running(program: str, text: str, folder: Path, port: int) -> Iterator[None]:
    """
    A proxy that serves.
    """
    if program == "nginx":
        text = NGINX.format(folder=folder, settings=text)
    elif program == "caddy":
        text = "{\n    admin off\n}\n" + re.sub(r"(?m)^   ", "", text)
    else:
        text = re.sub(r"(?m)^   ", "", text)
    path = folder / f"{program}.conf"
    path.write_text(text)
    # Users' PATH may lack the folder where Debian has servers.
    found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")
    assert found is not None, f"{program} is not installed"
    command = [found, *COMMANDS[program](str(path))[1:]]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder)
    try:
        end = time.monotonic() + TIMEOUT_SECONDS
        while True:
            assert process.poll() is None, (folder / "output").read_text()
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            assert time.monotonic() < end
            time.sleep(0.05)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(TIMEOUT_SECONDS)


def stored_bytes(folder: Path) -> int:
    """
    How much is in the store, uploads in progress too.
    """
    return sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())


@pytest.mark.parametrize(
    ("program", "first_words", "is_connection_proxy"),
    [
        ("nginx", "upstream kvd", False),
        ("haproxy", "defaults\n       mode http", False),
        ("haproxy", "defaults\n       mode tcp", True),
        ("caddy", "http://:80", False),
    ],
)
def test_the_settings_do_what_they_say(
    tmp_path: Path, program: str, first_words: str, is_connection_proxy: bool
) -> None:
    """
    Connections stay open, bodies are passed on as they come, a client that expects 100
    gets it, and the log has the client.
    """
    values = tmp_path / "values"
    front = unused_port()
    listen = "--listen=tcp:0:interface=127.0.0.1" + ":proxy=1" * is_connection_proxy
    options = [
        *["--procs=2", "--store=file:values", "--durability=process", listen],
        *["--trusted-proxies=127.0.0.1", "--allowed-host=kvd.example"],
        *["--access-log=access.log", "--access-log-format=json"],
    ]
    fields = {"Host": "kvd.example", "X-Forwarded-For": "192.0.2.1"}
    with Twistd(options, tmp_path) as daemon:
        text = settings(first_words, front, daemon.port)
        with running(program, text, tmp_path, front):
            client = http.client.HTTPConnection(
                "127.0.0.1", front, TIMEOUT_SECONDS, source_address=(CLIENT, 0)
            )
            for number in range(5):
                body = b"%d" % number
                client.request("PUT", f"/small/{number}", body, fields)
                reply = client.getresponse()
                assert (201, b"") == (reply.status, reply.read())
                client.request("GET", f"/small/{number}", headers=fields)
                reply = client.getresponse()
                assert (200, body) == (reply.status, reply.read())
            connected = client.sock.getsockname()

            half = bytes(8_000_000)
            client.putrequest("PUT", "/large", skip_host=True)
            for name, value in fields.items():
                client.putheader(name, value)
            client.putheader("Content-Length", str(2 * len(half)))
            client.endheaders(half)
            end = time.monotonic() + TIMEOUT_SECONDS
            while stored_bytes(values) < len(half) // 2:
                assert time.monotonic() < end, "the body is kept back"
                time.sleep(0.05)
            client.send(half)
            reply = client.getresponse()
            assert (201, b"") == (reply.status, reply.read())
            client.request("GET", "/large", headers=fields)
            assert 2 * half == client.getresponse().read()
            assert connected == client.sock.getsockname()

            sock = client.sock
            sock.sendall(
                b"PUT /expected HTTP/1.1\r\nHost: kvd.example\r\nContent-Length: 5\r\n"
                b"Expect: 100-continue\r\n\r\n"
            )
            assert sock.recv(1000).startswith(b"HTTP/1.1 100 ")
            sock.sendall(b"value")
            said = b""
            # Caddy says 100 itself, and may pass on that of kvd too.
            while b"HTTP/1.1 201 " not in said:
                more = sock.recv(1000)
                assert more, said
                said += more
            assert [b"100"] * said.count(b"HTTP/1.1 100 ") + [b"201"] == re.findall(
                rb"HTTP/1\.1 (\d+) ", said
            )
            client.close()
        daemon.stop()

    entries = [
        json.loads(line) for line in (tmp_path / "access.log").read_text().splitlines()
    ]
    asked = [entry for entry in entries if entry["target"] not in (None, "/")]
    assert 13 == len(asked)
    assert {CLIENT} == {host_of(entry) for entry in asked}
    assert 1 == len({entry["proxy"] for entry in asked}), "connections to kvd stay open"


def host_of(entry: dict[str, Any]) -> str:
    """
    The address of a client in the access log.
    """
    client: str = entry["client"]
    return client.partition(":")[0]
