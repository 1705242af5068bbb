"""
The fork server: the process that workers are forked from.

It has imported everything that a worker needs and has no reactor. So a fork of it can
serve at once, and shares nearly all of its memory. It only forks and waits: it ends
when its control socket has closed and the last worker that it forked, which only it can
reap, has ended. It ignores signals that go to all processes of a service (a terminal's
^C, a service manager's SIGTERM): the supervisor handles them.
"""

from __future__ import annotations

import gc
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import traceback
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NoReturn

from kvd.ipc.messages import Alive, Exited, Fork, Forked, Load, receive, send
from kvd.ipc.scoreboard import Scoreboard
from kvd.ipc.texts import read_text
from kvd.net.credentials import unpack
from kvd.settings import Settings
from kvd.system.code import LOADED, REPLACED, fingerprint
from kvd.system.descriptors import raise_descriptor_limit
from kvd.system.inherited import reset_signals

if TYPE_CHECKING:
    from kvd.workers.loading import LoadedPlugins

# The supervisor's module path, so that the fork server finds the same modules from any
# folder. Relative entries are resolved now, while the supervisor's folder exists.
MODULE_PATH: Final = [
    folder if os.path.isabs(folder) else os.path.abspath(folder) for folder in sys.path
]
# No collection until all is imported: they would be a seventh of the time that this
# takes, and would leave holes in pages that forks share. A worker copies a page when it
# puts an object into a hole of it: 0.1 MiB for each of 32 workers (PSS, ``make figures
# FIGURES=start``).
_BOOT: Final = (
    "import gc, json, sys; gc.disable(); sys.path[:] = json.loads(sys.argv[1]);"
    " from kvd.workers.forkserver import main; main(int(sys.argv[2]), sys.argv[3])"
)


_TRACED_SECONDS: Final = 1.0


def spawn(control: socket.socket) -> subprocess.Popen[bytes]:
    """
    Start a fork server.

    Args:
        control: The fork server's end of the control socket; the caller closes its
            copy.

    Returns:
        The process. The caller reads what it and its workers print to standard error:
        nobody may be reading this process's own.
    """
    path = json.dumps(MODULE_PATH)
    return subprocess.Popen(  # noqa: S603  # all of it is ours
        [sys.executable, "-c", _BOOT, path, str(control.fileno()), LOADED],
        pass_fds=[control.fileno()],
        stdin=subprocess.DEVNULL,
        # Without a standard output, its number would belong to some socket.
        stdout=subprocess.DEVNULL if sys.__stdout__ is None else None,
        stderr=subprocess.PIPE,
        process_group=0,
    )


def main(descriptor: int, code: str = LOADED) -> NoReturn:
    """
    Run a fork server until the control socket closes. Ends this process.

    Args:
        descriptor: Of the control socket.
        code: The fingerprint of the supervisor's code; nothing runs if this process has
            loaded other code.
    """
    reset_signals()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    # Set here rather than in each worker, as are the ignored signals: whatever a worker
    # runs for the first time copies pages that it shared.
    raise_descriptor_limit()
    control = socket.socket(fileno=descriptor)
    control.set_inheritable(False)
    loaded = receive(control)
    if loaded is None:
        _end(0)
    message, (memory, counting, verifying, *more) = loaded
    assert isinstance(message, Load)
    settings = message.settings
    if settings.users is not None:
        text = more.pop(0)
        users = replace(settings.users, text=read_text(text))
        os.close(text)
        settings = replace(settings, users=users)
    if message.credentials:
        settings = replace(settings, credentials=unpack(more.pop(0)))
    scoreboard = Scoreboard(memory)
    os.close(memory)
    usage = more.pop(0) if settings.bounds is not None else None
    held = more.pop(0) if more else None
    parts = import_for(settings, counting, verifying)
    parts = replace(parts, held=held, usage=usage)
    os.close(counting)
    os.close(verifying)
    # Not before: what has been loaded by now counts.
    if fingerprint() != code:
        raise SystemExit(f"kvd: {REPLACED}")
    # Whatever a worker shows of its memory, it need not be a private key's file.
    settings = replace(settings, credentials=())
    ForkServer(control, settings, scoreboard, parts).run()
    _end(0)


