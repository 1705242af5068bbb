"""
The servers: kvd, and those that it is put beside.

Each has the same number of workers or threads, listens on loopback, keeps its
values below a folder that it is given, and writes no access log, as kvd does
where nobody asks for one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from bench.building import Programs
from bench.errors import BenchFailed
from bench.processes import answers, tree, unused_port, wait_for

WORKERS: Final = 2
_TWISTD: Final = "from twisted.scripts.twistd import run; run()"
_START_SECONDS: Final = 30


@dataclass(frozen=True)
class Running:
    """
    A server that answers.
    """

    port: int
    pids: Sequence[int]
    """All its processes, whose CPU time is its own."""


class Server(Protocol):
    """
    A server and how it is set up.
    """

    def start(
        self, programs: Programs, folder: Path
    ) -> AbstractContextManager[Running]:
        """
        Serve until the ``with`` is left.

        Args:
            folder: An empty one, for values and whatever else the server keeps.
        """


@dataclass(frozen=True)
class Kvd:
    """
    The daemon, with its defaults but for what is named here.
    """

    policy: str = "reuseport"
    durability: str = "process"
    null: bool = False
    """Values go to /dev/null."""
    sync_delay_ms: int = 0
    """How much longer each sync takes than the disk needs."""

    @contextmanager
    def start(self, programs: Programs, folder: Path) -> Iterator[Running]:
        port = unused_port()
        store = "null:" if self.null else f"file:{folder}/values"
        command = [
            sys.executable, "-c", _TWISTD, "-n", "--pidfile=", "kvd",
            f"--procs={WORKERS}", f"--policy={self.policy}", f"--store={store}",
            f"--durability={self.durability}", "--control=off",
            f"--listen=tcp:{port}:interface=127.0.0.1",
        ]  # fmt: skip
        environment = dict(os.environ)
        if self.sync_delay_ms:
            environment["LD_PRELOAD"] = str(programs.slow_sync)
            environment["SLOW_SYNC_MS"] = str(self.sync_delay_ms)
        with _started(command, folder, "kvd serves", environment) as process:
            yield Running(port, tree(process.pid))


@dataclass(frozen=True)
class Nginx:
    """
    nginx with its dav module.

    Set up as Debian does it (``sendfile``, ``tcp_nopush``), with listeners like
    kvd's, without a limit for bodies or for requests of a connection. Bodies wait
    where they are only renamed, not copied, once they are complete.
    """

    @contextmanager
    def start(self, programs: Programs, folder: Path) -> Iterator[Running]:
        port = unused_port()
        config = folder / "nginx.conf"
        # Workers of root would be nobody, who may not enter the folder.
        user = "user root;" if os.geteuid() == 0 else ""
        config.write_text(
            f"""
            daemon off; worker_processes {WORKERS}; {user}
            pid {folder}/nginx.pid; error_log {folder}/nginx.log;
            events {{ worker_connections 4096; }}
            http {{
                access_log off; sendfile on; tcp_nopush on;
                keepalive_requests 1000000000; client_max_body_size 0;
                client_body_temp_path {folder}/incoming;
                proxy_temp_path {folder}/unused; fastcgi_temp_path {folder}/unused;
                uwsgi_temp_path {folder}/unused; scgi_temp_path {folder}/unused;
                default_type application/octet-stream;
                server {{
                    listen 127.0.0.1:{port} reuseport backlog=4096;
                    root {folder}/values;
                    dav_methods PUT DELETE; create_full_put_path on;
                }}
            }}
            """
        )
        (folder / "values").mkdir()
        command = [str(programs.nginx), "-c", str(config), "-e", f"{folder}/nginx.log"]
        with _started(command, folder) as process:
            wait_for(lambda: answers(port))
            wait_for(lambda: len(tree(process.pid)) == 1 + WORKERS)
            yield Running(port, tree(process.pid))


@dataclass(frozen=True)
class CServer:
    """
    ``peers/server.c``: threads and epoll, and values written in place.
    """

    put: str = "readwrite"
    null: bool = False

    @contextmanager
    def start(self, programs: Programs, folder: Path) -> Iterator[Running]:
        port = unused_port()
        command = [
            str(programs.server), f"--port={port}", f"--threads={WORKERS}",
            f"--put={self.put}", "--null" if self.null else f"--root={folder}",
        ]  # fmt: skip
        with _started(command, folder, "serving") as process:
            yield Running(port, [process.pid])


@contextmanager
def _started(
    command: Sequence[str],
    folder: Path,
    says: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """
    A program, from when it has said something; ended with the ``with``.
    """
    log = folder / "log"
    with (
        log.open("wb") as output,
        subprocess.Popen(  # noqa: S603  # our own programs, and nginx
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
        ) as process,
    ):
        try:
            if says is not None:
                _await(process, log, says)
            yield process
            if process.poll() is not None:
                raise BenchFailed(f"{command[0]} ended early:\n{log.read_text()}")
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _await(process: subprocess.Popen[bytes], log: Path, says: str) -> None:
    def said() -> bool:
        return says in log.read_text() or process.poll() is not None

    try:
        wait_for(said, _START_SECONDS)
    except TimeoutError:
        pass  # told below, with what it said instead
    if says not in log.read_text():
        raise BenchFailed(
            f"{process.args!r} did not begin to serve:\n{log.read_text()}"
        )
