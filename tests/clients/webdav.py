"""
Clients of WebDAV against a daemon with several workers: litmus, rclone and cadaver,
with the settings in ``docs/clients/webdav.rst``.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.clients.running import ADDRESS, run, settings_in
from tests.integration.twistd import Twistd

PACKAGES: Final = {"litmus": "litmus", "rclone": "rclone", "cadaver": "cadaver"}
"""
Programs, and the packages of Debian that have them.
"""

SUITES: Final = ["basic", "copymove", "props", "locks", "http"]
"""
Of litmus.
"""

LARGE_BYTES: Final = 40_000_000

COMMANDS: Final = """mkcol made
cd made
put {folder}/large value
copy value copied
move copied moved
get moved {folder}/read
cd ..
rmcol made
ls
quit
"""


@contextmanager
def daemon(folder: Path) -> Iterator[Twistd]:
    """
    A daemon of two workers that take connections in turn.
    """
    options = [
        *["--dialect=/dav/=webdav", f"--store=file:{folder}/values", "--procs=2"],
        *["--policy=roundrobin", "--durability=process", "--control=off"],
    ]
    with Twistd(options, folder) as twistd:
        yield twistd


def litmus(folder: Path, address: str) -> str:
    """
    All its tests that need no locks.
    """
    # It takes the names of its suites from the variable that "make" has for tests.
    suites = {"TESTS": " ".join(SUITES)}
    said = run(folder, "litmus", f"http://{address}/dav/", environment=suites)
    passed = re.findall(r"summary for `(\w+)': of (\d+) tests run: \2 passed", said)
    assert SUITES == [name for name, _ in passed], said
    return ", ".join(f"{name} {count}" for name, count in passed)


def rclone(folder: Path, address: str, large_bytes: int = LARGE_BYTES) -> str:
    """
    Sync a tree up, again, damaged, and down.
    """
    config = folder / "rclone.conf"
    (text,) = settings_in("webdav", "ini")
    config.write_text(text.replace(ADDRESS, address))
    tree, back = folder / "tree", folder / "back"
    (tree / "sp ace é" / "deep").mkdir(parents=True)
    (tree / "large").write_bytes(random.randbytes(large_bytes))
    for name in "abc":
        (tree / "sp ace é" / "deep" / name).write_text(name)
    os.utime(tree / "large", (1_000_000_000, 1_000_000_000))

    def do(*arguments: str) -> str:
        command = ["rclone", "--config", str(config), "--stats-one-line", "-v"]
        return run(folder, *command, *arguments)

    do("sync", str(tree), "kvd:tree")
    assert "Copied" not in do("sync", str(tree), "kvd:tree")
    do("check", "--download", str(tree), "kvd:tree")
    (folder / "values" / "dav" / "tree" / "large").unlink()
    damaged = folder / "values" / "dav" / "tree" / "sp ace é" / "deep" / "a"
    damaged.write_text("damaged")
    assert 2 == do("sync", str(tree), "kvd:tree").count("Copied")
    do("moveto", "kvd:tree/large", "kvd:tree/moved/large")
    do("copy", "kvd:tree", str(back))
    moved = back / "moved" / "large"
    assert (tree / "large").read_bytes() == moved.read_bytes()
    assert 1_000_000_000 == moved.stat().st_mtime
    do("purge", "kvd:tree/sp ace é")
    assert ["moved/large"] == do("lsf", "-R", "--files-only", "kvd:tree").split("\n")[
        :1
    ]
    return f"a tree with {large_bytes} bytes up, again, damaged, moved and down"


def cadaver(folder: Path, address: str) -> str:
    """
    What somebody types.
    """
    (folder / "large").write_bytes(random.randbytes(1_000_000))
    said = run(
        folder,
        *["cadaver", f"http://{address}/dav/"],
        given=COMMANDS.format(folder=folder),
    )
    assert "failed" not in said, said
    assert (folder / "large").read_bytes() == (folder / "read").read_bytes()
    return f"{said.count('succeeded')} commands"


def main(folder: Path) -> None:
    """
    All of them.
    """
    with daemon(folder) as twistd:
        address = f"127.0.0.1:{twistd.port}"
        for client in (litmus, rclone, cadaver):
            inner = folder / client.__name__
            inner.mkdir()
            if client is rclone:
                (inner / "values").symlink_to(folder / "values")
            print(f"{client.__name__}: {client(inner, address)}")
        twistd.stop()
