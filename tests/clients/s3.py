"""
Clients of S3 against a daemon with several workers, with the settings in
``docs/clients/s3.rst``: boto3, aws-cli, rclone, s3cmd and pyarrow.

Those from PyPI are installed into an environment of their own.
"""

from __future__ import annotations

import os
import random
import re
import sys
import venv
from pathlib import Path
from typing import Final

from tests.clients.running import ADDRESS, run, settings_in
from tests.integration.twistd import Twistd

PACKAGES: Final = {"rclone": "rclone", "s3cmd": "s3cmd"}

# With the checksums that botocore does not compute itself.
FROM_PYPI: Final = ("boto3[crt]", "awscli", "pyarrow")

LARGE_BYTES: Final = 40_000_000

SCRIPTS: Final = Path(__file__).with_name("s3_scripts.py")

_KEY: Final = "KVDKEYOFYOURSEXAMPLE"
_SECRET: Final = "the-secret-that-kvd-has-printed-once"


class Clients:
    """
    Programs with the settings of the page.
    """

    def __init__(self, folder: Path, address: str, key: str) -> None:
        """
        Args:
            folder: Where they run, and find their settings.
            address: Of the daemon.
            key: As ``kvd user s3-key`` has printed it.
        """
        self._folder = folder
        self._address = address
        self._key = key
        name, secret = re.findall(r" = (\S+)", key)
        self._given = {ADDRESS: address, _KEY: name, _SECRET: secret}
        self._python = folder / "venv" / "bin" / "python"
        self.values = folder / "values"

    def install(self) -> None:
        """
        Those from PyPI.
        """
        venv.create(self._folder / "venv", with_pip=True)
        run(self._folder, str(self._python), "-m", "pip", "install", "-q", *FROM_PYPI)

    def _shown(self, language: str, beginning: str) -> str:
        (text,) = (each for each in settings_in("s3", language) if beginning in each)
        for old, new in self._given.items():
            text = text.replace(old, new)
        return text

    def _write(self, path: str, text: str) -> None:
        (self._folder / path).parent.mkdir(exist_ok=True)
        (self._folder / path).write_text(text)

    def make_tree(self) -> Path:
        """
        Files to store.
        """
        tree = self._folder / "tree"
        (tree / "sp ace é" / "deep").mkdir(parents=True)
        (tree / "large").write_bytes(random.randbytes(LARGE_BYTES))
        (tree / "empty").touch()
        for name in "abc":
            (tree / "sp ace é" / "deep" / name).write_text(name)
        return tree

    def script(self, name: str, beginning: str) -> str:
        """
        A library.
        """
        self._write(f"{name}.py", self._shown("py", beginning))
        command = [
            str(self._python),
            # The modules beside the script have names of libraries.
            "-P",
            str(SCRIPTS),
            name,
            str(self._folder / f"{name}.py"),
        ]
        return run(self._folder, *command).strip().rpartition("\n")[2]

    def aws(self) -> str:
        """
        A tree up, again, damaged, and down.
        """
        self._write(".aws/config", self._shown("ini", "[profile kvd]"))
        self._write(".aws/credentials", f"[kvd]\n{self._key}")
        command = [str(self._folder / "venv" / "bin" / "aws"), "--profile", "kvd", "s3"]

        def do(*arguments: str) -> str:
            return run(self._folder, *command, *arguments)

        do("mb", "s3://aws")
        do("sync", "tree", "s3://aws/tree", "--no-progress")
        assert "upload" not in do("sync", "tree", "s3://aws/tree", "--no-progress")
        self._damage("aws/tree")
        assert 2 == do("sync", "tree", "s3://aws/tree", "--no-progress").count(
            "upload:"
        )
        do("cp", "--recursive", "s3://aws/tree", "aws-back", "--no-progress")
        run(self._folder, "diff", "-r", "tree", "aws-back")
        do("mv", "s3://aws/tree/large", "s3://aws/moved", "--no-progress")
        do("cp", "s3://aws/moved", "moved", "--no-progress")
        run(self._folder, "cmp", "tree/large", "moved")
        listed = do("ls", "--recursive", "s3://aws")
        assert 5 == len(listed.splitlines()), listed
        do("rm", "--recursive", "s3://aws")
        do("rb", "s3://aws")
        return f"{LARGE_BYTES} bytes up, again, damaged, moved and down"

    def _damage(self, tree: str) -> None:
        """
        One object is gone, and one has another length.
        """
        (self.values / tree / "empty").unlink()
        (self.values / tree / "sp ace é" / "deep" / "b").write_text("damaged")

    def rclone(self) -> str:
        """
        Likewise.
        """
        self._write("rclone.conf", self._shown("ini", "type = s3"))
        command = ["rclone", "--config", "rclone.conf", "--stats-one-line", "-v"]

        def do(*arguments: str) -> str:
            return run(self._folder, *command, *arguments)

        do("sync", "tree", "kvd:rclone/tree")
        assert "Copied" not in do("sync", "tree", "kvd:rclone/tree")
        do("check", "--download", "tree", "kvd:rclone/tree")
        self._damage("rclone/tree")
        assert 2 == do("sync", "tree", "kvd:rclone/tree").count("Copied")
        do("copy", "kvd:rclone/tree", "rclone-back")
        run(self._folder, "diff", "-r", "tree", "rclone-back")
        do("moveto", "kvd:rclone/tree/large", "kvd:rclone/moved")
        assert "moved" in do("lsf", "kvd:rclone")
        do("purge", "kvd:rclone")
        return f"{LARGE_BYTES} bytes up, again, damaged, moved and down"

    def s3cmd(self) -> str:
        """
        Likewise.
        """
        self._write(".s3cfg", self._shown("ini", "host_bucket"))

        def do(*arguments: str) -> str:
            return run(self._folder, "s3cmd", "--no-progress", *arguments)

        do("mb", "s3://cmd")
        do("sync", "tree/", "s3://cmd/tree/")
        assert "upload:" not in do("sync", "tree/", "s3://cmd/tree/")
        self._damage("cmd/tree")
        assert 2 == do("sync", "tree/", "s3://cmd/tree/").count("upload:")
        (self._folder / "cmd-back").mkdir()
        do("sync", "s3://cmd/tree/", "cmd-back/")
        run(self._folder, "diff", "-r", "tree", "cmd-back")
        do("cp", "s3://cmd/tree/large", "s3://cmd/copied")
        do("del", "-r", "--force", "s3://cmd")
        do("rb", "s3://cmd")
        return f"{LARGE_BYTES} bytes up, again, damaged, copied and down"


def main(folder: Path) -> None:
    """
    All of them.
    """
    # rclone would not start with it.
    os.environ.pop("AWS_CA_BUNDLE", None)
    kvd = str(Path(sys.executable).with_name("kvd"))
    users = ["--users", "users.toml"]
    allow = "--allow=/=read,write,delete,list"
    run(folder, kvd, "user", "add", "ci", *users, "--no-password", allow)
    key = run(folder, kvd, "user", "s3-key", "ci", *users)
    options = [
        *["--dialect=/=s3", f"--users={folder}/users.toml", "--procs=2"],
        *[f"--store=file:{folder}/values", "--policy=roundrobin"],
        *["--durability=process", "--control=off"],
    ]
    with Twistd(options, folder) as daemon:
        clients = Clients(folder, f"127.0.0.1:{daemon.port}", key)
        clients.install()
        clients.make_tree()
        print(f"boto3: {clients.script('boto3', 'boto3.client')}")
        print(f"aws-cli: {clients.aws()}")
        print(f"rclone: {clients.rclone()}")
        print(f"s3cmd: {clients.s3cmd()}")
        print(f"pyarrow: {clients.script('arrow', 'S3FileSystem')}")
        daemon.stop()
