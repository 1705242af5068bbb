"""
Terraform, with the settings in ``docs/clients/terraform.rst``.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from tests.clients.running import ADDRESS, damage, fails, run, settings_in
from tests.integration.twistd import Twistd

PACKAGES: Final = {"terraform": None}

RESOURCE: Final = """
resource "terraform_data" "made" {{
  input = "{value}"
  triggers_replace = "{value}"
  provisioner "local-exec" {{
    command = "{command}"
  }}
}}
"""
NESTED: Final = "terraform plan -no-color -input=false > nested 2>&1 || true"
HELD: Final = "HTTP remote state already locked:"
VARIABLES: Final = {
    "CHECKPOINT_DISABLE": "1",
    "TF_CLI_CONFIG_FILE": os.devnull,
    "TF_IN_AUTOMATION": "1",
}


def main(folder: Path) -> None:
    """
    A state from its making to its damage, and its locks.
    """
    options = [
        *["--dialect=/tf/=terraform", f"--store=file:{folder}/values", "--procs=2"],
        *["--policy=roundrobin", "--durability=process", "--control=off"],
    ]
    with Twistd(options, folder) as daemon:
        (settings,) = settings_in("terraform", "terraform")
        backend = settings.replace(ADDRESS, f"127.0.0.1:{daemon.port}")
        applied(folder, backend)
        daemon.stop()
    version = run(folder, "terraform", "version", environment=VARIABLES)
    print(
        f"{version.splitlines()[0]}: a state written, read, locked,"
        " unlocked by force, damaged and deleted"
    )


def applied(folder: Path, backend: str) -> None:
    """
    One resource, applied again and again.
    """
    state = folder / "values" / "tf" / "team" / "network"
    lock = state.with_name("network.kvd-lock")
    plan = "terraform", "plan", "-no-color", "-input=false", "-detailed-exitcode"
    apply = "terraform", "apply", "-no-color", "-input=false", "-auto-approve"

    def write(value: str, command: str) -> None:
        resource = RESOURCE.format(value=value, command=command)
        (folder / "main.tf").write_text(backend + resource)

    # While it applies, a second program finds the lock.
    write("one", NESTED)
    run(folder, "terraform", "init", "-input=false", environment=VARIABLES)
    run(folder, *apply, environment=VARIABLES)
    nested = (folder / "nested").read_text()
    assert HELD in nested, nested
    assert not lock.exists()
    assert "No changes." in run(folder, *plan, environment=VARIABLES)

    # Terraform is killed, and leaves its lock behind.
    write("two", "kill -KILL $PPID")
    fails(folder, *apply, environment=VARIABLES)
    write("two", "true")
    said = fails(folder, *apply, environment=VARIABLES)
    # What it prints as "Lock Info" is its own.
    found = re.search(rf"{HELD}\s+ID=(\S+)", said)
    assert found is not None, said
    unlock = "terraform", "force-unlock", "-force", found[1]
    run(folder, *unlock, environment=VARIABLES)
    assert "1 added" in run(folder, *apply, environment=VARIABLES)
    assert "No changes." in run(folder, *plan, environment=VARIABLES)

    damage(state, 0)
    fails(folder, *plan, environment=VARIABLES)
    state.unlink()
    assert "1 to add" in fails(folder, *plan, environment=VARIABLES)