def _end(status: int) -> NoReturn:
    """
    End without freeing each object: that would copy most of the memory that this
    process has shared with another, only to give it back.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def import_for(
    settings: Settings, counting: int | None = None, verifying: int | None = None
) -> LoadedPlugins:
    """
    Import what a worker will use, without installing a reactor.

    Args:
        settings: All settings.
        counting: See `load_plugins`.
        verifying: Likewise.
    """
    import twisted.python.threadpool  # noqa: F401

    import kvd.workers.child
    from kvd.dispatch.gate import load_before_forks
    from kvd.workers.loading import load_plugins

    if settings.bounds is not None:
        import kvd.store.admission  # noqa: F401
    parts = load_plugins(settings, counting, verifying)
    load_before_forks(settings.policy)
    # The present objects stay alive in every fork: a garbage collector that visited
    # them would copy their pages for nothing.
    gc.freeze()
    gc.enable()
    return parts


class ForkServer:
    """
    Forks workers on request, and reports when one has ended.
    """

    def __init__(
        self,
        control: socket.socket,
        settings: Settings,
        scoreboard: Scoreboard,
        parts: LoadedPlugins,
    ) -> None:
        self._control = control
        self._scoreboard = scoreboard
        self._settings = settings
        self._parts = parts
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)
        self._traced: list[tuple[int, int]] = []  # Ended, cannot be reaped yet.

    def run(self) -> None:
        """
        Serve until the supervisor is gone and the last worker has ended.
        """
        while self._selector.get_map():
            self._serve_once()

    def _serve_once(self) -> None:
        traced, self._traced = self._traced, []
        # There is no event for a tracer that detaches.
        pause = _TRACED_SECONDS if traced else None
        for key, _ in self._selector.select(pause):
            if key.data is not None:
                self._selector.unregister(key.fd)
                os.close(key.fd)
                self._reap(*key.data)
            elif not self._take_message():
                self._selector.unregister(self._control)
        for worker, pid in traced:
            self._reap(worker, pid)

    def _take_message(self) -> bool:
        came = receive(self._control)
        if came is None:
            return False
        message, descriptors = came
        if isinstance(message, Alive):
            self._report(message)
            return True
        assert isinstance(message, Fork)
        if not descriptors:
            # The kernel dropped the control socket, as this process has no descriptor
            # left; that closes it.
            self._report(Exited(message.worker, 0, "could not be forked: no room"))
            return True
        (descriptor,) = descriptors
        with socket.socket(fileno=descriptor) as control:
            self._fork(message.worker, message.request, control)
        return True

    def _fork(self, worker: int, request: int, control: socket.socket) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            reason = f"could not be forked: {error.strerror}"
            self._report(Exited(worker, 0, reason))
            return
        if pid == 0:
            self._be_worker(worker, control)
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            # Without a pidfd, nothing would reap it.
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            reason = f"could not be watched: {error.strerror}"
            self._report(Exited(worker, 0, reason))
            return
        self._selector.register(pidfd, selectors.EVENT_READ, (worker, pid))
        self._report(Forked(worker, pid, request), [pidfd])

    def _be_worker(self, worker: int, control: socket.socket) -> NoReturn:
        """
        In the fork: close everything that does not belong to this worker, and serve.
        Never returns.
        """
        status = 1
        try:
            for key in list(self._selector.get_map().values()):
                if key.data is not None:
                    os.close(key.fd)
            self._selector.close()
            self._control.close()
            from kvd.workers.child import run

            board, parts = self._scoreboard, self._parts
            status = run(control, self._settings, worker, board, parts)
        except BaseException:
            traceback.print_exc()
        finally:
            # Not sys.exit: the frames above belong to the fork server.
            _end(status)

    def _reap(self, worker: int, pid: int) -> None:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            self._report(Exited(worker, pid, describe(status)))
        else:
            # The kernel first reports the end to a debugger that traces the worker
            # (ptrace(2)), and the debugger may be stopped. Waiting for it would delay
            # the replacement of all other workers.
            self._traced.append((worker, pid))

    def _report(self, message: Any, descriptors: list[int] | None = None) -> None:
        try:
            send(self._control, message, descriptors or [])
        except OSError:
            # The supervisor is gone; the next select reports that.
            pass


def describe(status: int) -> str:
    """
    Describe how a process ended, from its waitpid(2) status.
    """
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exited with status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "a signal"
    return f"was killed by {name} ({-code})"
