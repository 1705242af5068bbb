"""
What a test asks the kernel about processes that are not its own children.
"""

from __future__ import annotations

from pathlib import Path


def state_of(pid: int) -> str:
    """
    The letter of a process's state, as in proc_pid_stat(5); empty if it is gone.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        # The latter if it ends between the opening and the reading.
        return ""
    return stat.rpartition(")")[2].split()[0]


def has_ended(pid: int) -> bool:
    """
    Whether a process has ended. One that nobody has reaped is there still: in many
    containers, whoever adopts orphans never does.
    """
    return state_of(pid) in {"", "Z", "X"}
