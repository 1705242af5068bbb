"""
What a run was made on, since figures mean little without it.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.building import Programs
from kvd import __version__


def describe(programs: Programs, disk: Path, tmpfs: Path) -> Mapping[str, str]:
    """
    Machine and versions, as texts by what they tell. Nothing in it names a user
    or a folder.
    """
    return {
        "processor": _processor(),
        "memory": _memory(),
        # Without what whoever built it added.
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
        "file systems": f"{file_system(disk)} (disk), {file_system(tmpfs)}",
        "kvd": _kvd(),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "Twisted": importlib.metadata.version("twisted"),
        "httptools": importlib.metadata.version("httptools"),
        "nginx": _version([str(programs.nginx), "-v"]),
        "gcc": _version(["gcc", "-dumpfullversion"]),
    }


def _processor() -> str:
    text = Path("/proc/cpuinfo").read_text()
    found = re.search(r"^model name\s*:\s*(.*)$", text, re.MULTILINE)
    model = found[1] if found else platform.machine()
    virtual = ", virtual machine" if "hypervisor" in text else ""
    count = len(os.sched_getaffinity(0))
    return f"{count} x {model}{virtual}"


def _memory() -> str:
    found = re.search(r"MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    assert found
    return f"{int(found[1]) / 1024**2:.0f} GiB"


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


def _kvd() -> str:
    commit = _said(["git", "describe", "--always", "--dirty", "--abbrev=10"])
    return f"{__version__} ({commit.strip()})" if commit else __version__


def _version(command: Sequence[str]) -> str:
    # nginx says "nginx version: nginx/1.22.1".
    return _said(command).strip().rpartition("/")[2]


def _said(command: Sequence[str]) -> str:
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
