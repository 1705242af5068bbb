"""
The ``kvd`` command, forked by a process that has loaded it. That Python starts it too,
tests of the installation show.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.integration.forked import ForkedProcess, fork_server
from tests.patience import PATIENCE_SECONDS

_LOADED: Final = """
    kvd.cli.main kvd.cli.put kvd.cli.get kvd.cli.rm kvd.cli.ls kvd.cli.stat
    kvd.cli.status kvd.cli.sync kvd.cli.top twisted.internet.epollreactor
"""

_SHELL_COMMAND: Final = Path(__file__).with_name("shell_command.py")

_PROGRAM: Final = "from kvd.cli.main import main; main()"


def command_server() -> socket.socket:
    """
    What forks ``kvd``.
    """
    return fork_server(_LOADED, _PROGRAM)


def as_shell_command(folder: Path) -> Mapping[str, str]:
    """
    Make a program ``kvd`` for a shell.

    Args:
        folder: Where it is made, for the shell's ``PATH``.

    Returns:
        What the environment of the shell must have. It must inherit the descriptor of
        `command_server`.
    """
    program = folder / "kvd"
    text = _SHELL_COMMAND.read_text(encoding="utf-8")
    program.write_text(f"#!{sys.executable} -IS\n{text}", encoding="utf-8")
    program.chmod(0o755)
    return {"KVD_TEST_SERVER": str(command_server().fileno())}


def start_kvd(
    arguments: Sequence[str | bytes],
    folder: Path,
    environment: Mapping[str, str] = os.environ,
    output: int | None = None,
) -> ForkedProcess[bytes]:
    """
    Begin a command, whose standard streams are pipes.

    Args:
        arguments: Behind ``kvd``.
        folder: Where it is started.
        environment: Of the command.
        output: Its standard output; None: a pipe.
    """
    with ExitStack() as theirs:
        given, giving = os.pipe()
        theirs.callback(os.close, given)
        told, errors = os.pipe()
        theirs.callback(os.close, errors)
        printed = None
        if output is None:
            printed, output = os.pipe()
            theirs.callback(os.close, output)
        streams = [given, output, errors]
        process = ForkedProcess[bytes](
            command_server(), arguments, folder, streams, environment
        )
    process.stdin = os.fdopen(giving, "wb")
    process.stdout = None if printed is None else os.fdopen(printed, "rb")
    process.stderr = os.fdopen(told, "rb")
    return process


def run_kvd(
    *arguments: str | bytes,
    folder: Path = Path("/"),
    environment: Mapping[str, str] = os.environ,
    given: str = "",
) -> subprocess.CompletedProcess[str]:
    """
    Run a command to its end.
    """
    with start_kvd(arguments, folder, environment) as process:
        out, errors = process.communicate(given.encode(), timeout=PATIENCE_SECONDS)
    assert process.returncode is not None
    return subprocess.CompletedProcess(
        arguments, process.returncode, out.decode(), errors.decode()
    )
