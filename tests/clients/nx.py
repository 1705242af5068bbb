"""
Nx, with the settings in ``docs/clients/nx.rst``.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.clients.running import damage, exports_in, fails, from_npm, run
from tests.clients.turborepo import BUILD, LARGE_BYTES
from tests.integration.twistd import Twistd

PACKAGES: Final = {"npm": "npm", "git": "git"}

FILES: Final[Mapping[str, object]] = {
    "package.json": {"name": "all", "private": True},
    "nx.json": {
        "targetDefaults": {
            "build": {
                "cache": True,
                "inputs": ["{projectRoot}/project.json"],
                "outputs": ["{projectRoot}/dist"],
            }
        }
    },
    "made/project.json": {
        "name": "made",
        "targets": {
            "build": {
                "executor": "nx:run-commands",
                "options": {"cwd": "made", "command": BUILD},
            }
        },
    },
}


def main(folder: Path) -> None:
    """
    Build cold and warm, with a damaged result and with a deleted one.
    """
    programs = from_npm("nx@24")
    options = [
        *["--dialect=/nx/=nx", f"--store=file:{folder}/values", "--procs=2"],
        *["--policy=roundrobin", "--durability=process", "--control=off"],
    ]
    with Twistd(options, folder) as daemon:
        variables = exports_in("nx", f"127.0.0.1:{daemon.port}")
        said = built(folder, programs, {**variables, "NX_DAEMON": "false"})
        daemon.stop()
    print(f"Nx {said}")


def built(folder: Path, programs: Path, variables: Mapping[str, str]) -> str:
    """
    A project, built again and again without a local cache.
    """
    project = folder / "project"
    (project / "made").mkdir(parents=True)
    for name, value in FILES.items():
        (project / name).write_text(json.dumps(value))
    (project / ".gitignore").write_text("dist\n.nx\nnode_modules\n")
    (project / "node_modules").symlink_to(programs.parent)
    run(project, "git", "init", "--quiet")

    command = str(programs / "nx"), "run", "made:build"

    def clean() -> None:
        shutil.rmtree(project / ".nx", ignore_errors=True)
        shutil.rmtree(project / "made" / "dist", ignore_errors=True)

    def build() -> tuple[int, bytes]:
        clean()
        said = run(project, *command, environment=variables)
        hits = re.search(r"Cache: +(\d+)/1 hit", said)
        assert hits is not None, said
        assert bool(int(hits[1])) == ("[remote cache]" in said), said
        return int(hits[1]), (project / "made" / "dist" / "large").read_bytes()

    cold, first = build()
    assert 0 == cold
    assert (1, first) == build()
    (result,) = (folder / "values" / "nx" / "v1" / "cache").iterdir()
    damage(result, 0)
    clean()
    said = fails(project, *command, environment=variables)
    assert "Failed to read entry from tarball" in said, said
    result.unlink()
    again, second = build()
    assert 0 == again
    assert first != second
    assert (1, second) == build()
    version = run(project, str(programs / "nx"), "--version", environment=variables)
    matched = re.search(r"Local: v(\S+)", version)
    assert matched is not None, version
    return (
        f"{matched[1]}: {LARGE_BYTES} bytes built, 1/1 remote hits, a damaged one"
        " noticed, a deleted one built again"
    )
