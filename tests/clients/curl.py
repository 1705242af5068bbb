"""
curl and wget: the commands in ``docs/clients/curl.rst``, as they stand there.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Final

from tests.clients.ccache import daemon
from tests.clients.running import ADDRESS, fails, run, settings_in

PACKAGES: Final = {"curl": "curl", "wget": "wget"}

LARGE_BYTES: Final = 40_000_000
MANY: Final = 200


def main(folder: Path) -> None:
    """
    One large file and many small ones.
    """
    with daemon(folder) as twistd:
        said = transferred(folder, f"127.0.0.1:{twistd.port}", LARGE_BYTES)
        twistd.stop()
    curl, wget = (
        run(folder, program, "--version").split()[index]
        for program, index in (("curl", 1), ("wget", 2))
    )
    print(f"curl {curl}, wget {wget}: {said}")


def transferred(folder: Path, address: str, large_bytes: int) -> str:
    """
    Run what the page shows, and compare the files.
    """
    large = random.randbytes(large_bytes)
    (folder / "large").write_bytes(large)
    (folder / "many").mkdir()
    for number in range(1, MANY + 1):
        (folder / "many" / str(number)).write_bytes(random.randbytes(number * 100))
    said = [
        run(folder, "bash", "-euo", "pipefail", "-c", block.replace(ADDRESS, address))
        for block in settings_in("curl", "shell")[1:]
    ]
    for name in ("large.back", "part", "copy", "wget/large"):
        assert large == (folder / name).read_bytes(), name
    for files in (folder / "back", folder / "values" / "many"):
        run(folder, "diff", "-r", "many", str(files))
    # By its timestamp, wget did not ask for it again.
    assert "not modified" in said[-1] or "not retrieving" in said[-1], said[-1]
    stored = folder / "values" / "files" / "large"
    stored.unlink()
    url = f"http://{address}/files/large"
    assert "404" in fails(folder, "curl", "--fail", "--output", "gone", url)
    assert "404" in fails(folder, "wget", url)
    return (
        f"{large_bytes} bytes up, down, resumed, not sent again; {MANY} files up and"
        " down, 50 at once"
    )
