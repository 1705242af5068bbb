"""
Tests for `kvd.daemon.service`: what is refused before anything starts.
"""

from __future__ import annotations

import os
import pwd
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kvd.daemon.service import check_read_again, makeService
from kvd.daemon.single_process import SingleProcessService
from kvd.daemon.supervisor import SupervisorService
from kvd.dispatch.policies.reuseport import ReusePort
from kvd.errors import BadSetting
from kvd.options import Options
from kvd.settings import RightsFile, Settings, TCPAddress, User
from tests.ports import unused_port
from tests.privileges import take_root


def options(*arguments: str) -> Options:
    """
    As twistd gives them.
    """
    parsed = Options()
    parsed.parseOptions(list(arguments))
    return parsed


# Where a start is refused, its port is known before: no socket is left that would say
# which it was.


def listening(port: int) -> bool:
    """
    Whether somebody listens.
    """
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize(
    ("procs", "members", "kind"),
    [("0", 1, SingleProcessService), ("3", 3, SupervisorService)],
)
def test_sockets_listen_before_anything_starts(
    procs: str, members: int, kind: type[SingleProcessService | SupervisorService]
) -> None:
    """
    While whoever starts it still reads what is wrong.
    """
    service: Any = makeService(
        options(
            "--store=null:",
            "--control=off",
            f"--procs={procs}",
            "--listen=tcp:0:interface=127.0.0.1",
        )
    )
    assert isinstance(service, kind)
    (group,) = service._groups
    try:
        assert members == len(group.members)
        assert isinstance(group.address, TCPAddress)
        assert listening(group.address.port)
    finally:
        group.close()


@pytest.mark.parametrize("tcp", [True, False])
def test_the_control_socket_is_named_by_the_first_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tcp: bool
) -> None:
    """
    Wherever that stands among the addresses; where there is none, beside the
    first Unix socket.
    """
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    more = ["--listen=tcp:0:interface=127.0.0.1"] if tcp else []
    service: Any = makeService(
        options("--store=null:", f"--listen=unix:{tmp_path}/socket", *more)
    )
    place = service._control.address.path
    *_, last = (group.address for group in service._groups)
    for group in (*service._groups, service._control):
        group.close()

    # Not by looking for it: a daemon that was killed may have left one of this number
    # where another user of this machine has them.
    named = f"kvd/{last.port}.control" if tcp else "socket.control"
    assert f"{tmp_path}/{named}" == place


@pytest.mark.parametrize(
    "option", ["--listen=tcp:{}:interface=127.0.0.1", "--status=tcp:{}"]
)
def test_an_address_that_fails_closes_the_others(option: str) -> None:
    """
    Also that of the status site; and ends the start with a sentence.
    """
    port = unused_port()
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        pytest.raises(SystemExit, match="in use"),
    ):
        makeService(
            options(
                "--store=null:",
                f"--listen=tcp:{port}:interface=127.0.0.1",
                option.format(other.getsockname()[1]),
            )
        )

    assert not listening(port)


def test_a_policy_without_an_arrangement_ends_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Before any socket listens, with a sentence.
    """

    def fail(self: ReusePort, worker: int, workers: int) -> Sequence[int]:
        raise KeyError("missing")

    port = unused_port()
    monkeypatch.setattr(ReusePort, "members_of", fail)
    with pytest.raises(SystemExit, match=r"'reuseport'.* fails with KeyError"):
        makeService(
            options(
                *["--store=null:", "--policy=reuseport", "--procs=2"],
                f"--listen=tcp:{port}:interface=127.0.0.1",
            )
        )

    assert not listening(port)


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        (["--procs=2"], "'roundrobin' would see nothing: under the policy 'gated'"),
        (["--procs=0", "--policy=roundrobin"], "needs workers to choose among"),
    ],
)
def test_a_shadow_with_nothing_to_see_ends_the_start(
    chosen: Sequence[str], sentence: str
) -> None:
    """
    Before any socket listens: who asked for it would wait for figures in vain.
    """
    port = unused_port()
    with pytest.raises(SystemExit, match=sentence):
        makeService(
            options(
                *["--store=null:", "--shadow=roundrobin", *chosen],
                f"--listen=tcp:{port}:interface=127.0.0.1",
            )
        )

    assert not listening(port)


def test_a_store_that_cannot_be_ends_the_start(tmp_path: Path) -> None:
    """
    Before any socket listens.
    """
    port = unused_port()
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match="folder"):
        makeService(
            options(
                f"--store=file:{tmp_path}/file",
                f"--listen=tcp:{port}:interface=127.0.0.1",
            )
        )

    assert not listening(port)


def test_a_record_that_cannot_be_ends_the_start(tmp_path: Path) -> None:
    """
    Before any socket listens, and before a connection would be lost to it.
    """
    port = unused_port()
    with pytest.raises(SystemExit, match="record cannot be recorded to: No such"):
        makeService(
            options(
                "--store=null:",
                f"--record={tmp_path}/absent/record",
                f"--listen=tcp:{port}:interface=127.0.0.1",
            )
        )

    assert not listening(port)


def test_an_access_log_that_cannot_be_ends_the_start(tmp_path: Path) -> None:
    """
    Whoever wants one wants to know.
    """
    for path in (f"{tmp_path}/absent/log", str(tmp_path)):
        with pytest.raises(SystemExit, match=f"the access log {path} cannot be wri"):
            makeService(options("--store=null:", f"--access-log={path}"))


def test_sockets_that_nobody_gave_end_the_start() -> None:
    """
    And the addresses that could be had are let go.
    """
    port = unused_port()
    with pytest.raises(SystemExit, match="systemd gave no sockets to this process"):
        makeService(
            options(
                "--store=null:",
                f"--listen=tcp:{port}:interface=127.0.0.1",
                "--listen=systemd",
            )
        )

    assert not listening(port)


def test_the_rights_file_can_be_read_again() -> None:
    """
    By the user that kvd becomes, or the start is refused with what to do.
    """
    take_root("becoming another user")
    nobody = pwd.getpwnam("nobody")
    user = User(nobody.pw_uid, nobody.pw_gid)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "users.toml"
        path.touch(0o600)
        Path(folder).chmod(0o755)
        settings = Settings(users=RightsFile(str(path)))

        check_read_again(settings, None)
        check_read_again(Settings(), user)
        with pytest.raises(BadSetting, match=f"chgrp {user.gid} {path} and chmod 640"):
            check_read_again(settings, user)
        os.chown(path, 0, user.gid)
        path.chmod(0o640)
        check_read_again(settings, user)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--durability=process", "the engine behind the store s3://bucket/"),
        ("--file-mode=640", "creates no files: leave them out"),
        ("--folder-mode=750", "creates no files: leave them out"),
    ],
)
def test_what_is_about_files_is_refused_for_an_engine(option: str, said: str) -> None:
    """
    Before the engine is asked for anything.
    """
    with pytest.raises(SystemExit) as caught:
        makeService(options("--store=s3://bucket", "--control=off", option))

    assert said in str(caught.value)


def test_store_without_credentials_ends_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """
    A sentence says where to put them.
    """
    for name in os.environ:
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    with pytest.raises(SystemExit, match="AWS_SECRET_ACCESS_KEY"):
        makeService(options("--store=s3://bucket", "--control=off"))


def test_engine_that_is_absent_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A sentence names it.
    """
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    url = f"http://127.0.0.1:{unused_port()}"

    with pytest.raises(SystemExit, match=f"{url} cannot be reached"):
        makeService(options(f"--store=s3://bucket?endpoint={url}", "--control=off"))
