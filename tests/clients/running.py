"""
Runs clients, with the settings that the documents show.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.integration.test_docs import ROOT, blocks

ADDRESS: Final = "127.0.0.1:8080"
"""
Of kvd, in the documents.
"""

TIMEOUT_SECONDS: Final = 300

INSTALL_SECONDS: Final = 1800
"""
As long as an installation may take: a busy machine that has none of the packages yet
needs more than five minutes for the largest.
"""

NONE: Final[Mapping[str, str]] = {}


def settings_in(name: str, language: str) -> list[str]:
    """
    What a page of ``docs/clients`` shows in a language.
    """
    return blocks(ROOT / "docs" / "clients" / f"{name}.rst", language)


def exports_in(name: str, address: str) -> dict[str, str]:
    """
    The variables that the shell blocks of a page of ``docs/clients`` export.

    Args:
        name: The page.
        address: Of kvd; it replaces the one in the page.
    """
    shown = "\n".join(settings_in(name, "shell")).replace(ADDRESS, address)
    words = [shlex.split(line) for line in shown.splitlines()]
    exported = [word for line in words if line[:1] == ["export"] for word in line[1:]]
    pairs = [word.partition("=") for word in exported]
    return {variable: value for variable, _, value in pairs}


def from_npm(*packages: str) -> Path:
    """
    The folder of programs that npm installs, below ``build/``.

    Args:
        packages: Each with its version, as npm takes it.
    """
    folder = ROOT / "build" / "clients" / "npm"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text("{}")
    run(
        folder,
        *["npm", "install", "--no-audit", "--no-fund", "--no-save"],
        *packages,
        home=Path.home(),
        seconds=INSTALL_SECONDS,
    )
    return folder / "node_modules" / ".bin"


def from_pypi(name: str, *packages: str) -> Path:
    """
    The folder of programs that pip installs into an environment below ``build/``.

    Args:
        name: Of the environment.
        packages: As pip takes them.
    """
    folder = ROOT / "build" / "clients" / "pypi" / name
    if not (folder / "bin" / "python").exists():
        venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    # What is imported is compiled then.
    pip = python, "-m", "pip", "install", "--quiet", "--no-compile"
    run(folder, *pip, *packages, home=Path.home(), seconds=INSTALL_SECONDS)
    return folder / "bin"


def damage(path: Path, at: int) -> None:
    """
    Overwrite bytes of a stored value, as a failing disk would.
    """
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"damaged")


def run(
    folder: Path,
    *command: str,
    given: str = "",
    home: Path | None = None,
    environment: Mapping[str, str] = NONE,
    seconds: float = TIMEOUT_SECONDS,
) -> str:
    """
    What a program prints, which has to succeed.

    Args:
        folder: Where it runs.
        command: The program and its arguments.
        given: What it reads.
        home: Its user's; None: the folder.
        environment: What is added to its environment.
        seconds: How long it may take.
    """
    done = _run(folder, command, given, home, environment, seconds)
    assert done.returncode == 0, f"{command}: {done.stdout}"
    return done.stdout


def fails_or_not(
    folder: Path, *command: str, environment: Mapping[str, str] = NONE
) -> str:
    """
    What a program prints, whose caller finds out whether it has succeeded.
    """
    return _run(folder, command, "", None, environment).stdout


def fails(folder: Path, *command: str, environment: Mapping[str, str] = NONE) -> str:
    """
    What a program prints, which has to fail.
    """
    done = _run(folder, command, "", None, environment)
    assert done.returncode, f"{command}: {done.stdout}"
    return done.stdout


def _run(
    folder: Path,
    command: Sequence[str],
    given: str,
    home: Path | None,
    environment: Mapping[str, str],
    seconds: float = TIMEOUT_SECONDS,
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env=os.environ
        | {"HOME": str(home or folder), "LC_ALL": "C.UTF-8"}
        | dict(environment),
        input=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
        check=False,
    )
