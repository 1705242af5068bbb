"""
The machine that figures were measured on, since they mean little without it.
"""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Mapping
from pathlib import Path

from kvd import __version__


def describe_machine() -> Mapping[str, str]:
    """
    The machine and the versions, as texts by name. No text names a user or a folder.
    """
    return {
        "measured": time.strftime("%Y-%m-%d %H:%M"),
        "processor": _processor(),
        "memory": _memory(),
        "load before": f"{os.getloadavg()[0]:.1f}",
        # Without the suffix of the distribution or of whoever built it.
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "kvd": __version__,
    }


def machine_line(machine: Mapping[str, str]) -> str:
    """
    The same in one line.
    """
    return ", ".join(f"{name} {text}" for name, text in machine.items())


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
