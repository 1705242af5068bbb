"""
The process that counts the values of a store with limits, and removes some
(`kvd.store.evicting`).

It is a process of its own because it walks over the whole store and waits for the disk,
and neither the supervisor nor a worker may do that. It ends when its control socket
closes, so it does not outlive the supervisor.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final, cast

from twisted.internet.task import Clock
from twisted.logger import (
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    eventAsText,
    globalLogBeginner,
)

from kvd.ipc.channel import Channel
from kvd.ipc.messages import (
    Alive,
    Load,
    LogLine,
    Message,
    receive,
    send,
    shortened,
)
from kvd.settings import Settings
from kvd.store.evicting import Evictor
from kvd.store.locks import KeyLocks, LockFile
from kvd.store.removing import Remover
from kvd.store.totals import TotalsFile
from kvd.store.usage import EVICTOR_ROW, UsageMemory
from kvd.store.waiting import Underway
from kvd.system.code import LOADED, REPLACED, fingerprint
from kvd.system.inherited import reset_signals
from kvd.workers.backoff import Backoff
from kvd.workers.forkserver import MODULE_PATH
from kvd.workers.heartbeat import Heartbeat, ProcessState
from kvd.workers.reaping import Reaper

LIVED_SECONDS: Final = 10.0
"""
A process that has lived for so long has worked.
"""

_OBJECTS: Final = 200_000
"""
How many more objects there are before the next garbage collection.
"""

_BOOT: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
    " from kvd.workers.evictor import main; main(int(sys.argv[2]), sys.argv[3])"
)


def spawn(control: socket.socket) -> subprocess.Popen[bytes]:
    """
    Start the process.

    Args:
        control: Its end of the control socket; the caller closes its copy.
    """
    return subprocess.Popen(  # noqa: S603  # all of it is ours
        [
            *[sys.executable, "-c", _BOOT],
            *[json.dumps(MODULE_PATH), str(control.fileno()), LOADED],
        ],
        pass_fds=[control.fileno()],
        stdin=subprocess.DEVNULL,
        process_group=0,
    )


def main(descriptor: int, code: str) -> None:
    """
    Run the process until the control socket closes.

    Args:
        descriptor: Of the control socket.
        code: The fingerprint of the supervisor's code; nothing runs if this process has
            loaded other code.
    """
    if fingerprint() != code:
        raise SystemExit(f"kvd: {REPLACED}")
    # Candidates are many small objects that refer to nothing.
    gc.set_threshold(_OBJECTS)
    reset_signals()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    control = socket.socket(fileno=descriptor)
    control.set_inheritable(False)
    loaded = receive(control)
    if loaded is None:
        return
    message, (usage, root, totals) = loaded
    assert isinstance(message, Load)
    settings = message.settings
    bounds = settings.bounds
    assert bounds is not None
    globalLogBeginner.beginLoggingTo(
        [cast(ILogObserver, partial(_report, control))], redirectStandardIO=False
    )
    os.umask(os.umask(0o077) & ~settings.modes.file)
    # It never waits for a lock, so no clock has to advance.
    file = LockFile(root, settings.modes)
    remover = Remover(root, file, KeyLocks(file, Clock(), Underway()))
    memory = UsageMemory(usage)
    evictor = Evictor(root, remover, memory, EVICTOR_ROW, bounds, TotalsFile(totals))
    pause = 0.0
    while not select.select([control], [], [], pause)[0] or _answer(control):
        pause = evictor.step()
    evictor.stop()


def _answer(control: socket.socket) -> bool:
    """
    Say that this process lives, which is all that it is asked.

    Returns:
        Whether anybody has asked: the supervisor is not gone.
    """
    came = receive(control)
    if came is not None:
        with suppress(OSError):  # As below.
            send(control, came[0])
    return came is not None


def _report(control: socket.socket, event: LogEvent) -> None:
    level = event.get("log_level", LogLevel.info)
    text = eventAsText(event, includeTimestamp=False, includeSystem=False)
    with suppress(OSError):  # The supervisor is gone; the next select reports that.
        send(control, LogLine(level.name, shortened(text)))


class EvictorProcess:
    """
    Keeps the process running.
    """

    _log = Logger()

    def __init__(
        self,
        settings: Settings,
        descriptors: Sequence[int],
        reactor: Any,
        spawn: Callable[[socket.socket], subprocess.Popen[bytes]] = spawn,
    ) -> None:
        """
        Args:
            settings: All settings.
            descriptors: Of the memory in which processes count, of the store's folder,
                and of the file of its totals; owned by the caller.
            reactor: Watches the control socket.
            spawn: Starts a process.
        """
        self._settings = settings
        self._descriptors = descriptors
        self._reactor = reactor
        self._spawn = spawn
        self._backoff = Backoff()
        self._reaper = Reaper(reactor)
        self._heartbeat = Heartbeat(
            "evictor", settings.hang_seconds, self._ask, self._hung, reactor
        )
        self._channel: Channel | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._timer: Any = None

    def start(self) -> None:
        """
        Start it.
        """
        self._timer = None
        self._started = self._reactor.seconds()
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        channel = None
        with far:
            try:
                channel = Channel(near, self._received, self._lost, self._reactor)
                self._process = self._spawn(far)
            except OSError as error:
                if channel is None:
                    near.close()
                else:
                    channel.close()
                self._again(str(error.strerror))
                return
        # It serves nobody.
        settings = replace(self._settings, users=None)
        channel.send(Load(settings), self._descriptors)
        self._channel = channel
        self._heartbeat.start(self._process.pid)

    def watch(self, hang_seconds: float) -> None:
        """
        Set how long it may take to say that it lives.
        """
        self._heartbeat.hang_seconds = hang_seconds

    def state(self) -> ProcessState:
        """
        What is known of the present process.
        """
        return self._heartbeat.state(
            None if self._process is None else self._process.pid
        )

    def _ask(self) -> None:
        assert self._channel is not None
        self._channel.send(Alive())

    def _hung(self, seconds: float) -> None:
        assert self._process is not None
        self._log.error(
            "the process that makes room in the store ({pid}) has not answered for"
            " {seconds:.1f} seconds (--hang-timeout) and is killed; another is started",
            pid=self._process.pid,
            seconds=seconds,
            happened="hang",
        )
        self._process.kill()
        self._close()
        self._end()
        self.start()

    def _received(self, message: Message, descriptors: list[int]) -> None:
        for descriptor in descriptors:
            os.close(descriptor)
        if isinstance(message, Alive):
            self._heartbeat.answered()
        elif isinstance(message, LogLine):
            level = LogLevel.levelWithName(message.level)
            self._log.emit(level, "evictor: {text}", text=message.text)

    def _lost(self) -> None:
        self._close()
        self._end()
        self._again("it has ended")

    def _again(self, reason: str) -> None:
        lived_seconds = self._reactor.seconds() - self._started
        pause = self._backoff.pause_after(lived_seconds, lived_seconds >= LIVED_SECONDS)
        self._log.error(
            "nothing is removed from the store to make room, as the process for it does"
            " not run: {reason}; another is started in {pause:g} seconds",
            reason=reason,
            pause=pause,
        )
        self._timer = self._reactor.callLater(pause, self.start)

    def stop(self) -> None:
        """
        End it, and wait until it has ended. Call this when no worker runs any more.
        """
        self.leave()
        self._end()
        self._reaper.stop()

    def leave(self) -> None:
        """
        Let it end, since that of another daemon makes room from now on. `stop` has to
        follow.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._close()

    def _close(self) -> None:
        self._heartbeat.stop()
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _end(self) -> None:
        if self._process is not None:
            self._reaper.reap(self._process)
            self._process = None
