"""
A process that has loaded Twisted and kvd, and forks daemons, or commands: most of the
time that they take goes into loading these, over and over in hundreds of tests.

A daemon's own fork server takes as long again, since it is another Python that loads
nearly the same. So each daemon has a *spare*: a child, forked before the reactor is
installed, that becomes the first fork server. Later ones are started as in production.

This file is not imported by what it is for. Its text runs before a program's, in a
Python of its own, and ends in each fork.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any

MAX_BYTES = 1 << 18
"""
Of a request: the environment is the most of it.
"""

MAX_DESCRIPTORS = 8

DONE = b"done"

UNCHANGED = "-n", "--pidfile=", "--reactor="
"""
How the options of ``twistd`` begin that leave a process what it is.
"""


def fork_processes(
    control: socket.socket, modules: Sequence[str], prepared: str
) -> None:
    """
    Fork a process for each request, until nobody can send one any more. Returns in each
    process, which has the arguments, the folder, the environment, the umask, the
    standard streams and the further descriptors that were requested, and nothing else
    open.

    Args:
        control: Where requests come from.
        modules: What is loaded before; not the reactor, which each process installs.
        prepared: What is done before, in Python.
    """
    for module in modules:
        import_module(module)
    exec(prepared, {})
    assert "twisted.internet.reactor" not in sys.modules
    # What all have is not looked through, nor copied, in each of them.
    gc.collect()
    gc.freeze()
    # Nobody waits for the processes that watch others.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, MAX_BYTES, MAX_DESCRIPTORS)
        if not data:
            sys.exit()
        if os.fork() == 0:
            break
        for descriptor in descriptors:
            os.close(descriptor)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # Whoever runs the tests may have ignored these.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    control.close()
    *streams, line = descriptors
    process = os.fork()
    if process:
        for descriptor in streams:
            os.close(descriptor)
        watch(process, socket.socket(fileno=line))
    arguments, folder, environment, umask, prelude = json.loads(data)
    os.chdir(folder)
    os.umask(umask)
    os.environ.clear()
    os.environ.update(environment)
    measure_if_asked()
    sys.argv[1:] = arguments
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
    os.closerange(len(streams), max(descriptors) + 1)
    # As Python makes them: the ones that it has made were for other files.
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False)
    exec(prelude, dict(globals()))


def measure_if_asked() -> None:
    """
    Measure coverage no more if the environment does not ask for it: a Python that was
    started with it would not.
    """
    coverage = sys.modules.get("coverage")
    measured = coverage and coverage.Coverage.current()
    if measured and "COVERAGE_PROCESS_CONFIG" not in os.environ:
        measured.stop()
        measured._auto_save = False


def run(program: str) -> None:
    """
    Run a program, and end as Python does, but without freeing each object: a process
    would copy most of the memory that it shares only to give it back.

    Args:
        program: In Python.
    """
    status: str | int | None = None
    try:
        exec(program, globals())
    except SystemExit as error:
        status = error.code
    if status is None or isinstance(status, int):
        threading._shutdown()  # type: ignore[attr-defined]  # private
        atexit._run_exitfuncs()
        with suppress(OSError, ValueError, AttributeError):
            # Whatever cannot be written, or is closed, Python itself reports.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(int(status or 0) & 0xFF)
    sys.exit(status)


def watch(process: int, line: socket.socket) -> None:
    """
    Tell how a process ends. As with any child, its number stays taken until whoever
    asked for it knows. Never returns.
    """
    try:
        line.send(str(process).encode())
        ended = os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        exited = ended.si_code == os.CLD_EXITED
        line.send(str(ended.si_status if exited else -ended.si_status).encode())
        line.recv(len(DONE))
        os.waitpid(process, 0)
    finally:
        os._exit(0)


def keep_spare() -> None:
    """
    Fork the spare of this daemon, if it will have workers.
    """
    if not {"--procs=0", "0"}.isdisjoint(sys.argv):
        return
    before = sys.argv[1 : sys.argv.index("kvd")] if "kvd" in sys.argv else []
    if "-n" not in before or not all(word.startswith(UNCHANGED) for word in before):
        # twistd may become another user, and this child would not.
        return
    from kvd.daemon import supervisor
    from kvd.workers.process import ForkServerProcess

    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    spare = os.fork()
    if spare == 0:
        near.close()
        be_fork_server(far)
    far.close()
    started = partial(ForkServerProcess, spawn=Spare(spare, near).spawn)
    supervisor.__dict__["ForkServerProcess"] = started


def be_fork_server(line: socket.socket) -> None:
    """
    Wait until this daemon wants a fork server, and be it. Never returns.
    """
    from kvd.workers.forkserver import main

    data, descriptors, _, _ = socket.recv_fds(line, MAX_BYTES, 2)
    if not data:
        # It has none, or has ended.
        os._exit(0)
    line.close()
    control, errors = descriptors
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        # What the daemon was given. Also of the folder just read, which is closed.
        if descriptor > 2 and descriptor not in descriptors:
            with suppress(OSError):
                os.close(descriptor)
    folder, umask, environment = json.loads(data)
    os.setpgid(0, 0)
    os.chdir(folder)
    os.umask(umask)
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(errors, 2)
    os.close(errors)
    # As `kvd.workers.forkserver` begins.
    gc.disable()
    main(control)


class Spare:
    """
    A child that becomes a fork server.
    """

    def __init__(self, pid: int, line: socket.socket) -> None:
        self._pid = pid
        self._line = line

    def spawn(self, control: socket.socket) -> Any:
        """
        See `kvd.workers.forkserver.spawn`.
        """
        from kvd.workers import forkserver

        if self._line.fileno() < 0:
            return forkserver.spawn(control)
        umask = os.umask(0)
        os.umask(umask)
        state = json.dumps([os.getcwd(), umask, dict(os.environ)])
        read, errors = os.pipe()
        with self._line:
            socket.send_fds(self._line, [state.encode()], [control.fileno(), errors])
        os.close(errors)
        return SpareProcess(self._pid, read)


class SpareProcess:
    """
    As `subprocess.Popen`, as far as kvd uses it.
    """

    def __init__(self, pid: int, errors: int) -> None:
        self.returncode: int | None = None
        self.stderr = os.fdopen(errors, "rb", 0)
        self.pid = pid

    def poll(self) -> int | None:
        """
        Its status, if it has ended.
        """
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """
        Wait until it has ended.
        """
        if self.poll() is None:
            pidfd = os.pidfd_open(self.pid)
            select.select([pidfd], [], [], timeout)
            os.close(pidfd)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired("fork server", timeout or 0.0)
        return status

    def kill(self) -> None:
        """
        End it at once.
        """
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
