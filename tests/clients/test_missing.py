"""
Which packages are installed before clients are run.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.clients import missing


def test_nothing_is_said_where_nothing_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Not even an empty line, which would be taken for a package.
    """
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    missing.main(["webdav", "terraform"])

    assert "" == capsys.readouterr().out


def test_packages_of_what_debian_has_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Each once, and those of a client that cannot be run anyway are left out.
    """
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(Path, "exists", lambda path: False)
    missing.main(["nx", "turborepo", "terraform", "nix"])

    assert ["git", "nix-bin", "npm"] == capsys.readouterr().out.splitlines()
