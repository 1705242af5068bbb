"""
A daemon to measure.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kvd.admin.control.asking import ControlSocket
from kvd.lab.measuring.errors import BenchFailed
from kvd.lab.measuring.processes import started, stop, tail, unused_port, wait_for

START_SECONDS: Final = 60
_TWISTD: Final = "from twisted.scripts.twistd import run; run()"


@dataclass(frozen=True, slots=True)
class Daemon:
    """
    A daemon that serves.
    """

    port: int
    pid: int
    """Of the supervisor."""
    control: ControlSocket


@contextmanager
def daemon(
    *options: str,
    cwd: str | None = None,
    python: str = sys.executable,
    env: Mapping[str, str] | None = None,
) -> Iterator[Daemon]:
    """
    A daemon, from the moment at which all its workers are ready.

    Args:
        options: Of the daemon, beside its addresses.
        cwd: The folder that it runs in; by default one that is removed in the end.
        python: The interpreter of the installation that is meant.
        env: Its environment; by default this process's.

    Raises:
        BenchFailed: It ended early, or did not begin to serve.
    """
    port = unused_port()
    with short_folder() as folder:
        control, log = os.path.join(folder, "control"), os.path.join(folder, "log")
        command = [
            python, "-c", _TWISTD, "-n", "--pidfile=", "kvd", *options,
            f"--listen=tcp:{port}:interface=127.0.0.1", f"--control={control}",
        ]  # fmt: skip
        with (
            closing(ControlSocket(control)) as asked,
            open(log, "wb") as output,
            started(command, stop, cwd or folder, stdout=output, env=env) as process,
        ):
            wait_for(lambda: _serves(log) or process.poll() is not None, START_SECONDS)
            if not _serves(log):
                raise BenchFailed("the daemon did not begin to serve", tail(log))
            yield Daemon(port, process.pid, asked)
            if process.poll() is not None:
                raise BenchFailed("the daemon ended while it was measured", tail(log))


def _serves(log: str) -> bool:
    return b"kvd serves" in Path(log).read_bytes()


def short_folder() -> tempfile.TemporaryDirectory[str]:
    """
    A folder for a Unix socket and the like, removed in the end.
    """
    # Not below TMPDIR if that is long: the path of a Unix socket has at most 107
    # bytes (unix(7)).
    parent = tempfile.gettempdir()
    return tempfile.TemporaryDirectory(
        prefix="kvd-",
        dir="/tmp" if len(os.fsencode(parent)) > 80 else parent,  # noqa: S108
    )
