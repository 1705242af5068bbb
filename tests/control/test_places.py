"""
Tests for `kvd.control.places`.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from kvd.control import places
from kvd.control.places import (
    control_folders,
    control_path,
    find_control,
    make_control_folder,
)
from kvd.errors import AddressUnusable


def test_it_is_in_the_users_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Made for this user alone.
    """
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    make_control_folder()
    make_control_folder()

    assert f"{tmp_path}/kvd/8080.control" == control_path(8080)
    assert 0o700 == (tmp_path / "kvd").stat().st_mode & 0o777


def test_without_a_session_there_is_a_place_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Of root, or below /tmp with the user's number.
    """
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/does/not/exist")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert ["/run/kvd"] == control_folders()
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    assert ["/tmp/kvd-1234"] == control_folders()


def test_a_service_is_found_from_a_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Which has a folder that the service had not.
    """
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    theirs = f"/tmp/kvd-4711/{os.getpid()}.control"
    assert f"{tmp_path}/kvd/{os.getpid()}.control" == find_control(os.getpid())

    monkeypatch.setattr(os.path, "exists", lambda path: path == theirs)
    assert theirs == find_control(os.getpid())


def test_what_a_killed_daemon_left_hides_no_living_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Who answers comes first; if nobody does, the first place.
    """
    folders = [str(tmp_path / "session"), str(tmp_path / "service")]
    monkeypatch.setattr(places, "control_folders", lambda: folders)
    sockets = []
    for folder in folders:
        os.mkdir(folder)
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(f"{folder}/8080.control")
        sock.listen()
        sockets.append(sock)
    assert f"{folders[0]}/8080.control" == find_control(8080)

    sockets[0].close()
    assert f"{folders[1]}/8080.control" == find_control(8080)
    sockets[1].close()
    assert f"{folders[0]}/8080.control" == find_control(8080)


def test_a_folder_that_others_may_change_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Or a link to somewhere, or a file: somebody may have put it there.
    """
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder = tmp_path / "kvd"
    folder.mkdir()
    folder.chmod(0o770)
    with pytest.raises(AddressUnusable, match="not this user's alone"):
        make_control_folder()

    folder.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to("elsewhere")
    with pytest.raises(AddressUnusable, match="not this user's alone"):
        make_control_folder()

    folder.unlink()
    folder.write_text("")
    with pytest.raises(AddressUnusable, match="cannot be made"):
        make_control_folder()
