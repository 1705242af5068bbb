"""
What ``kvd bench`` starts, and the daemons of ``bench``, forked by processes that have
loaded it: loading takes longer than a short measurement. That Python starts it too, a
test of an interrupted one shows.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from unittest import mock

from kvd.lab.measuring import processes
from tests.integration.forked import ForkedProcess, fork_server
from tests.integration.twistd import fork_twistd

_LOADED: Final = "kvd.lab.bench.load kvd.lab.bench.sink"

_RUN_MODULE: Final = "import_module(sys.argv[1]).main(*sys.argv[2:])"


@contextmanager
def forked_programs() -> Iterator[None]:
    """
    ``kvd bench`` and ``bench``, as far as they run in this process meanwhile, fork
    their programs. Those that are not in Python are started, and those that the dynamic
    linker loads something into.
    """
    forking = SimpleNamespace(**{**vars(subprocess), "Popen": _start})
    with mock.patch.object(processes, "subprocess", forking):
        yield


def _start(
    command: Sequence[str],
    *,
    stdin: Any,
    stdout: Any,
    stderr: Any,
    cwd: str | None,
    env: Mapping[str, str] | None,
    process_group: int,
) -> ForkedProcess[Any] | subprocess.Popen[bytes]:
    assert 0 == process_group
    if command[0] != sys.executable or (env and "LD_PRELOAD" in env):
        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=cwd,
            env=env,
            process_group=process_group,
        )
    environment = os.environ if env is None else env
    _, kind, *words = command
    prelude = "os.setpgid(0, 0)\n"
    fork: partial[ForkedProcess[Any]]
    if kind == "-m":
        server = fork_server(_LOADED, _RUN_MODULE)
        fork = partial(ForkedProcess, server, words, Path(cwd or os.getcwd()))
    else:
        fork = partial(fork_twistd, words[1:], Path(cwd or os.getcwd()))
    with ExitStack() as theirs:
        ours: dict[str, Any] = {}
        streams: list[int] = []
        for name, given in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr)):
            if given == subprocess.STDOUT:
                given = streams[1]
            elif given == subprocess.DEVNULL:
                given = theirs.enter_context(open(os.devnull, "r+b", buffering=0))
            elif given == subprocess.PIPE:
                read, write = os.pipe()
                near, given = (write, read) if name == "stdin" else (read, write)
                theirs.callback(os.close, given)
                ours[name] = os.fdopen(near, "wb" if name == "stdin" else "rb")
            streams.append(given if isinstance(given, int) else given.fileno())
        process = fork(streams, environment=environment, prelude=prelude)
    for name, stream in ours.items():
        setattr(process, name, stream)
    return process
