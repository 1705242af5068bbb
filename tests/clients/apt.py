"""
apt, with the settings and commands in ``docs/clients/apt.rst`` and lists of its own.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Final

from tests.clients.ccache import daemon
from tests.clients.running import ADDRESS, damage, fails, run, settings_in

PACKAGES: Final = {
    "apt-get": "apt",
    "curl": "curl",
    "dpkg-scanpackages": "dpkg-dev",
}

LARGE_BYTES: Final = 40_000_000
CONTROL: Final = """Package: made
Version: 1.0
Architecture: all
Maintainer: Somebody <somebody@example.org>
Description: A large file
"""


def main(folder: Path) -> None:
    """
    Update, update again, download; a damaged package and a deleted one.
    """
    with daemon(folder) as twistd:
        downloaded(folder, f"127.0.0.1:{twistd.port}")
        twistd.stop()
    version = run(folder, "apt-get", "--version").split()[1]
    print(
        f"apt {version}: the list fetched, then 1 hit; {LARGE_BYTES} bytes downloaded,"
        " a damaged and a deleted package refused"
    )


def downloaded(folder: Path, address: str) -> None:
    """
    Run what the page shows.
    """
    repository, made, apt = (folder / name for name in ("repository", "made", "apt"))
    for place in (
        *(repository, made / "DEBIAN", made / "usr" / "share" / "made"),
        *(apt / "lists" / "partial", apt / "cache" / "archives" / "partial"),
    ):
        place.mkdir(parents=True)
    (made / "DEBIAN" / "control").write_text(CONTROL)
    large = made / "usr" / "share" / "made" / "large"
    large.write_bytes(random.randbytes(LARGE_BYTES))
    package = "made_1.0_all.deb"
    run(folder, "dpkg-deb", "-Znone", "--build", str(made), f"repository/{package}")
    (store,) = settings_in("apt", "shell")[1:]
    run(repository, "bash", "-euc", store.replace(ADDRESS, address))
    (source,) = settings_in("apt", "text")
    (apt / "kvd.list").write_text(source.replace(ADDRESS, address))
    command = [
        "apt-get",
        *("-o", f"Dir::Etc::sourcelist={apt}/kvd.list"),
        *("-o", "Dir::Etc::sourceparts=/dev/null"),
        *("-o", f"Dir::State::lists={apt}/lists"),
        *("-o", f"Dir::Cache={apt}/cache"),
        *("-o", "APT::Sandbox::User=root"),
    ]
    update, download = [*command, "update"], [*command, "download", "made"]
    said = run(folder, *update)
    assert "Packages" in said, said
    assert "Hit:" not in said, said
    assert "Hit:" in run(folder, *update)
    run(folder, *download)
    stored = folder / "values" / "apt" / package
    assert (repository / package).read_bytes() == (folder / package).read_bytes()
    (folder / package).unlink()
    damage(stored, LARGE_BYTES // 2)
    assert "Hash Sum mismatch" in fails(folder, *download)
    stored.unlink()
    assert "404" in fails(folder, *download)
    assert not (folder / package).exists()
