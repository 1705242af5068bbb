"""
``make test`` first checks what it needs of the system.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.patience import PATIENCE_SECONDS

ROOT = Path(__file__).parent.parent

SCRIPT = ROOT / "tests" / "prepare.sh"
# By the script itself: a test that needs one more program brings a line there.
NEEDED = re.findall(r"command -v (\w\S*) >/dev/null \|\| echo", SCRIPT.read_text())

APT_GET = """\
echo "$@" >> {folder}/asked
[[ "$*" == *systemd* ]] && ln -s /bin/true {folder}/bin/systemd-analyze
true
"""


class System:
    """
    A system with some programs, and a copy of the sources.
    """

    def __init__(self, folder: Path, without: list[str]) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        (folder / "tests").mkdir()
        shutil.copy(SCRIPT, folder / "tests")
        for name in NEEDED:
            if name not in without:
                self.have(name, "cat > /dev/null")
        for name in "bash", "cat", "dirname", "id", "ln", "rm":
            found = shutil.which(name)
            assert found is not None
            (folder / "bin" / name).symlink_to(found)
        # With its headers, whether this machine has them or not.
        self.have("python", "cat > /dev/null")

    def have(self, name: str, script: str) -> None:
        """
        Add a program.
        """
        path = self.folder / "bin" / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)

    def be(self, user: int) -> None:
        """
        Act as a user with this number.
        """
        self.have("id", f"echo {user}")

    def have_apt_get(self) -> None:
        """
        Have the package manager of Debian, which installs only systemd.
        """
        self.have("apt-get", APT_GET.replace("{folder}", str(self.folder)))

    def prepare(
        self, *engines: str, clients: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """
        Run the script.
        """
        return subprocess.run(
            ["/bin/bash", str(self.folder / "tests" / "prepare.sh"), *engines],
            env={
                "PATH": str(self.folder / "bin"),
                "PYTHON": "python",
                "CLIENTS": clients,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )

    def asked(self) -> str:
        """
        The calls of the package manager.
        """
        path = self.folder / "asked"
        return path.read_text() if path.exists() else ""


def test_where_all_is_there_nothing_happens(tmp_path: Path) -> None:
    """
    And nothing is printed.
    """
    system = System(tmp_path, without=[])
    system.have_apt_get()
    done = system.prepare()

    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)
    assert "" == system.asked()


def test_root_installs_what_is_missing(tmp_path: Path) -> None:
    """
    Nothing more; afterwards kvd is compiled again.
    """
    system = System(tmp_path, without=["systemd-analyze"])
    system.have_apt_get()
    system.be(0)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "native").touch()
    done = system.prepare()

    assert (0, "") == (done.returncode, done.stderr)
    update, install = system.asked().splitlines()
    assert "update" == update.split()[0]
    assert ["ca-certificates", "systemd"] == [
        word for word in install.split()[1:] if not word.startswith("-")
    ]
    assert not (tmp_path / ".venv" / "native").exists()


def test_other_users_are_shown_the_command(tmp_path: Path) -> None:
    """
    And nothing is run.
    """
    system = System(tmp_path, without=["chromium", "systemd-analyze"])
    system.have_apt_get()
    system.be(1000)
    done = system.prepare()

    assert 1 == done.returncode
    assert "" == system.asked()
    assert "only root may install it" in done.stderr
    assert (
        "    sudo sh -c 'apt-get update && apt-get install --yes"
        " --no-install-recommends ca-certificates chromium systemd'"
    ) == done.stderr.splitlines()[-1]


def test_where_there_is_no_apt_get_the_packages_are_named(tmp_path: Path) -> None:
    """
    Users of other systems learn what to install.
    """
    system = System(tmp_path, without=["gcc"])
    system.be(0)
    done = system.prepare()

    assert 1 == done.returncode
    assert "not installed here: gcc libc6-dev" in done.stderr


def test_engines_are_needed_where_they_are_named(tmp_path: Path) -> None:
    """
    By ``make test-engines`` alone.
    """
    system = System(tmp_path, without=["ceph", "memcached"])
    system.be(0)

    assert 0 == system.prepare().returncode
    assert 0 == system.prepare("seaweedfs", "cluster").returncode
    said = system.prepare("ceph", "swift").stderr
    packages = "ceph-mon ceph-mgr ceph-osd radosgw ceph-common memcached"
    assert f"not installed here: {packages}\n" in said


@pytest.mark.parametrize(
    ("named", "program", "package"),
    [("proxies", "caddy", "caddy"), ("alerts", "promtool", "prometheus")],
)
def test_programs_of_one_target_are_needed_where_it_is_named(
    tmp_path: Path, named: str, program: str, package: str
) -> None:
    """
    By ``make test-proxies`` and ``make alerts``.
    """
    system = System(tmp_path, without=[program])
    system.be(0)

    assert 0 == system.prepare().returncode
    assert f"not installed here: {package}\n" in system.prepare(named).stderr


def test_clients_are_needed_where_they_are_named(tmp_path: Path) -> None:
    """
    By ``make test-clients`` alone. Which, they say themselves.
    """
    system = System(tmp_path, without=[])
    system.be(0)
    system.have(
        "python",
        '[[ $* == "-m tests.clients.missing nix webdav" ]] && echo nix-bin; cat >&0',
    )

    assert 0 == system.prepare().returncode
    said = system.prepare("clients", clients="nix webdav").stderr
    assert "not installed here: nix-bin\n" in said


def test_clients_that_cannot_be_looked_for_are_not_taken_for_there(
    tmp_path: Path,
) -> None:
    """
    A name that is misspelt ends it.
    """
    system = System(tmp_path, without=[])
    system.be(0)
    system.have("python", "[[ $2 != tests.clients.missing ]] || exit 1; cat >&0")

    assert 0 != system.prepare("clients", clients="webdaw").returncode


def test_what_is_still_missing_after_that_is_named(tmp_path: Path) -> None:
    """
    No test begins without it.
    """
    system = System(tmp_path, without=["systemd-analyze"])
    system.have("apt-get", "true")
    system.be(0)
    done = system.prepare()

    assert 1 == done.returncode
    assert "Installed, but still not found: systemd" in done.stderr


@pytest.mark.parametrize(
    ("target", "named", "check"),
    [
        ("test", "", "ruff check"),
        ("", "", "ruff check"),
        ("test-proxies", " proxies", "proxy_programs.py"),
        ("alerts", " alerts", "promtool check rules"),
    ],
    ids=["make test", "make", "make test-proxies", "make alerts"],
)
def test_it_comes_before_anything_else(target: str, named: str, check: str) -> None:
    """
    Before a virtual environment is made, and before any check.
    """
    planned = make("--dry-run", "--always-make", *filter(None, [target]))

    assert 0 == planned.returncode, planned.stderr
    first, *others = planned.stdout.splitlines()
    assert f'PYTHON="python3" tests/prepare.sh{named}' == first
    assert any(check in line for line in others)


def test_metrics_that_cannot_be_printed_fail_the_check_of_them(tmp_path: Path) -> None:
    """
    ``promtool`` finds no fault in metrics that are empty.
    """
    for name, script in ("python", "exit 1"), ("promtool", "exit 0"):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    path = f"PATH={tmp_path}:{os.environ['PATH']}"
    there = [f"--old-file={each}" for each in (".venv/developed", "prepared-alerts")]
    done = make("alerts", f"BIN={tmp_path}", path, *there)

    assert 2 == done.returncode, done.stdout
    assert "sample_metrics" in done.stdout
    assert "promtool" not in done.stdout.partition("sample_metrics")[2]


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """
    Run ``make``, not as a part of the one that runs the tests.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES", "PYTHON")
    }
    return subprocess.run(
        ["make", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
