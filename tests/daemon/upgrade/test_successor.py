"""
Tests for `kvd.daemon.upgrade.successor`: how the new daemon is started.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from kvd.daemon.opening import Sockets
from kvd.daemon.upgrade.manifest import Manifest, make_manifest
from kvd.daemon.upgrade.successor import Successor
from kvd.errors import ChangeImpossible
from kvd.settings import Settings, TCPAddress

SETTINGS = Settings(procs=2, listen=(TCPAddress("127.0.0.1", 80),))


@pytest.fixture
def manifest() -> Iterator[Manifest]:
    """
    With a descriptor that the new daemon inherits.
    """
    end, other = os.pipe()
    made = make_manifest(SETTINGS, Sockets([], None, None), None, None)
    yield replace(made, totals=end)
    os.close(end)
    os.close(other)


def test_a_folder_that_it_works_in_is_not_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manifest: Manifest
) -> None:
    """
    The user of ``twistd --uid`` may have no way to a folder in which root has started
    it. Why another folder cannot be used is said.
    """
    folders: list[str | None] = []

    def refuse(command: list[str], *, cwd: str | None, **rest: Any) -> None:
        folders.append(cwd)
        raise PermissionError(13, "Permission denied", cwd)

    monkeypatch.setattr(subprocess, "Popen", refuse)
    for folder in (tmp_path, tmp_path / "elsewhere"):
        monkeypatch.chdir(tmp_path)
        successor = Successor([], str(folder), {}, Clock())
        with pytest.raises(ChangeImpossible) as caught:
            successor.start(manifest)
        successor.abandon()

    assert [None, f"{tmp_path}/elsewhere"] == folders
    assert caught.value.sentence == (
        f"the new kvd cannot be started: {tmp_path}/elsewhere: Permission denied"
    )
