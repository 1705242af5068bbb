"""
Nix, with the commands in ``docs/clients/nix.rst`` and a store of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.clients.ccache import daemon
from tests.clients.running import ADDRESS, damage, fails, run, settings_in

PACKAGES: Final = {"nix": "nix-bin"}

LARGE_BYTES: Final = 40_000_000
DERIVATION: Final = f"""derivation {{
  name = "made";
  system = builtins.currentSystem;
  builder = "/bin/sh";
  args = [ "-c" "head -c {LARGE_BYTES} /dev/urandom > $out" ];
  PATH = "/usr/bin:/bin";
}}
"""
CONFIGURATION: Final = """build-users-group =
experimental-features = nix-command
narinfo-cache-negative-ttl = 0
narinfo-cache-positive-ttl = 0
sandbox = false
substituters =
"""


def main(folder: Path) -> None:
    """
    Copy a path there and back; a damaged one and a deleted one.
    """
    with daemon(folder) as twistd:
        copied(folder, f"127.0.0.1:{twistd.port}")
        twistd.stop()
    version = run(folder, "nix", "--version").split()[-1]
    print(
        f"Nix {version}: {LARGE_BYTES} bytes copied into the cache, 1 path copied from"
        " it, a damaged and a deleted one refused"
    )


def copied(folder: Path, address: str) -> None:
    """
    Run what the page shows.
    """
    places = {
        f"NIX_{name.upper()}_DIR": str(folder / "nix" / name)
        for name in ("conf", "log", "state", "store")
    }
    for place in places.values():
        Path(place).mkdir(parents=True)
    (folder / "nix" / "conf" / "nix.conf").write_text(CONFIGURATION)
    (folder / "made.nix").write_text(DERIVATION)
    build = "nix-build", "--quiet", "--no-out-link", "made.nix"
    made = Path(run(folder, *build, environment=places).split()[-1])
    content = made.read_bytes()
    environment = {**places, "STORE_PATH": str(made)}
    store, fetch = (
        ("bash", "-euc", block.replace(ADDRESS, address))
        for block in settings_in("nix", "shell")[1:]
    )

    def forget() -> None:
        run(folder, "nix-store", "--delete", str(made), environment=places)

    run(folder, *store, environment=environment)
    forget()
    assert not made.exists()
    said = run(folder, *fetch, environment=environment)
    assert 1 == said.count("copying path"), said
    assert content == made.read_bytes()
    (archive,) = (folder / "values" / "nix" / "nar").iterdir()
    damage(archive, LARGE_BYTES // 2)
    forget()
    valid = "nix-store", "--check-validity", str(made)
    fails(folder, *fetch, environment=environment)
    fails(folder, *valid, environment=places)
    (described,) = (folder / "values" / "nix").glob("*.narinfo")
    described.unlink()
    fails(folder, *fetch, environment=environment)
    fails(folder, *valid, environment=places)
