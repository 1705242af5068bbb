"""
What a daemon inherits, or becomes, and who owns and reads what it makes: its umask,
and the user that ``twistd --uid`` makes of it.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.http import ask
from tests.integration.twistd import RUN_TWISTD, Twistd
from tests.patience import PATIENCE_SECONDS
from tests.privileges import take_root
from tests.processes import has_ended

pytestmark = pytest.mark.integration

NOBODY = pwd.getpwnam("nobody").pw_uid
GROUP = 4711
"""
A group that has no name.
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """
    A folder that anybody can get to; those of pytest are for one user alone.
    """
    path = tempfile.mkdtemp(prefix="kvd-test-")
    os.chmod(path, 0o755)
    yield Path(path)
    shutil.rmtree(path)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """
    What a process that is started meanwhile inherits.
    """
    old = os.umask(mask)
    try:
        yield
    finally:
        os.umask(old)


def modes(folder: Path) -> dict[str, str]:
    """
    The permissions of everything below a folder.
    """
    found = {}
    for path in (folder, *folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not name.startswith(".kvd/") or name == ".kvd/lock":
            found[name] = f"{path.stat().st_mode & 0o7777:o}"
    return found


def owners(folder: Path) -> set[tuple[int, int]]:
    """
    Whose everything below a folder is, and the folder itself.
    """
    found = (path.stat() for path in (folder, *folder.rglob("*")))
    return {(status.st_uid, status.st_gid) for status in found}


def put_some(port: int) -> None:
    """
    Small values again and again, so that some take the fast path, and a larger one.
    """
    for number in range(8):
        for key in ("k", "a/k"):
            status = ask(port, "PUT", f"/{key}", b"%d" % number).status
            assert status == (204 if number else 201)
    assert 201 == ask(port, "PUT", "/a/b/large", bytes(200_000)).status
    assert b"7" == ask(port, "GET", "/a/k").body
    assert 200_000 == len(ask(port, "GET", "/a/b/large").body)


VALUES = ("k", "a/k", "a/b/large", ".kvd/lock")
FOLDERS = (".", "a", "a/b", ".kvd")


@pytest.mark.parametrize("procs", ["0", "2"])
@pytest.mark.parametrize("durability", ["process", "disk"])
def test_no_umask_decides(folder: Path, procs: str, durability: str) -> None:
    """
    Values and folders have the modes of the settings, whatever the umask.
    """
    options = [f"--procs={procs}", f"--durability={durability}", "--policy=roundrobin"]
    for mask, file, made in ((0, "644", "755"), (0o077, "660", "2770")):
        store = folder / f"{mask}"
        more = [f"--store=file:{store}", "--file-mode", file, "--folder-mode", made]
        with umask(mask), Twistd([*options, *more], folder) as daemon:
            put_some(daemon.port)
            expected = dict.fromkeys(VALUES, file) | dict.fromkeys(FOLDERS, made)
            assert expected == modes(store)


def test_a_daemon_in_the_background(folder: Path) -> None:
    """
    twistd sets a umask of 077 then, which is not for values.
    """
    command = [sys.executable, "-c", RUN_TWISTD, "--pidfile=pid", "--logfile=log"]
    command += ["kvd", "--procs=2", "--store=file:values"]
    command += ["--listen=tcp:0:interface=127.0.0.1"]
    subprocess.run(command, cwd=folder, check=True, timeout=PATIENCE_SECONDS)
    pid = int(wait_for_text(folder / "pid"))
    try:
        log = wait_for_text(folder / "log", ", durability ")
        [port] = re.findall(r"kvd serves http://127\.0\.0\.1:(\d+) from", log)
        put_some(int(port))
        expected = dict.fromkeys(VALUES, "644") | dict.fromkeys(FOLDERS, "755")
        assert expected == modes(folder / "values")
    finally:
        os.kill(pid, signal.SIGTERM)
        wait_until_gone(pid)


def wait_for_text(path: Path, text: str = "\n") -> str:
    """
    What a file holds, once it has a text.
    """
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        found = path.read_text() if path.exists() else ""
        if text in found or (text == "\n" and found):
            return found
        assert time.monotonic() < end, f"{path} never had {text!r}: {found}"
        time.sleep(0.02)


def wait_until_gone(pid: int) -> None:
    """
    Until a process has ended.
    """
    end = time.monotonic() + PATIENCE_SECONDS
    while not has_ended(pid):
        assert time.monotonic() < end, f"process {pid} does not end"
        time.sleep(0.02)


BECOMING = ["--uid", str(NOBODY), "--gid", str(GROUP)]


def start_as_nobody(options: Sequence[str], folder: Path) -> Twistd:
    """
    A daemon that root starts, and that goes on as nobody.
    """
    take_root("becoming another user")
    options = [*options, "--store=file:values", "--control=off"]
    return Twistd(options, folder, python_for_all(folder), before=BECOMING)


def python_for_all(folder: Path) -> str:
    """
    This Python, where any user may start it. One that is installed in root's home is
    open to others within the daemon's own view of the file systems only.
    """
    paths = (Path(os.path.realpath(sys.executable)), Path(sys.prefix), Path(__file__))
    closed = {
        around
        for path in paths
        for around in path.parents
        if not around.stat().st_mode & 0o001
    }
    if not closed:
        return sys.executable
    (over,) = closed
    script = folder / "python"
    upper = f"{folder}/upper"
    script.write_text(
        f"""#!/bin/sh
exec unshare --mount sh -c '
    mkdir -p {upper} && mount -t tmpfs kvd-test {upper} &&
    mkdir {upper}/new {upper}/work &&
    mount -t overlay -o lowerdir={over},upperdir={upper}/new,workdir={upper}/work \\
        kvd-test {over} &&
    chmod 755 {over} && exec {sys.executable} "$@"' python "$@"
"""
    )
    script.chmod(0o755)
    return str(script)


@pytest.mark.parametrize("procs", ["0", "2"])
def test_a_fresh_store_is_that_users(folder: Path, procs: str) -> None:
    """
    With all that is in it, the near cache and the logs, though root alone may write to
    the folder around them; so it is at the second start, and after each worker's end.
    """
    options = [f"--procs={procs}", "--access-log=log", "--record=record"]
    options += ["--near=file:cache?max-size=1MiB"]
    for start in (1, 2):
        with start_as_nobody(options, folder) as daemon:
            for number in range(8):
                key = f"/start{start}/{number}"
                assert 201 == ask(daemon.port, "PUT", key, b"value").status
                assert b"value" == ask(daemon.port, "GET", key).body
        assert {(NOBODY, GROUP)} == owners(folder / "values")
        assert {(NOBODY, GROUP)} == owners(folder / "cache")
        assert 8 * start == len(list((folder / "cache").glob("??/*")))
        for name in ("log", "record"):
            status = (folder / name).stat()
            assert (NOBODY, GROUP) == (status.st_uid, status.st_gid)
        assert 16 * start == len((folder / "log").read_text().splitlines())


def test_what_that_user_cannot_use_is_refused(folder: Path) -> None:
    """
    At the start, in a sentence: a store or a log of root's.
    """
    (folder / "log").touch(0o640)
    refused = refusal_as_nobody(["--access-log=log"], folder)
    assert (
        f"the access log {folder}/log cannot be written: Permission denied" in refused
    )
    shutil.rmtree(folder / "values")

    (folder / "values").mkdir()
    refused = refusal_as_nobody([], folder)
    assert f"the store {folder}/values cannot be opened: Permission denied" in refused
    assert {(0, 0)} == owners(folder / "values")


def refusal_as_nobody(options: Sequence[str], folder: Path) -> str:
    """
    What is said instead of a start.
    """
    with pytest.raises(AssertionError) as raised:
        start_as_nobody(options, folder).__enter__()
    return str(raised.value)


def test_a_user_that_does_not_exist_is_refused(folder: Path) -> None:
    """
    In a sentence too.
    """
    take_root("becoming another user")
    with pytest.raises(AssertionError, match="--uid 4711: there is no user of this"):
        Twistd(["--store=file:values"], folder, before=["--uid=4711"]).__enter__()


def test_a_store_of_that_user_is_used(folder: Path) -> None:
    """
    By its group too, as an administrator has it; nothing of it changes hands.
    """
    values = folder / "values"
    values.mkdir()
    take_root("becoming another user")
    os.chown(values, 0, GROUP)
    os.chmod(values, 0o2770)
    with start_as_nobody(["--file-mode=660", "--folder-mode=2770"], folder) as daemon:
        put_some(daemon.port)

    assert (0, GROUP) == (values.stat().st_uid, values.stat().st_gid)
    for name in VALUES:
        status = (values / name).stat()
        assert (NOBODY, GROUP, 0o660) == (
            *(status.st_uid, status.st_gid),
            status.st_mode & 0o7777,
        )
