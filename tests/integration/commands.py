"""
The ``kvd`` command, forked by a process that has loaded it. That Python starts it too,
tests of the installation and the examples of the documents show.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.integration.forked import ForkedProcess, fork_server

_LOADED: Final = """
    kvd.cli.main kvd.cli.put kvd.cli.get kvd.cli.rm kvd.cli.ls kvd.cli.stat
    kvd.cli.status kvd.cli.top twisted.internet.epollreactor
"""

_PROGRAM: Final = "from kvd.cli.main import main; main()"


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
        server = fork_server(_LOADED, _PROGRAM)
        process = ForkedProcess[bytes](
            server, arguments, folder, [given, output, errors], environment
        )
    process.stdin = os.fdopen(giving, "wb")
    process.stdout = None if printed is None else os.fdopen(printed, "rb")
    process.stderr = os.fdopen(told, "rb")
    return process


def run_kvd(
    *arguments: str | bytes,
    folder: Path = Path("/"),
    environment: Mapping[str, str] = os.environ,
) -> subprocess.CompletedProcess[str]:
    """
    Run a command to its end.
    """
    with start_kvd(arguments, folder, environment) as process:
        out, errors = process.communicate(timeout=60)
    assert process.returncode is not None
    return subprocess.CompletedProcess(
        arguments, process.returncode, out.decode(), errors.decode()
    )
