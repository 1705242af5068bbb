"""
Maven, with the settings and commands in ``docs/clients/maven.rst``.

Its plugins come from Debian's packages, not from Maven Central.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Final

from tests.clients.ccache import daemon
from tests.clients.running import ADDRESS, damage, fails, run, settings_in

_REPOSITORY: Final = "/usr/share/maven-repo"
_PLUGINS: Final = f"{_REPOSITORY}/org/apache/maven/plugins"

PACKAGES: Final = {
    "mvn": "maven",
    f"{_PLUGINS}/maven-deploy-plugin": "libmaven-deploy-plugin-java",
    f"{_PLUGINS}/maven-dependency-plugin": "libmaven-dependency-plugin-java",
}

LARGE_BYTES: Final = 40_000_000
MIRROR: Final = f"""<settings>
  <mirrors>
    <mirror>
      <id>debian</id><mirrorOf>central</mirrorOf><url>file://{_REPOSITORY}</url>
    </mirror>
  </mirrors>
"""


def main(folder: Path) -> None:
    """
    Deploy and fetch; a damaged artifact and a deleted one.
    """
    with daemon(folder) as twistd:
        downloads = fetched(folder, f"127.0.0.1:{twistd.port}")
        twistd.stop()
    version = run(folder, "mvn", "--batch-mode", "--version").split()[2]
    print(
        f"Maven {version}: {LARGE_BYTES} bytes deployed, {downloads} files downloaded"
        " from kvd, a damaged and a deleted artifact refused"
    )


def fetched(folder: Path, address: str) -> int:
    """
    Run what the page shows.

    Returns:
        How many files Maven says it has downloaded from kvd.
    """
    (settings,) = settings_in("maven", "xml")
    settings = settings.replace("<settings>\n", MIRROR).replace(ADDRESS, address)
    (folder / "settings.xml").write_text(settings)
    (folder / "large.jar").write_bytes(random.randbytes(LARGE_BYTES))
    deploy, get = settings_in("maven", "shell")[1:]
    local = folder / "repository"

    def command(shown: str) -> tuple[str, ...]:
        options = f"mvn -B -s settings.xml -Dmaven.repo.local={local} "
        shown = shown.replace("mvn ", options, 1).replace(ADDRESS, address)
        return "bash", "-c", shown

    def forget() -> None:
        shutil.rmtree(local / "org" / "example", ignore_errors=True)

    run(folder, *command(deploy))
    forget()
    said = run(folder, *command(get))
    artifact = "org/example/large/1.0/large-1.0.jar"
    assert (folder / "large.jar").read_bytes() == (local / artifact).read_bytes()
    stored = folder / "values" / "maven" / artifact
    damage(stored, LARGE_BYTES // 2)
    forget()
    assert "Checksum validation failed" in fails(folder, *command(get))
    stored.unlink()
    forget()
    assert "Could not find artifact" in fails(folder, *command(get))
    return said.count("Downloaded from kvd:")
