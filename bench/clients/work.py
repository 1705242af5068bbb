"""
What users do: build a project, back up and mirror a folder of small files.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.building import find
from bench.clients.programs import CCACHE_WAITS
from bench.clients.servers import DAV_MODULE, NginxWebdav, RcloneRestic
from bench.loads import Running
from bench.servers import Kvd, Nginx, Server
from kvd.lab.measuring.errors import BenchFailed
from kvd.lab.measuring.processes import cpu_seconds

JOBS: Final = 2
TARGETS: Final = "libbb/", "coreutils/"
"""Of the project: a few hundred files, and nothing to link."""
FOLDERS: Final = 50
"""Among which small files are spread."""


@dataclass(frozen=True)
class Step:
    """
    One run of a client.
    """

    name: str
    seconds: float
    server_cpu_seconds: float
    said: str
    """The client's own counts."""


@dataclass(frozen=True)
class Work:
    """
    A client with what it is pointed at.
    """

    steps: Callable[[Running, Path], Sequence[Step]]
    """Takes the server, and the project or the small files."""
    servers: Mapping[str, Server]
    """kvd first."""
    packages: Mapping[str, str]
    """The Debian package of each program and file that it needs."""
    builds: bool = False
    """Whether it needs a project, or small files."""

    def check(self) -> None:
        """
        Check that all is there that it needs.

        Raises:
            BenchFailed: Something is missing; the message names its package.
        """
        for needed, package in self.packages.items():
            if not Path(needed).is_file():
                find(needed, package)


def ccache(server: Running, project: Path) -> Sequence[Step]:
    """
    Build with an empty server, and again in an empty container.
    """
    local = server.folder / "ccache"
    environment = os.environ | {
        "CCACHE_CONFIGPATH": os.devnull,
        "CCACHE_DIR": str(local),
        "CCACHE_REMOTE_STORAGE": (
            f"http://127.0.0.1:{server.port}/ccache|{CCACHE_WAITS}"
        ),
    }
    compiler = f"CC={find('ccache', 'ccache')} {find('gcc', 'gcc')}"
    steps = []
    for name in ("cold", "warm"):
        _run(project, environment, "make", "clean")
        shutil.rmtree(local, ignore_errors=True)
        with _timed(server) as timed:
            _run(project, environment, "make", f"-j{JOBS}", compiler, *TARGETS)
        said = _run(project, environment, "ccache", "--print-stats")
        counts = dict(line.split("\t") for line in said.splitlines())
        told = f"{counts['remote_storage_hit']} hits, {counts['cache_miss']} misses"
        steps.append(timed(name, told))
    return steps


def restic(server: Running, files: Path) -> Sequence[Step]:
    """
    Back up, back up again, restore.
    """
    environment = os.environ | {"RESTIC_PASSWORD": "secret"}
    command = [
        str(find("restic", "restic")), f"--cache-dir={server.folder}/cache",
        f"--repo=rest:http://127.0.0.1:{server.port}/restic/files/",
    ]  # fmt: skip
    _run(files, environment, *command, "init")
    steps = []
    for name in ("back up", "back up again"):
        with _timed(server) as timed:
            said = _run(files, environment, *command, "backup", ".")
        steps.append(timed(name, _found(r"Files: +(.*)", said)))
    target = server.folder / "restored"
    with _timed(server) as timed:
        _run(files, environment, *command, "restore", "latest", f"--target={target}")
    restored = sum(len(names) for _, _, names in os.walk(target))
    steps.append(timed("restore", f"{restored} files"))
    return steps


def rclone(server: Running, files: Path) -> Sequence[Step]:
    """
    Mirror a folder up, again, and down.
    """
    remote = f":webdav,url='http://127.0.0.1:{server.port}/dav/':files"
    command = [
        str(find("rclone", "rclone")), "--config=", "--stats=1h",
        "--stats-log-level=NOTICE", "sync",
    ]  # fmt: skip
    (server.folder / "values" / "dav").mkdir(parents=True, exist_ok=True)
    back = str(server.folder / "back")
    steps = []
    for name, source, target in (
        ("up", str(files), remote),
        ("up again", str(files), remote),
        ("down", remote, back),
    ):
        with _timed(server) as timed:
            said = _run(files, os.environ, *command, source, target)
        checks = re.search(r"Checks: +(\d+)", said)
        counts = re.findall(r"Transferred: +(\d+) / \d+,", said) or ["0"]
        checked = checks[1] if checks else "0"
        steps.append(timed(name, f"{counts[-1]} transferred, {checked} checked"))
    _run(files, os.environ, "diff", "-r", ".", back)
    return steps


WORKS: Final[Mapping[str, Work]] = {
    "ccache": Work(
        ccache,
        {"kvd": Kvd(policy=None), "nginx": Nginx()},
        {"ccache": "ccache", "gcc": "gcc", "make": "make"},
        builds=True,
    ),
    "restic": Work(
        restic,
        {
            "kvd": Kvd(policy=None, dialects=("/restic/=restic",)),
            "rclone serve": RcloneRestic(),
        },
        {"restic": "restic", "rclone": "rclone"},
    ),
    "rclone": Work(
        rclone,
        {
            "kvd": Kvd(policy=None, dialects=("/dav/=webdav",)),
            "nginx": NginxWebdav(),
        },
        {"rclone": "rclone", str(DAV_MODULE): "libnginx-mod-http-dav-ext"},
    ),
}


def small_files(folder: Path, count: int) -> None:
    """
    Files of 100 to 8,000 bytes that do not compress.
    """
    chance = random.Random(0)  # the same in each run
    for number in range(count):
        inner = folder / str(number % FOLDERS)
        inner.mkdir(parents=True, exist_ok=True)
        (inner / str(number)).write_bytes(chance.randbytes(chance.randint(100, 8000)))


@contextmanager
def _timed(server: Running) -> Iterator[Callable[[str, str], Step]]:
    """
    Give what makes a step of the time between beginning and end.
    """
    before = cpu_seconds(server.pids)
    began = time.monotonic()
    measured: list[float] = []

    def step(name: str, said: str) -> Step:
        seconds, spent = measured
        return Step(name, seconds, spent, said)

    yield step
    measured += [time.monotonic() - began, cpu_seconds(server.pids) - before]


def _found(pattern: str, said: str) -> str:
    matched = re.search(pattern, said)
    if matched is None:
        raise BenchFailed(f"{pattern!r} is not in what the client said: {said}")
    return matched[1]


def _run(folder: Path, environment: Mapping[str, str], *command: str) -> str:
    done = subprocess.run(  # noqa: S603
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BenchFailed(f"{command[0]} failed", done.stdout[-2000:])
    return done.stdout
