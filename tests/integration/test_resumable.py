"""
Uploads go on after their worker was killed, and after the daemon has ended.
"""

from __future__ import annotations

import os
import re
import signal
import socket
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from tests.chance import new_seed
from tests.integration.http import ask, talk
from tests.integration.test_daemon import children, eventually
from tests.integration.twistd import Twistd

pytestmark = pytest.mark.integration

SIZE = 8_000_000
OPTIONS = ["--procs=2", "--store=file:./values"]
PARTIAL = {"Content-Type": "application/partial-upload", "Upload-Complete": "?1"}


def holder_of(daemon: int, file: Path) -> int | None:
    """
    The worker that has a file open.
    """
    processes = [each for child in children(daemon) for each in children(child)]
    for process in processes:
        for descriptor in Path(f"/proc/{process}/fd").glob("*"):
            with suppress(OSError):
                if os.readlink(descriptor) == str(file):
                    return process
    return None


def send_a_part(sock: socket.socket, data: bytes, file: Path) -> None:
    """
    Send bytes, until a worker has written the last of them.
    """
    before = file.stat().st_size if file.exists() else 0
    sock.sendall(data)
    size = before + len(data)
    eventually(lambda: file.stat().st_size == size, "all was written")


def test_an_upload_outlives_its_worker_and_the_daemon(tmp_path: Path) -> None:
    """
    A worker is killed while it writes, then the daemon ends in the middle of the next
    request: in the end the value has the client's bytes.
    """
    random = Random(new_seed())
    body = random.randbytes(SIZE)
    first, second = sorted(random.sample(range(1, SIZE), 2))
    head = (
        "PUT /films/one HTTP/1.1\r\nHost: localhost\r\nContent-Type: video/x\r\n"
        f"Content-Length: {SIZE}\r\nUpload-Complete: ?1\r\n\r\n"
    )
    with Twistd(OPTIONS, tmp_path) as daemon:
        with talk(daemon.port) as sock:
            sock.sendall(head.encode())
            said = sock.recv(1 << 16)
            found = re.match(rb"HTTP/1\.1 104 [^\r]*\r\nLocation: (\S+)", said)
            assert found is not None, said
            location = found[1].decode()
            name = location.rpartition("=")[2]
            file = (tmp_path / "values/.kvd/resumable" / name).resolve()
            send_a_part(sock, body[:first], file)
            worker = holder_of(daemon.process.pid, file)
            assert worker is not None
            busy = ask(daemon.port, "DELETE", location)
            assert 503 == busy.status
            os.kill(worker, signal.SIGKILL)
            eventually(
                lambda: holder_of(daemon.process.pid, file) is None, "it is let go of"
            )
        assert 404 == ask(daemon.port, "GET", "/films/one").status
        state = ask(daemon.port, "HEAD", location)
        assert (204, str(first)) == (state.status, state.fields["upload-offset"])
        with talk(daemon.port) as sock:
            lines = "".join(f"{name}: {text}\r\n" for name, text in PARTIAL.items())
            lines += f"Content-Length: {SIZE - first}\r\nUpload-Offset: {first}\r\n"
            head = f"PATCH {location} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n"
            sock.sendall(head.encode())
            send_a_part(sock, body[first:second], file)
            os.kill(daemon.process.pid, signal.SIGKILL)
            daemon.process.wait()
    with Twistd(OPTIONS, tmp_path) as daemon:
        state = ask(daemon.port, "HEAD", location)
        assert (204, str(second)) == (state.status, state.fields["upload-offset"])
        fields = {**PARTIAL, "Upload-Offset": str(second)}
        reply = ask(daemon.port, "PATCH", location, body[second:], fields)
        assert (201, "?1") == (reply.status, reply.fields["upload-complete"])
        value = ask(daemon.port, "GET", "/films/one")
        assert body == value.body
        assert reply.fields["etag"] == value.fields["etag"]
        assert "video/x" == value.fields["content-type"]
        state = ask(daemon.port, "HEAD", location)
        assert ("?1", str(SIZE)) == (
            state.fields["upload-complete"],
            state.fields["upload-offset"],
        )
    assert not file.exists()
