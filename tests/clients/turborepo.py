"""
Turborepo, with the settings in ``docs/clients/turborepo.rst``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.clients.running import damage, exports_in, from_npm, run
from tests.integration.twistd import Twistd

PACKAGES: Final = {"npm": "npm", "git": "git"}

LARGE_BYTES: Final = 40_000_000
BUILD: Final = f"mkdir -p dist && head -c {LARGE_BYTES} /dev/urandom > dist/large"
"""
Whatever does not come from the cache has other bytes.
"""

FILES: Final[Mapping[str, object]] = {
    "package.json": {
        "name": "all",
        "private": True,
        "workspaces": ["made"],
        "packageManager": "npm@10.0.0",
    },
    "package-lock.json": {
        "name": "all",
        "lockfileVersion": 3,
        "packages": {
            "": {"name": "all", "workspaces": ["made"]},
            "node_modules/made": {"resolved": "made", "link": True},
            "made": {"version": "1.0.0"},
        },
    },
    "made/package.json": {
        "name": "made",
        "version": "1.0.0",
        "scripts": {"build": BUILD},
    },
}


def main(folder: Path) -> None:
    """
    Build, without a signature and with one.
    """
    turbo = from_npm("turbo@2") / "turbo"
    version = run(folder, str(turbo), "--version").strip()
    options = [
        *["--dialect=/turbo/=turborepo", f"--store=file:{folder}/values", "--procs=2"],
        *["--policy=roundrobin", "--durability=process", "--control=off"],
    ]
    with Twistd(options, folder) as daemon:
        variables = exports_in("turborepo", f"127.0.0.1:{daemon.port}")
        built = Built(folder, turbo, variables)
        said = built.unsigned(), built.signed()
        daemon.stop()
    print(f"Turborepo {version}: {'; '.join(said)}")


class Built:
    """
    A project, built again and again without a local cache.
    """

    def __init__(self, folder: Path, turbo: Path, variables: Mapping[str, str]) -> None:
        self._project = folder / "project"
        self._turbo = turbo
        self._signature = variables["TURBO_REMOTE_CACHE_SIGNATURE_KEY"]
        self._variables = {**variables, "TURBO_TELEMETRY_DISABLED": "1"}
        self._variables.pop("TURBO_REMOTE_CACHE_SIGNATURE_KEY")
        team = variables["TURBO_TEAM"]
        self._stored = folder / "values" / "turbo" / "v8" / "artifacts" / team
        (self._project / "made").mkdir(parents=True)
        for name, value in FILES.items():
            (self._project / name).write_text(json.dumps(value))
        (self._project / ".gitignore").write_text("dist\n.turbo\nnode_modules\n")
        run(self._project, "git", "init", "--quiet")

    def unsigned(self) -> str:
        """
        Cold, warm, and after the artifact was deleted.
        """
        self._settings({})
        assert "MISS" == self._build()
        first = self._bytes()
        assert "HIT" == self._build()
        assert first == self._bytes()
        (artifact,) = self._stored.iterdir()
        artifact.unlink()
        assert "MISS" == self._build()
        assert first != self._bytes()
        assert "HIT" == self._build()
        return f"{LARGE_BYTES} bytes built, a remote hit, a deleted one built again"

    def signed(self) -> str:
        """
        Cold, warm, damaged, and warm again.
        """
        self._settings({"remoteCache": {"signature": True}})
        self._variables["TURBO_REMOTE_CACHE_SIGNATURE_KEY"] = self._signature
        # It does not trust the unsigned artifact, and replaces it.
        assert "MISS" == self._build()
        first = self._bytes()
        assert "HIT" == self._build()
        assert first == self._bytes()
        (artifact,) = self._stored.iterdir()
        damage(artifact, LARGE_BYTES // 2)
        assert "MISS" == self._build()
        assert first != self._bytes()
        assert "HIT" == self._build()
        return "signed: a remote hit, a damaged one built again"

    def _settings(self, others: Mapping[str, object]) -> None:
        tasks = {"build": {"outputs": ["dist/**"]}}
        settings = json.dumps({"tasks": tasks, **others})
        (self._project / "turbo.json").write_text(settings)

    def _bytes(self) -> bytes:
        return (self._project / "made" / "dist" / "large").read_bytes()

    def _build(self) -> str:
        """
        What Turborepo's own summary says of the remote cache.
        """
        for name in (".turbo", "made/.turbo", "made/dist"):
            shutil.rmtree(self._project / name, ignore_errors=True)
        run(
            self._project,
            *[str(self._turbo), "run", "build", "--cache=remote:rw", "--summarize"],
            environment=self._variables,
        )
        (summary,) = (self._project / ".turbo" / "runs").iterdir()
        (task,) = json.loads(summary.read_text())["tasks"]
        cache = task["cache"]
        assert not cache["local"]
        assert (cache["status"] == "HIT") == cache["remote"]
        status: str = cache["status"]
        return status
