"""
ccache in its three layouts, with the settings in ``docs/clients/ccache.rst``.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.clients.programs import CCACHE_WAITS
from tests.clients.running import ADDRESS, damage, run, settings_in
from tests.integration.twistd import Twistd

PACKAGES: Final = {"ccache": "ccache", "gcc": "gcc"}

LARGE_BYTES: Final = 40_000_000
SMALL_FILES: Final = 3
LAYOUTS: Final = ("subdirs", "flat", "bazel")
"""
In the order of the page.
"""


@contextmanager
def daemon(folder: Path) -> Iterator[Twistd]:
    """
    A daemon of two workers that take connections in turn.
    """
    options = [
        *[f"--store=file:{folder}/values", "--durability=process", "--procs=2"],
        *["--policy=roundrobin", "--control=off"],
    ]
    with Twistd(options, folder) as twistd:
        yield twistd


def main(folder: Path) -> None:
    """
    Each layout.
    """
    version = run(folder, "ccache", "--version").split()[2]
    with daemon(folder) as twistd:
        for layout in LAYOUTS:
            said = built(folder, f"127.0.0.1:{twistd.port}", layout, LARGE_BYTES)
            print(f"ccache {version}, {layout}: {said}")
        twistd.stop()


def built(folder: Path, address: str, layout: str, large_bytes: int) -> str:
    """
    Compile cold and warm, with a damaged entry and with a deleted one.
    """
    work = folder / layout
    work.mkdir()
    for number in range(SMALL_FILES):
        source = f"int number_{number}(void) {{ return {number}; }}\n"
        (work / f"{number}.c").write_text(source)
    large = f"int large[{large_bytes // 4}] = {{ 1 }};\n"
    (work / f"{SMALL_FILES}.c").write_text(large)
    settings = settings_in("ccache", "ini")[LAYOUTS.index(layout)]
    configuration = work / "ccache.conf"
    # Each layout finds what it stored itself, and nothing of the others.
    settings = settings.replace(f"{ADDRESS}/ccache", f"{address}/{layout}")
    settings = f"{settings.rstrip()}|{CCACHE_WAITS}"
    configuration.write_text(f"{settings}\ncompression = false\n")
    variables = {
        "CCACHE_CONFIGPATH": str(configuration),
        "CCACHE_DIR": str(work / "local"),
    }

    def build() -> tuple[int, int, list[bytes]]:
        """
        Remote hits, files that were compiled, and the objects, with no local cache.
        """
        shutil.rmtree(work / "local", ignore_errors=True)
        objects = []
        for number in range(SMALL_FILES + 1):
            command = "ccache", "gcc", "-c", f"{number}.c"
            run(work, *command, environment=variables)
            objects.append((work / f"{number}.o").read_bytes())
            (work / f"{number}.o").unlink()
        said = run(work, "ccache", "--print-stats", environment=variables)
        counts = dict(line.split("\t") for line in said.splitlines())
        assert "0" == counts["remote_storage_error"], said
        assert "0" == counts["remote_storage_timeout"], said
        hits = int(counts["direct_cache_hit"])
        return hits, int(counts["cache_miss"]), objects

    files = SMALL_FILES + 1
    hits, missed, objects = build()
    assert (0, files) == (hits, missed)
    assert (files, 0, objects) == build()
    found = (folder / "values" / layout).rglob("*")
    entry = max((path for path in found if path.is_file()), key=_size)
    assert large_bytes < _size(entry)
    damage(entry, large_bytes // 2)
    assert (files - 1, 1, objects) == build()
    assert (files, 0, objects) == build()
    entry.unlink()
    assert (files - 1, 1, objects) == build()
    assert (files, 0, objects) == build()
    return (
        f"{files} files, one of {large_bytes} bytes: cold {missed} misses, warm"
        f" {files} remote hits, a damaged and a deleted entry compiled again"
    )


def _size(path: Path) -> int:
    return path.stat().st_size
