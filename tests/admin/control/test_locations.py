"""
Tests for `kvd.admin.control.locations`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from kvd.admin.control import locations
from kvd.admin.control.locations import (
    control_folders,
    control_path,
    find_control,
    make_control_folder,
)
from kvd.errors import AddressUnusable, ControlUnusable
from tests.privileges import take_root


def test_it_is_in_the_users_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The folder is created for this user only.
    """
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    make_control_folder()
    make_control_folder()

    assert f"{tmp_path}/kvd/8080.control" == control_path(8080)
    assert 0o700 == (tmp_path / "kvd").stat().st_mode & 0o777


def test_without_a_session_there_is_a_folder_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    In /run for root, below /tmp with the user's number for others.
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
    A session has a runtime folder, a service has none.
    """
    session, service = tmp_path / "session", tmp_path / "service"
    service.mkdir(0o700)
    monkeypatch.setattr(
        locations, "control_folders", lambda: [str(session), str(service)]
    )
    assert f"{session}/8080.control" == find_control(8080)

    (service / "8080.control").touch()
    assert f"{service}/8080.control" == find_control(8080)


def test_the_session_of_another_user_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    It may be left in the environment; its owner can change everything in it.
    """
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert f"{tmp_path}/kvd" == control_folders()[0]

    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 4711)
    assert [f"/tmp/kvd-{user + 4711}"] == control_folders()


def spoil_mode(folder: Path) -> None:
    """
    Let other users write there.
    """
    folder.chmod(0o777)


def spoil_type(folder: Path) -> None:
    """
    Replace the folder by a link to one.
    """
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to("elsewhere")


@pytest.mark.parametrize("spoil", [spoil_mode, spoil_type])
def test_a_command_uses_no_folder_that_others_may_change(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Path], None],
) -> None:
    """
    Another program may answer there.
    """
    folder = tmp_path / "kvd"
    folder.mkdir(0o700)
    (folder / "8080.control").touch()
    monkeypatch.setattr(locations, "control_folders", lambda: [str(folder)])
    assert f"{folder}/8080.control" == find_control(8080)

    spoil(folder)
    with pytest.raises(ControlUnusable, match="another program may answer"):
        find_control(8080)
    assert f"{folder}/8081.control" == find_control(8081)


def test_a_command_uses_no_folder_of_another_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Another user may have created it before this user's daemon did.
    """
    folder = tmp_path / "kvd"
    folder.mkdir(0o700)
    (folder / "8080.control").touch()
    monkeypatch.setattr(locations, "control_folders", lambda: [str(folder)])
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 4711)

    with pytest.raises(ControlUnusable, match="another user can change the folder"):
        find_control(8080)


def test_root_finds_the_daemon_of_a_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    systemd makes the folder in one of root's, for the user of the service. Where others
    can make folders, any user may have made it.
    """
    take_root("a folder of another user")
    folder = tmp_path / "kvd"
    folder.mkdir(0o700)
    os.chown(folder, 4711, 4711)
    (folder / "8080.control").touch()
    monkeypatch.setattr(locations, "control_folders", lambda: [str(folder)])
    tmp_path.chmod(0o755)
    assert f"{folder}/8080.control" == find_control(8080)

    tmp_path.chmod(0o1777)
    with pytest.raises(ControlUnusable, match="another program may answer"):
        find_control(8080)
    tmp_path.chmod(0o755)
    folder.chmod(0o770)
    with pytest.raises(ControlUnusable, match="another program may answer"):
        find_control(8080)


def test_the_socket_of_a_killed_daemon_hides_no_live_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A socket that answers comes first; if none does, the first folder.
    """
    folders = [str(tmp_path / "session"), str(tmp_path / "service")]
    monkeypatch.setattr(locations, "control_folders", lambda: folders)
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
    Likewise a link or a file: another user may have put it there.
    """
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder = tmp_path / "kvd"
    folder.mkdir()
    folder.chmod(0o770)
    with pytest.raises(AddressUnusable, match="another user can change the folder"):
        make_control_folder()

    folder.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to("elsewhere")
    with pytest.raises(AddressUnusable, match="another user can change the folder"):
        make_control_folder()

    folder.unlink()
    folder.write_text("")
    with pytest.raises(AddressUnusable, match="cannot be made"):
        make_control_folder()
