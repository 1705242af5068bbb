"""
What the package for Debian is made of. ``make deb`` makes it, on the release that it is
for; here only what can be read without that is checked.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from email import message_from_string
from pathlib import Path

import pytest

from kvd import __version__

ROOT = Path(__file__).parents[1]
DEBIAN = ROOT / "debian"


def read(name: str) -> str:
    """
    A file of the package's sources.
    """
    return (DEBIAN / name).read_text(encoding="utf-8")


def setting(unit: str, name: str) -> list[str]:
    """
    The values of a setting, wherever it stands.
    """
    return re.findall(rf"^{name}=(.*)$", unit, re.MULTILINE)


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """
    The texts of the units as the package has them.
    """
    folder = tmp_path_factory.mktemp("units")
    make = ["make", "--silent", "-f", "debian/rules", "units", f"UNITS={folder}"]
    subprocess.run(make, cwd=ROOT, check=True)
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}


def test_the_settings_file_names_the_examples_where_they_are(tmp_path: Path) -> None:
    """
    And is that of ``etc/`` in all else.
    """
    make = [*("make", "--silent", "-f", "debian/rules"), "settings"]
    subprocess.run([*make, f"SETTINGS={tmp_path}"], cwd=ROOT, check=True)
    lines = (tmp_path / "kvd.toml").read_text(encoding="utf-8").splitlines()
    ours = (ROOT / "etc" / "kvd.toml").read_text(encoding="utf-8").splitlines()
    differing = [line for line, our in zip(lines, ours, strict=True) if line != our]

    (line,) = differing
    assert line.startswith("# it, and a sample is in /usr/share/doc/kvd/examples. ")
    assert "etc/kvd-users.toml" in read("kvd.examples").split()


def test_the_newest_entry_of_the_changelog_is_this_version() -> None:
    """
    From which the package has its own.
    """
    first = read("changelog").splitlines()[0]

    assert f"kvd ({__version__}) unstable; urgency=medium" == first


def test_the_package_is_described() -> None:
    """
    In two paragraphs of fields.
    """
    source, package = map(message_from_string, read("control").strip().split("\n\n"))

    assert "kvd" == source["Source"] == package["Package"]
    assert source["Maintainer"] in read("changelog")
    assert "${shlibs:Depends}" in package["Depends"]
    assert all(len(line) <= 80 for line in package["Description"].splitlines())


def test_the_documents_of_the_package_are_there() -> None:
    """
    All that it installs.
    """
    assert [] == [
        name
        for name in (read("kvd.docs") + read("kvd.examples")).split()
        if not any(ROOT.glob(name))
    ]


@pytest.mark.parametrize("name", ["kvd.postinst", "kvd.postrm", "kvd.prerm"])
def test_the_scripts_can_be_parsed(name: str) -> None:
    """
    By the shell that runs them.
    """
    subprocess.run(["sh", "-n", DEBIAN / name], check=True)


def test_the_service_is_that_of_the_package(units: dict[str, str]) -> None:
    """
    Its programs, its settings, and the user that it makes.
    """
    service = units["kvd.service"]
    (command,) = setting(service, "ExecStart")
    words = shlex.split(command)

    assert "/usr/lib/kvd/bin/twistd" == words[0]
    assert "/etc/kvd/kvd.toml" == words[words.index("--config") + 1]
    assert ["kvd"] == setting(service, "User")
    assert [] == setting(service, "DynamicUser")
    assert read("kvd.sysusers").startswith("u kvd ")
    assert "\nsu kvd kvd\n" in re.sub(r"\n\s+", "\n", read("kvd.logrotate"))
    assert (ROOT / "etc" / "kvd.socket").read_text() == units["kvd.socket"]


def test_the_daemon_that_an_upgrade_asks_is_that_of_the_service(
    units: dict[str, str],
) -> None:
    """
    At its control socket.
    """
    (asked,) = re.findall(r"kvd upgrade --control (\S+)", read("kvd.postinst"))
    (command,) = setting(units["kvd.service"], "ExecStart")

    assert f"--control {asked}" in command.replace("%t", "/run")


@pytest.mark.parametrize(("step", "left"), [("remove", ["log"]), ("purge", [])])
def test_only_purging_removes_the_logs(
    tmp_path: Path, step: str, left: list[str]
) -> None:
    """
    The values stay, whatever is done.
    """
    script = read("kvd.postrm").replace("#DEBHELPER#", "")
    assert "/var/log/kvd" in script
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "access.log").touch()
    script = script.replace("/var/log/kvd", str(tmp_path / "log"))
    subprocess.run(["sh", "-s", step], input=script.encode("utf-8"), check=True)

    assert left == [path.name for path in tmp_path.iterdir()]
    assert "/var/lib" not in script


@pytest.mark.parametrize(
    ("answer", "asked_of_systemd", "status"),
    [(0, [], 0), (1, [], 1), (5, ["restart"], 0)],
    ids=["upgraded", "refused", "no answer"],
)
def test_daemon_goes_on_where_new_code_does_not_start(
    tmp_path: Path, answer: int, asked_of_systemd: list[str], status: int
) -> None:
    """
    A restart would end the one that serves, and start no other. Only a daemon that
    cannot be asked is restarted.
    """
    script = read("kvd.postinst").replace("#DEBHELPER#", "")
    for real, here in {
        "/run/systemd/system": str(tmp_path),
        "/usr/lib/kvd/bin/python3": "true",
    }.items():
        assert real in script
        script = script.replace(real, here)
    for name, does in {
        "py3compile": "exit 0",
        "kvd": f"exit {answer}",
        "systemctl": 'echo "$1" >> asked',
    }.items():
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{does}\n")
        program.chmod(0o755)

    ended = subprocess.run(
        ["sh", "-s", "configure", "0.0.9"],
        input=script.encode("utf-8"),
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
    )

    asked = (tmp_path / "asked").read_text().split()
    assert ["--quiet", "daemon-reload", *asked_of_systemd] == asked
    assert status == ended.returncode


def test_package_is_built_with_the_python_that_it_depends_on() -> None:
    """
    Another one may come first in PATH, and is not where the package is installed.
    """
    commands = re.findall(r"(?:^\t|shell )(\S*python3?)\b", read("rules"), re.MULTILINE)

    assert {"$(PYTHON3)", "$(BIN)/python"} >= set(commands)
    assert ["PYTHON3 := /usr/bin/python3"] == re.findall(
        r"^PYTHON3 .*", read("rules"), re.MULTILINE
    )
