"""
The servers: kvd and its baselines.

Each has the same number of workers or threads, listens on loopback, keeps its
values below a folder that it is given, and writes no access log, as kvd does
by default.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from bench.building import Programs
from bench.loads import Running
from kvd.lab.measuring.daemon import daemon
from kvd.lab.measuring.errors import BenchFailed
from kvd.lab.measuring.processes import (
    answers,
    started,
    stop,
    tail,
    tree,
    unused_port,
    wait_for,
)
from kvd.net.tls import CIPHERS

WORKERS: Final = 2
START_SECONDS: Final = 30


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
            folder: For values and the server's other files. It is empty, or has
                those of the last time.
        """


@dataclass(frozen=True)
class Kvd:
    """
    The daemon, with its defaults except for these settings.
    """

    policy: str | None = "reuseport"
    """None is the default."""
    durability: str = "process"
    null: bool = False
    """Values go to /dev/null."""
    sync_delay_ms: int = 0
    """How much longer each sync takes than the disk needs."""
    secure: bool = False
    """Serves over TLS."""
    dialects: Sequence[str] = ()
    """Each as ``--dialect`` takes it."""

    @contextmanager
    def start(self, programs: Programs, folder: Path) -> Iterator[Running]:
        store = "null:" if self.null else f"file:{folder}/values"
        options = [
            f"--procs={WORKERS}", f"--store={store}",
            f"--durability={self.durability}",
            *(f"--dialect={dialect}" for dialect in self.dialects),
        ]  # fmt: skip
        if self.policy is not None:
            options.append(f"--policy={self.policy}")
        environment = dict(os.environ)
        if self.sync_delay_ms:
            environment["LD_PRELOAD"] = str(programs.slow_sync)
            environment["SLOW_SYNC_MS"] = str(self.sync_delay_ms)
        port = unused_port()
        if self.secure:
            cert, key = programs.certificate
            files = f"cert={cert}:key={key}"
            options.append(f"--listen=tls:{port}:interface=127.0.0.1:{files}")
        with daemon(*options, cwd=str(folder), env=environment) as served:
            port = port if self.secure else served.port
            yield Running(port, tree(served.pid), folder, self.secure)


@dataclass(frozen=True)
class Nginx:
    """
    nginx with its dav module.

    Set up as Debian does it (``sendfile``, ``tcp_nopush``), with listeners like
    kvd's, without a limit for bodies or for requests of a connection. Bodies are
    written where they can be renamed, and need not be copied, when they are complete.
    """

    workers: int = WORKERS
    nopush: bool = True
    """``tcp_nopush``. With it, each range of 64 KiB waits 43 ms on loopback: the end of
    the body stays in the kernel until the client has acknowledged the rest."""
    secure: bool = False
    """Serves over TLS, with the versions and ciphers of kvd (TLS 1.3 chooses the same),
    and with session tickets, as by default."""

    def before(self) -> str:
        """
        What begins its settings.
        """
        return ""

    def methods(self) -> str:
        """
        The settings of what may be done to files.
        """
        return "dav_methods PUT DELETE;"

    @contextmanager
    def start(self, programs: Programs, folder: Path) -> Iterator[Running]:
        port = unused_port()
        config = folder / "nginx.conf"
        # Started by root, workers would run as nobody, which cannot enter the folder.
        user = "user root;" if os.geteuid() == 0 else ""
        secure = ""
        if self.secure:
            cert, key = programs.certificate
            secure = (
                f"ssl_certificate {cert}; ssl_certificate_key {key};"
                f" ssl_protocols TLSv1.2 TLSv1.3; ssl_ciphers {CIPHERS};"
            )
        config.write_text(
            f"""
            {self.before()}
            daemon off; worker_processes {self.workers}; {user}
            pid {folder}/nginx.pid; error_log {folder}/nginx.log;
            events {{ worker_connections 4096; }}
            http {{
                access_log off; sendfile on;
                tcp_nopush {"on" if self.nopush else "off"};
                keepalive_requests 1000000000; client_max_body_size 0;
                client_body_temp_path {folder}/incoming;
                proxy_temp_path {folder}/unused; fastcgi_temp_path {folder}/unused;
                uwsgi_temp_path {folder}/unused; scgi_temp_path {folder}/unused;
                default_type application/octet-stream;
                server {{
                    listen 127.0.0.1:{port} {"ssl" if secure else ""} reuseport
                        backlog=4096;
                    {secure}
                    root {folder}/values;
                    {self.methods()} create_full_put_path on;
                }}
            }}
            """
        )
        (folder / "values").mkdir(exist_ok=True)
        command = [str(programs.nginx), "-c", str(config), "-e", f"{folder}/nginx.log"]
        with serving(command, folder, port) as process:
            wait_for(lambda: len(tree(process.pid)) == 1 + self.workers)
            yield Running(port, tree(process.pid), folder, self.secure)


@dataclass(frozen=True)
class CServer:
    """
    ``baselines/server.c``: threads and epoll, and values written in place.
    """

    put: str = "readwrite"
    null: bool = False
    sync: bool = False
    """PUT syncs the file and its folder before it answers."""
    threads: int = WORKERS

    @contextmanager
    def start(self, programs: Programs, folder: Path) -> Iterator[Running]:
        port = unused_port()
        command = [
            str(programs.server), f"--port={port}", f"--threads={self.threads}",
            f"--put={self.put}", "--null" if self.null else f"--root={folder}",
            *(["--sync"] if self.sync else []),
        ]  # fmt: skip
        with serving(command, folder, port) as process:
            yield Running(port, [process.pid], folder)


@contextmanager
def serving(
    command: Sequence[str], folder: Path, port: int
) -> Iterator[subprocess.Popen[bytes]]:
    """
    A program, from the moment at which it listens; ended with the ``with``.
    """
    log = str(folder / "log")
    with (
        open(log, "wb") as output,
        started(command, stop, str(folder), stdout=output) as process,
    ):
        wait_for(lambda: answers(port) or process.poll() is not None, START_SECONDS)
        if process.poll() is not None or not answers(port):
            raise BenchFailed(f"{command[0]} did not begin to serve", tail(log))
        yield process
        if process.poll() is not None:
            raise BenchFailed(f"{command[0]} ended early", tail(log))
