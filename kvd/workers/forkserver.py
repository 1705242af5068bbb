"""
The process that workers are forked from.

It has imported everything a worker needs and holds no reactor, so a fork of it
is a working process at once, sharing nearly all of its memory. It does nothing
but fork and wait: its life hangs on the control socket alone, and on the workers that
it has made, for whom nobody else would wait. Signals to all
processes of a service (a terminal's ^C, a service manager's SIGTERM) are the
supervisor's to answer, and passed over here.
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
from typing import TYPE_CHECKING, Any, Final

from kvd.dispatch.scoreboard import Scoreboard
from kvd.ipc.messages import Exited, Fork, Forked, Load, receive, send
from kvd.settings import Settings
from kvd.system.inherited import reset_signals

if TYPE_CHECKING:
    from kvd.workers.serving import LoadedPlugins

# The supervisor's own module path, so that what it found is found here too,
# from whichever folder it was started; worked out while that folder is there.
_PATH: Final = [
    folder if os.path.isabs(folder) else os.path.abspath(folder) for folder in sys.path
]
_BOOT: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
    " from kvd.workers.forkserver import main; main(int(sys.argv[2]))"
)


_TRACED_SECONDS: Final = 1.0


def spawn(control: socket.socket) -> subprocess.Popen[bytes]:
    """
    Start a fork server.

    Args:
        control: Its end of the control socket; the caller closes its copy.

    Returns:
        Its process. What it and its workers print to standard error is the caller's to
        read: whatever this process has there may be read by nobody.
    """
    path = json.dumps(_PATH)
    return subprocess.Popen(  # noqa: S603  # all of it is ours
        [sys.executable, "-c", _BOOT, path, str(control.fileno())],
        pass_fds=[control.fileno()],
        stdin=subprocess.DEVNULL,
        # Where there is none, the number would be some socket's.
        stdout=subprocess.DEVNULL if sys.__stdout__ is None else None,
        stderr=subprocess.PIPE,
        process_group=0,
    )


def main(descriptor: int) -> None:
    """
    Be a fork server, until the control socket closes.
    """
    reset_signals()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    control = socket.socket(fileno=descriptor)
    control.set_inheritable(False)
    loaded = receive(control)
    if loaded is None:
        return
    message, (memory, *held) = loaded
    assert isinstance(message, Load)
    settings = message.settings
    scoreboard = Scoreboard(memory)
    os.close(memory)
    parts = replace(import_for(settings), held=held[0] if held else None)
    ForkServer(control, settings, scoreboard, parts).run()


def import_for(settings: Settings) -> LoadedPlugins:
    """
    Import what a worker will use, without installing a reactor.
    """
    # Collections meanwhile would leave holes in pages that forks share: whatever a
    # worker put into one would copy its page. Measured with ``make figures
    # FIGURES=memory``, that was 0.1 MiB for each of 32 workers.
    gc.disable()
    import twisted.python.threadpool  # noqa: F401

    import kvd.workers.child  # noqa: F401
    from kvd.dispatch.gate import load_before_forks
    from kvd.workers.serving import load_plugins

    parts = load_plugins(settings)
    load_before_forks(settings.policy)
    # What is there now stays in every fork: a collector that looked at it would copy
    # its pages for nothing.
    gc.freeze()
    gc.enable()
    return parts


class ForkServer:
    """
    Forks when asked, and tells of every end.
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
        self._traced: list[tuple[int, int]] = []  # Ended, but not to be reaped yet.

    def run(self) -> None:
        """
        Serve, until the supervisor is gone, and the last worker after it.
        """
        while self._selector.get_map():
            self._serve_once()

    def _serve_once(self) -> None:
        traced, self._traced = self._traced, []
        # Nothing tells when a tracer has let go.
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
        assert isinstance(message, Fork)
        if not descriptors:
            # Dropped for want of room; its control socket is closed so.
            self._tell(Exited(message.worker, 0, "could not be forked: no room"))
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
            self._tell(Exited(worker, 0, reason))
            return
        if pid == 0:
            self._be_worker(worker, control)
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            # Nobody would reap it.
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            reason = f"could not be watched: {error.strerror}"
            self._tell(Exited(worker, 0, reason))
            return
        self._selector.register(pidfd, selectors.EVENT_READ, (worker, pid))
        self._tell(Forked(worker, pid, request), [pidfd])

    def _be_worker(self, worker: int, control: socket.socket) -> None:
        """
        In the fork: let go of everything that is not this worker's. Never
        returns.
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
            sys.stdout.flush()
            sys.stderr.flush()
            # Not sys.exit: the frames above are the fork server's.
            os._exit(status)

    def _reap(self, worker: int, pid: int) -> None:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            self._tell(Exited(worker, pid, describe(status)))
        else:
            # A debugger that traces it is told first (ptrace(2)), and may have stopped
            # to look; to wait for it would keep all others from being replaced.
            self._traced.append((worker, pid))

    def _tell(self, message: Any, descriptors: list[int] | None = None) -> None:
        try:
            send(self._control, message, descriptors or [])
        except OSError:
            # The supervisor is gone; the next select tells.
            pass


def describe(status: int) -> str:
    """
    The end of a process in words, from its status in waitpid(2).
    """
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exited with status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "a signal"
    return f"was killed by {name} ({-code})"
