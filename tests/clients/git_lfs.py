"""
git-lfs, with the settings in ``docs/clients/git-lfs.rst``.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Final

from tests.clients.running import ADDRESS, fails, run, settings_in
from tests.integration.twistd import Twistd

PACKAGES: Final = {"git": "git", "git-lfs": "git-lfs"}

LARGE_BYTES: Final = 40_000_000


def main(folder: Path) -> None:
    """
    Push, clone, push again; find that an object is gone.
    """
    options = [
        *["--dialect=/lfs/=git-lfs", f"--store=file:{folder}/values", "--procs=2"],
        *["--policy=roundrobin", "--durability=process", "--control=off"],
    ]
    with Twistd(options, folder) as daemon:
        pushed(folder, f"127.0.0.1:{daemon.port}")
        daemon.stop()
    print(f"git-lfs: {LARGE_BYTES} bytes pushed, cloned, and missed when gone")


def pushed(folder: Path, address: str) -> None:
    """
    A repository with a large file, and its clones.
    """
    work, bare = folder / "work", folder / "bare.git"
    run(folder, "git", "init", "--bare", "--quiet", str(bare))
    run(folder, "git", "config", "--global", "user.email", "somebody@example.org")
    run(folder, "git", "config", "--global", "user.name", "Somebody")
    run(folder, "git", "lfs", "install", "--skip-repo")
    run(folder, "git", "clone", "--quiet", str(bare), str(work))
    (settings,) = settings_in("git-lfs", "ini")
    (work / ".lfsconfig").write_text(settings.replace(ADDRESS, address))
    run(work, "git", "lfs", "track", "*.bin", home=folder)
    (work / "large.bin").write_bytes(random.randbytes(LARGE_BYTES))

    objects = folder / "values" / "lfs" / "my-repository" / "objects"

    def push() -> tuple[int, int]:
        run(work, "git", "add", "--all", home=folder)
        run(work, "git", "commit", "--quiet", "-m", "change", home=folder)
        run(work, "git", "push", "origin", "HEAD:main", home=folder)
        (stored,) = objects.iterdir()
        return stored.stat().st_mtime_ns, stored.stat().st_size

    first = push()
    assert LARGE_BYTES == first[1]
    (work / "more.txt").write_text("more")
    assert first == push()
    run(folder, "git", "clone", "--quiet", "--branch=main", str(bare), "cloned")
    cloned = folder / "cloned" / "large.bin"
    assert (work / "large.bin").read_bytes() == cloned.read_bytes()
    (stored,) = objects.iterdir()
    stored.unlink()
    said = fails(folder, "git", "clone", "--branch=main", str(bare), "again")
    assert "does not have this object" in said, said
