"""
Clients of WebDAV against a daemon with several workers: litmus, rclone, cadaver and
davfs2, with the settings in ``docs/clients/webdav.rst``.
"""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

from tests.clients.running import ADDRESS, TIMEOUT_SECONDS, run, settings_in
from tests.integration.fuse import missing_for_fuse
from tests.integration.twistd import Twistd

PACKAGES: Final = {
    "litmus": "litmus",
    "rclone": "rclone",
    "cadaver": "cadaver",
    "mount.davfs": "davfs2",
}
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
lock moved
put {folder}/large moved
unlock moved
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
    All its tests.
    """
    # It takes the names of its suites from the variable that "make" has for tests.
    suites = {"TESTS": " ".join(SUITES)}
    said = run(folder, "litmus", f"http://{address}/dav/", environment=suites)
    passed = re.findall(r"summary for `(\w+)': of (\d+) tests run: \2 passed", said)
    assert SUITES == [name for name, _ in passed], said
    # Without class 2 it would skip most of these.
    assert "41" == dict(passed)["locks"], said
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


@contextmanager
def mounted(folder: Path, address: str) -> Iterator[Path]:
    """
    The store as a folder, for as long as the context lasts; all is uploaded then.
    """
    config = folder / "davfs2.conf"
    config.write_text(settings_in("webdav", "text")[0])
    config.chmod(0o600)
    place = folder / "mounted"
    place.mkdir(exist_ok=True)
    url = f"http://{address}/dav/"
    run(folder, "mount.davfs", "-o", f"conf={config}", url, str(place))
    try:
        yield place
    finally:
        run(folder, "umount", str(place))
        name = str(place)[1:].replace("/", "-")
        for left in Path("/var/cache/davfs2").glob(f"*+{name}+*"):
            shutil.rmtree(left)


def davfs2(folder: Path, address: str) -> str:
    """
    A file that is copied, moved and read back; one that is locked while it is open; and
    one that another client has removed.
    """
    missing = missing_for_fuse()
    if missing:
        return f"not run: {missing}"
    content = random.randbytes(LARGE_BYTES)

    def put_elsewhere(name: str) -> int:
        asked = HTTPConnection(address, timeout=TIMEOUT_SECONDS)
        with closing(asked):
            asked.request("PUT", f"/dav/davfs2/{name}", b"theirs")
            return asked.getresponse().status

    with mounted(folder, address) as place:
        (place / "davfs2").mkdir()
        with (place / "davfs2" / "open").open("w") as file:
            file.write("ours")
            file.flush()
            assert 423 == put_elsewhere("open")
        (place / "davfs2" / "large").write_bytes(content)
        (place / "davfs2" / "large").rename(place / "davfs2" / "moved")
    assert 204 == put_elsewhere("open")
    with mounted(folder, address) as place:
        names = sorted(path.name for path in (place / "davfs2").iterdir())
        assert ["moved", "open"] == names
        assert content == (place / "davfs2" / "moved").read_bytes()
        assert b"theirs" == (place / "davfs2" / "open").read_bytes()
    (folder / "values" / "dav" / "davfs2" / "moved").unlink()
    with mounted(folder, address) as place:
        assert not (place / "davfs2" / "moved").exists()
        (place / "davfs2" / "open").unlink()
        (place / "davfs2").rmdir()
    assert not (folder / "values" / "dav" / "davfs2").exists()
    return f"{LARGE_BYTES} bytes copied, moved and read; locked while open; deleted"


def main(folder: Path) -> None:
    """
    All of them.
    """
    with daemon(folder) as twistd:
        address = f"127.0.0.1:{twistd.port}"
        for client in (litmus, rclone, cadaver, davfs2):
            inner = folder / client.__name__
            inner.mkdir()
            if client in (rclone, davfs2):
                (inner / "values").symlink_to(folder / "values")
            print(f"{client.__name__}: {client(inner, address)}")
        twistd.stop()
