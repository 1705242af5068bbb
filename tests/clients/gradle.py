"""
Gradle's HTTP build cache, with the settings in ``docs/clients/gradle.rst``.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

from tests.clients.ccache import daemon
from tests.clients.running import ADDRESS, damage, run, settings_in

PACKAGES: Final = {"gradle": "gradle"}

LARGE_BYTES: Final = 40_000_000
BUILD: Final = f"""
task made {{
    outputs.cacheIf {{ true }}
    outputs.file('build/large')
    doLast {{
        def bytes = new byte[{LARGE_BYTES}]
        new Random().nextBytes(bytes)
        file('build/large').bytes = bytes
    }}
}}
"""
"""
Whatever does not come from the cache has other bytes.
"""


def main(folder: Path) -> None:
    """
    Build cold and warm, with a damaged entry and with a deleted one.
    """
    with daemon(folder) as twistd:
        built(folder, f"127.0.0.1:{twistd.port}")
        twistd.stop()
    version = re.search(r"Gradle (\S+)\n", run(folder, "gradle", "--version"))
    assert version is not None
    print(
        f"Gradle {version[1]}: {LARGE_BYTES} bytes built, 1 from cache, a damaged and"
        " a deleted entry built again"
    )


def built(folder: Path, address: str) -> None:
    """
    One task, again and again.
    """
    (settings,) = settings_in("gradle", "groovy")
    (folder / "settings.gradle").write_text(settings.replace(ADDRESS, address))
    (folder / "build.gradle").write_text(BUILD)

    def build() -> tuple[bool, bytes]:
        for name in ("build", ".gradle"):
            shutil.rmtree(folder / name, ignore_errors=True)
        options = "--build-cache", "--no-daemon", "--console=plain"
        home = f"--gradle-user-home={folder / 'home'}"
        said = run(folder, "gradle", *options, home, "made")
        hit = "1 from cache" in said
        assert hit or "1 executed" in said, said
        return hit, (folder / "build" / "large").read_bytes()

    hit, first = build()
    assert not hit
    assert (True, first) == build()
    (entry,) = (folder / "values" / "gradle").iterdir()
    damage(entry, 0)
    hit, second = build()
    assert not hit
    assert first != second
    assert (True, second) == build()
    entry.unlink()
    hit, third = build()
    assert not hit
    assert (True, third) == build()
