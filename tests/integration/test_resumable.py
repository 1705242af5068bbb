"""
Uploads go on after their worker was killed, and after the daemon has ended.
"""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import threading
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from tests.chance import new_seed
from tests.integration.commands import run_kvd
from tests.integration.http import ask, talk
from tests.integration.test_daemon import children, eventually
from tests.integration.twistd import Twistd
from tests.processes import has_ended

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
            writer = holder_of(daemon.process.pid, file)
            assert writer is not None
            os.kill(daemon.process.pid, signal.SIGKILL)
            daemon.process.wait()
            # It has seen that its daemon is gone: until then the upload is its own.
            eventually(lambda: has_ended(writer), "it lets go")
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


class Cutting:
    """
    A proxy that closes some connections when so much has come from the client.
    """

    def __init__(self, port: int, after: int, times: int) -> None:
        self._target = port
        self._after = after
        self._times = times
        self.taken = 0
        """Bytes from the client, over all connections."""
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Cutting:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._server.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._server.accept()
                with near, talk(self._target) as far:
                    self._relay(near, far)

    def _relay(self, near: socket.socket, far: socket.socket) -> None:
        count = 0
        while True:
            ready, _, _ = select.select([near, far], [], [])
            for one, other in ((near, far), (far, near)):
                if one not in ready:
                    continue
                data = one.recv(1 << 16)
                if not data:
                    return
                if one is near:
                    count += len(data)
                    self.taken += len(data)
                other.sendall(data)
            if self._times and count > self._after:
                self._times -= 1
                return


def test_put_goes_on_where_its_connection_broke(tmp_path: Path) -> None:
    """
    What has come is not sent again: all connections together take little more than the
    file.
    """
    body = Random(new_seed()).randbytes(20_000_000)
    (tmp_path / "file").write_bytes(body)
    with (
        Twistd(OPTIONS, tmp_path) as daemon,
        Cutting(daemon.port, 6_000_000, times=2) as proxy,
    ):
        url = f"http://127.0.0.1:{proxy.port}"
        done = run_kvd("--url", url, "put", "films/one", "file", folder=tmp_path)
        assert (0, "") == (done.returncode, done.stderr)
        assert body == ask(daemon.port, "GET", "/films/one").body
        # What was on its way when a connection was cut is sent again.
        assert len(body) < proxy.taken < len(body) + 2 * 6_000_000
        assert [] == [
            name
            for name in os.listdir(tmp_path / "values/.kvd/resumable")
            if not name.endswith(".json")
        ]
