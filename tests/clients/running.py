"""
Runs clients, with the settings that the documents show.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.integration.test_docs import ROOT, blocks

ADDRESS: Final = "127.0.0.1:8080"
"""
Of kvd, in the documents.
"""

TIMEOUT_SECONDS: Final = 300


def settings_in(name: str, language: str) -> list[str]:
    """
    What a page of ``docs/clients`` shows in a language.
    """
    return blocks(ROOT / "docs" / "clients" / f"{name}.rst", language)


def run(folder: Path, *command: str, given: str = "", home: Path | None = None) -> str:
    """
    What a program prints, which has to succeed.

    Args:
        folder: Where it runs.
        command: The program and its arguments.
        given: What it reads.
        home: Its user's; None: the folder.
    """
    done = _run(folder, command, given, home)
    assert done.returncode == 0, f"{command}: {done.stdout}"
    return done.stdout


def fails(folder: Path, *command: str) -> str:
    """
    What a program prints, which has to fail.
    """
    done = _run(folder, command, "", None)
    assert done.returncode, f"{command}: {done.stdout}"
    return done.stdout


def _run(
    folder: Path, command: Sequence[str], given: str, home: Path | None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"HOME": str(home or folder), "LC_ALL": "C.UTF-8"},
        input=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
