"""
restic, with the settings in ``docs/clients/restic.rst``.
"""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Final

from tests.clients.running import ADDRESS, fails, run, settings_in
from tests.integration.twistd import Twistd

PACKAGES: Final = {"restic": "restic"}

LARGE_BYTES: Final = 40_000_000


def main(folder: Path) -> None:
    """
    Back up, restore, prune; find what is damaged; append only.
    """
    options = [
        *["--dialect=/restic/=restic", "--dialect=/append/=restic-append-only"],
        *[f"--store=file:{folder}/values", "--durability=process", "--procs=2"],
        *["--policy=roundrobin", "--control=off"],
    ]
    (folder / ".restic-password").write_text("secret")
    documents = folder / "documents"
    documents.mkdir()
    (documents / "large").write_bytes(random.randbytes(LARGE_BYTES))
    (documents / "small").write_text("one")
    shown = "\n".join(settings_in("restic", "shell"))
    matched = re.search(r"RESTIC_REPOSITORY=(\S+)", shown)
    assert matched is not None
    with Twistd(options, folder) as daemon:
        repository = matched[1].replace(ADDRESS, f"127.0.0.1:{daemon.port}")
        said = backed_up(folder, repository)
        append_only(folder, repository.replace("/restic/", "/append/"))
        daemon.stop()
    print(f"restic: {said}; appended only")


def backed_up(folder: Path, repository: str) -> str:
    """
    A repository from its making to its damage.
    """
    command = ["restic", "--repo", repository, "--cache-dir", str(folder / "cache")]
    command += ["--password-file", str(folder / ".restic-password")]
    run(folder, *command, "init")
    first = run(folder, *command, "backup", "documents")
    (folder / "documents" / "small").write_text("two")
    second = run(folder, *command, "backup", "documents")
    assert "1 unmodified" in second, second
    run(folder, *command, "restore", "latest", "--target", "back")
    run(folder, "diff", "-r", "documents", "back/documents")
    run(folder, *command, "check", "--read-data")
    run(folder, *command, "forget", "--keep-last", "1", "--prune")
    run(folder, *command, "check")
    data = folder / "values" / "restic" / "laptop" / "data"
    files = sorted(data.iterdir(), key=lambda path: path.stat().st_size)
    with files[-1].open("r+b") as file:
        file.seek(1000)
        file.write(b"damaged")
    fails(folder, *command, "--no-cache", "check", "--read-data")
    files[0].unlink()
    fails(folder, *command, "--no-cache", "check")
    added = re.search(r"Added to the repository: (\S+ \S+)", first)
    assert added is not None, first
    return f"{added[1]} backed up, restored, pruned, and damage found"


def append_only(folder: Path, repository: str) -> None:
    """
    What is there stays.
    """
    command = ["restic", "--repo", repository, "--cache-dir", str(folder / "cache")]
    command += ["--password-file", str(folder / ".restic-password")]
    run(folder, *command, "init")
    for _ in range(2):
        run(folder, *command, "backup", "documents/small")
    (snapshot,) = run(folder, *command, "list", "snapshots", "-q").split()[:1]
    said = fails(folder, "timeout", "5", *command, "forget", "--keep-last", "1")
    assert "403" in said, said
    assert snapshot in run(folder, *command, "list", "snapshots", "--no-lock", "-q")
