"""
The machine of a run, with the versions of the baselines.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.building import Programs
from kvd import __version__
from kvd.lab.measuring.machine import describe_machine


def describe(programs: Programs, disk: str, tmpfs: str) -> Mapping[str, str]:
    """
    The machine and all versions.

    Args:
        disk: The file system of workloads on a disk.
        tmpfs: That of the others.
    """
    commit = _output(["git", "describe", "--always", "--dirty", "--abbrev=10"])
    return {
        **describe_machine(),
        "kvd": f"{__version__} ({commit.strip()})" if commit else __version__,
        "file systems": f"{disk} (disk), {tmpfs}",
        "Twisted": importlib.metadata.version("twisted"),
        "httptools": importlib.metadata.version("httptools"),
        "nginx": _version([str(programs.nginx), "-v"]),
        "gcc": _version(["gcc", "-dumpfullversion"]),
    }


def file_system(path: Path) -> str:
    """
    The type of the file system that a path is on.
    """
    device = path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        # See proc(5): the type is the first field behind a lone hyphen.
        fields = line.split()
        if fields[2] == number:
            return fields[fields.index("-") + 1]
    return "unknown"


def _version(command: Sequence[str]) -> str:
    # nginx prints "nginx version: nginx/1.22.1".
    return _output(command).strip().rpartition("/")[2]


def _output(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(  # noqa: S603
            command,
            cwd=Path(__file__).parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return ""
    return "" if done.returncode else done.stdout
