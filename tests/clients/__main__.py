"""
``python -m tests.clients [NAME...]``, or ``make test-clients``, which installs them
first: clients that people have, against the true daemon.
"""

from __future__ import annotations

import sys
import tempfile
import traceback
from pathlib import Path

from tests.clients.missing import absent, missing, modules_of


def main(names: list[str]) -> None:
    """
    Run all that can be, or those that are named, and say what became of each.

    Raises:
        SystemExit: A program is not installed, or one failed.
    """
    modules = modules_of(names)
    packages = missing(modules)
    if packages:
        wanted = " ".join(packages)
        sys.exit(f"Not all clients are installed; on Debian: apt-get install {wanted}")
    outcomes: dict[str, str] = {}
    for module in modules:
        name = module.__name__.rpartition(".")[2]
        lacking = ", ".join(absent(module))
        if lacking:
            outcomes[name] = f"not run: Debian does not have {lacking}"
            continue
        with tempfile.TemporaryDirectory(prefix="kvd-clients-") as folder:
            try:
                module.main(Path(folder))
            except Exception:
                traceback.print_exc()
                outcomes[name] = "failed"
            else:
                outcomes[name] = "passed"
    print("\n", *(f"{name}: {outcome}\n" for name, outcome in outcomes.items()), sep="")
    if "failed" in outcomes.values() or (
        names and set(outcomes.values()) != {"passed"}
    ):
        sys.exit("Not all clients that were to be run have passed.")


if __name__ == "__main__":
    main(sys.argv[1:])
