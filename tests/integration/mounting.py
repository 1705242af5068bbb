"""
Cases that mount something: each in a process of its own, forked by one that has loaded
them all, and where nobody else sees what it mounts.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.integration.forked import ForkedProcess, fork_server

CASE_SECONDS: Final = 290
"""
Less than the time in which pytest has a test end.
"""

# As unshare(1) does, with --map-root-user where it has to: mounts need root's
# privilege, or a user namespace of one's own. The numbers are of sched.h and
# sys/mount.h.
_ENTER_NAMESPACE: Final = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)

def call(name, *arguments):
    if getattr(libc, name)(*arguments):
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")

CLONE_NEWNS, CLONE_NEWUSER, MS_REC, MS_PRIVATE = 0x20000, 0x10000000, 0x4000, 0x40000
if user := os.geteuid():
    group = os.getegid()
    call("unshare", CLONE_NEWNS | CLONE_NEWUSER)
    for name, text in (
        ("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
else:
    call("unshare", CLONE_NEWNS)
call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
"""


def run_case(
    module: str, arguments: Sequence[str], mounts: bool = True
) -> tuple[int, str]:
    """
    Run one case of a module to its end.

    Args:
        module: It has a function ``main`` for its cases.
        arguments: Of ``main``.
        mounts: Whether it mounts something.

    Returns:
        The status, and what it wrote to its standard error.
    """
    server = fork_server(module, f"from {module} import main; main(*sys.argv[1:])")
    prelude = _ENTER_NAMESPACE if mounts else ""
    read, errors = os.pipe()
    with open(os.devnull, "r+b", buffering=0) as nothing:
        streams = [nothing.fileno(), nothing.fileno(), errors]
        process = ForkedProcess[str](
            server, arguments, Path("/"), streams, prelude=prelude
        )
    os.close(errors)
    process.stderr = os.fdopen(read, errors="replace")
    with process:
        try:
            _, said = process.communicate(timeout=CASE_SECONDS)
        finally:
            process.kill()
    assert process.returncode is not None
    return process.returncode, said
