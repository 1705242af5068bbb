"""
Tests for ``etc/kvd.service`` and ``etc/kvd.socket``, and for the units in
``etc/cluster``.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kvd.options import Options
from kvd.settings import StoreLocation, SystemdAddress
from tests.patience import PATIENCE_SECONDS

ETC = Path(__file__).parents[3] / "etc"
SYSTEM_UNITS = ["/usr/lib/systemd/system", "/lib/systemd/system"]


def setting(unit: str, name: str) -> str:
    """
    The value of a setting that stands once.
    """
    lines = (ETC / unit).read_text(encoding="utf-8").splitlines()
    (value,) = [line.partition("=")[2] for line in lines if line.startswith(f"{name}=")]
    return value


def test_the_service_starts_kvd_with_settings_that_can_be() -> None:
    """
    With the sample of a settings file, and where systemd gives it folders.
    """
    command = setting("kvd.service", "ExecStart")
    for written, meant in (
        ("/etc/kvd.toml", f"{ETC}/kvd.toml"),
        ("%S", "/var/lib"),
        ("%t", "/run"),
    ):
        command = command.replace(written, meant)
    twistd, *words = shlex.split(command)
    options = Options()
    options.parseOptions(words[words.index("kvd") + 1 :])

    assert "/opt/kvd/bin/twistd" == twistd
    assert ["-n", "--pidfile=", "kvd"] == words[:3]
    assert (SystemdAddress(""),) == options.settings.listen
    assert StoreLocation("file", "/var/lib/kvd/values") == options.settings.store
    assert "/run/kvd/8080.control" == options.settings.control
    assert "127.0.0.1:8080" == setting("kvd.socket", "ListenStream")


@pytest.mark.parametrize("folder", ["", "cluster/"])
def test_the_service_is_killed_later_than_kvd_gives_up(folder: str) -> None:
    """
    kvd ends by itself two seconds after the time for draining.
    """
    options = Options()
    options.parseOptions(["--config", f"{ETC}/{folder}kvd.toml"])
    seconds = int(setting(f"{folder}kvd.service", "TimeoutStopSec"))

    assert options.settings.drain_seconds + 2 < seconds


@pytest.mark.parametrize(
    "unit",
    [
        "kvd.service",
        "cluster/kvd.service",
        "cluster/seaweedfs.service",
        "cluster/etcd.service",
    ],
)
def test_the_service_is_started_again_however_often_it_failed(unit: str) -> None:
    """
    A disk that is mounted late, or an engine that does not answer yet, is no reason to
    stay down; systemd gives up after five starts in ten seconds by default, and closes
    the socket.
    """
    assert setting(unit, "Restart") in ("on-failure", "always")
    assert "0" == setting(unit, "StartLimitIntervalSec")


@pytest.mark.parametrize(
    ("folder", "units"),
    [
        (ETC, ["kvd.service", "kvd.socket"]),
        (ETC / "cluster", ["kvd.service", "seaweedfs.service", "etcd.service"]),
    ],
)
def test_systemd_understands_the_units(
    tmp_path: Path, folder: Path, units: list[str]
) -> None:
    """
    Without a warning; with the program where it is here. Nothing of systemd has to run
    for it.
    """
    program = shutil.which("systemd-analyze")
    assert program is not None, "systemd is not installed; .ci/run installs it"
    for unit in units:
        text = (folder / unit).read_text(encoding="utf-8")
        for installed in (
            "/opt/kvd/bin/twistd",
            "/opt/seaweedfs/bin/weed",
            "/usr/bin/etcd",
        ):
            text = text.replace(installed, sys.executable)
        (tmp_path / unit).write_text(text, encoding="utf-8")
    verified = subprocess.run(
        [program, "verify", *units],
        cwd=tmp_path,
        # Units of this machine may have faults of their own.
        env=os.environ
        | {"SYSTEMD_UNIT_PATH": ":".join([str(tmp_path), *SYSTEM_UNITS])},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )

    assert "" == verified.stderr
    assert 0 == verified.returncode
