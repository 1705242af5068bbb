"""
The test suites of other projects, which they have for any server: run as they are, and
judged by what is left out.

A file in ``left_out`` beside this module names the tests that a suite does not pass,
each with its reason. All tests run. One that fails and is not named there is a fault;
so is one that is named there and passes, or that the suite does not have.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.clients.running import INSTALL_SECONDS, from_pypi, run
from tests.integration.test_docs import ROOT
from tests.integration.twistd import Twistd

LEFT_OUT: Final = Path(__file__).with_name("left_out")

Outcomes = Mapping[str, str | None]
"""
Of tests, by their names: None if one has passed, or what it said.
"""


def left_out(suite: str) -> dict[str, str]:
    """
    The tests that a suite does not pass, each with its reason.
    """
    text = (LEFT_OUT / f"{suite}.toml").read_text()
    reasons: dict[str, str] = {}
    for each in tomllib.loads(text)["left-out"]:
        for name in each["tests"]:
            assert name not in reasons, f"{name} is left out twice."
            assert each["reason"], f"{name} is left out without a reason."
            reasons[name] = each["reason"]
    return reasons


def judge(outcomes: Outcomes, reasons: Mapping[str, str]) -> str:
    """
    Check that a suite passes, but for what is left out.

    Args:
        outcomes: Of its tests.
        reasons: Why tests are left out, by their names.

    Returns:
        How many have passed and are left out.

    Raises:
        AssertionError: One fails that is not left out; or one that is left out passes,
            or is not there.
    """
    assert outcomes, "The suite has run no test."
    failed = {name: said for name, said in outcomes.items() if said is not None}
    passed = outcomes.keys() - failed.keys()
    wrong = [
        *(f"{name}: {failed[name]}" for name in failed if name not in reasons),
        *(
            f"{name} passes: it has no need to be left out."
            for name in reasons
            if name in passed
        ),
        *(
            f"{name} is left out, and there is no such test."
            for name in reasons
            if name not in outcomes
        ),
    ]
    assert not wrong, "\n".join(wrong)
    return f"{len(passed)} tests passed, {len(failed)} left out"


@dataclass(frozen=True, slots=True)
class S3:
    """
    A daemon that speaks S3.
    """

    address: str
    key: str
    secret: str

    @property
    def aws(self) -> dict[str, str]:
        """
        The variables by which AWS's libraries find the key.
        """
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
        }


@contextmanager
def s3_daemon(folder: Path) -> Iterator[S3]:
    """
    A daemon of two workers that take connections in turn, with a user who signs.
    """
    kvd = str(Path(sys.executable).with_name("kvd"))
    users = ["--users", "users.toml"]
    allow = "--allow=/=read,write,delete,list"
    run(folder, kvd, "user", "add", "ci", *users, "--no-password", allow)
    shown = run(folder, kvd, "user", "s3-key", "ci", *users)
    key, secret = re.findall(r" = (\S+)", shown)
    options = [
        *["--dialect=/=s3", f"--users={folder}/users.toml", "--procs=2"],
        *[f"--store=file:{folder}/values", "--policy=roundrobin"],
        *["--durability=process", "--control=off"],
    ]
    with Twistd(options, folder) as daemon:
        yield S3(f"127.0.0.1:{daemon.port}", key, secret)
        daemon.stop()


def source_from_pypi(name: str, version: str, *packages: str) -> tuple[Path, str]:
    """
    The source of a package on PyPI, which has its tests.

    Args:
        name: Of the package.
        version: Of it.
        packages: What its tests need.

    Returns:
        The folder of the source, and a Python that can import the package.
    """
    python = str(from_pypi(name, f"{name}=={version}", *packages) / "python")
    folder = ROOT / "build" / "clients" / "sources"
    source = folder / f"{name}-{version}"
    if not source.exists():
        folder.mkdir(parents=True, exist_ok=True)
        archive = folder / f"{name}-{version}.tar.gz"
        pip = [python, "-m", "pip", "download", "--quiet", "--no-deps"]
        run(
            folder,
            *[*pip, "--no-binary", name, f"{name}=={version}"],
            home=Path.home(),
            seconds=INSTALL_SECONDS,
        )
        unpacked = folder / "unpacked"
        unpacked.mkdir(exist_ok=True)
        # `tarfile` has filters from Python 3.11.4 on, and Debian 12 has 3.11.2.
        run(unpacked, "tar", "--extract", "--gzip", "--file", str(archive))
        (unpacked / source.name).rename(source)
    return source, python


GO_SOURCES: Final = Path("/usr/share/gocode")
"""
Where Debian's packages have the sources of libraries in Go.
"""


def build_with_go(folder: Path, command: str, *arguments: str) -> None:
    """
    Compile with what Debian has; nothing is fetched.

    Args:
        folder: Of the sources; what is below its ``src`` can be imported.
        command: Of ``go``.
        arguments: Of the command.
    """
    environment = {
        "GO111MODULE": "off",
        "GOPATH": f"{folder}:{GO_SOURCES}",
        "GOCACHE": str(ROOT / "build" / "clients" / "go"),
        # Two processors, and no compiler of C.
        "GOFLAGS": "-p=2",
        "CGO_ENABLED": "0",
    }
    run(
        folder,
        *["go", command, *arguments],
        environment=environment,
        seconds=INSTALL_SECONDS,
    )
