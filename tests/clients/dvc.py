"""
DVC over plain HTTP, WebDAV and S3, with the settings in ``docs/clients/dvc.rst``.
"""

from __future__ import annotations

import os
import random
import re
import shutil
from pathlib import Path
from typing import Final

from tests.clients.running import (
    ADDRESS,
    damage,
    exports_in,
    fails,
    from_pypi,
    run,
    settings_in,
)
from tests.integration.twistd import Twistd

PACKAGES: Final = {"git": "git"}

FROM_PYPI: Final = ("dvc==3.67.1", "dvc-http", "dvc-webdav", "dvc-s3")

LARGE_BYTES: Final = 40_000_000

NAMES: Final = ("large", "folder/a", "folder/b", "folder/c")

FOLDERS: Final = {"http": "dvc", "webdav": "dav", "s3": "s3/dvc"}
"""
Where each remote's values are.
"""


class Repository:
    """
    A large file and a folder, under version control.
    """

    def __init__(self, folder: Path, address: str) -> None:
        """
        Args:
            folder: Where it is made.
            address: Of kvd.
        """
        program = from_pypi("dvc", *FROM_PYPI) / "dvc"
        self._folder = folder / "repository"
        self._folder.mkdir()
        path = f"{program.parent}:{os.environ['PATH']}"
        exported = exports_in("dvc", address)
        self._environment = exported | {"PATH": path, "DVC_NO_ANALYTICS": "1"}
        run(self._folder, "git", "init", "--quiet")
        self.do("init", "--quiet")
        (shown,) = settings_in("dvc", "ini")
        config = self._folder / ".dvc" / "config"
        config.write_text(shown.replace(ADDRESS, address))
        self._content = [random.randbytes(LARGE_BYTES), b"a", b"b", b"c"]
        self.restore()

    def do(self, *arguments: str) -> str:
        """
        What a command prints, which has to succeed.
        """
        return run(self._folder, "dvc", *arguments, environment=self._environment)

    def restore(self) -> None:
        """
        Put all back, as on the machine where it was made.
        """
        (self._folder / "folder").mkdir(exist_ok=True)
        for name, content in zip(NAMES, self._content, strict=True):
            (self._folder / name).write_bytes(content)
        self.do("add", "--quiet", "large", "folder")

    def forget(self) -> None:
        """
        Remove all that is not under git's control.
        """
        shutil.rmtree(self._folder / ".dvc" / "cache")
        shutil.rmtree(self._folder / "folder", ignore_errors=True)
        (self._folder / "large").unlink(missing_ok=True)

    def pull(self, remote: str) -> None:
        """
        Get all again.
        """
        self.forget()
        self.do("pull", "--remote", remote)
        assert self._content == self._read()

    def fail_to_pull(self, remote: str) -> None:
        """
        The large file does not come.
        """
        self.forget()
        command = "dvc", "pull", "--remote", remote
        said = fails(self._folder, *command, environment=self._environment)
        assert not (self._folder / "large").exists(), said

    def _read(self) -> list[bytes]:
        return [(self._folder / name).read_bytes() for name in NAMES]


def main(folder: Path) -> None:
    """
    Each kind of remote.
    """
    options = [
        *["--dialect=/dav/=webdav", "--dialect=/s3/=s3", "--procs=2", "--control=off"],
        *[f"--store=file:{folder}/values", "--durability=process"],
        "--policy=roundrobin",
    ]
    with Twistd(options, folder) as daemon:
        repository = Repository(folder, f"127.0.0.1:{daemon.port}")
        version = repository.do("--version").strip()
        for remote, values in FOLDERS.items():
            said = exchanged(repository, remote, folder / "values" / values)
            print(f"dvc {version}, {remote}: {said}")
        daemon.stop()


def exchanged(repository: Repository, remote: str, stored: Path) -> str:
    """
    Push, push again and pull; with a damaged value and with a deleted one.
    """
    push = "push", "--remote", remote
    (pushed,) = re.findall(r"(\d+) files? pushed", repository.do(*push))
    assert "Everything is up to date" in repository.do(*push)
    repository.pull(remote)
    found = [path for path in stored.rglob("*") if path.is_file()]
    large = max(found, key=lambda path: path.stat().st_size)
    for spoil in (lambda: damage(large, 0), lambda: large.unlink(missing_ok=True)):
        spoil()
        repository.fail_to_pull(remote)
        # Whoever has the file sends it again.
        large.unlink(missing_ok=True)
        repository.restore()
        repository.do(*push)
        repository.pull(remote)
    return f"{pushed} files pushed once and pulled; a damaged and a deleted one noticed"
