"""
The true daemon, started as an operator starts it.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Final

from tests.integration.forked import ForkedProcess, fork_server
from tests.patience import PATIENCE_SECONDS

RUN_TWISTD: Final = """
import sys
from twisted.application import app
from twisted.scripts.twistd import run

if "coverage" in sys.modules:
    # twistd ends by the signal that it was sent, and all that was measured in it
    # would be lost.
    end = app._exitWithSignal
    def save_and_end(signal):
        measured = sys.modules["coverage"].Coverage.current()
        measured.stop()
        measured.save()
        end(signal)
    app._exitWithSignal = save_and_end

run()
"""
"""
The program ``twistd``, for whichever Python has Twisted on its path.
"""

# Not twisted.plugins: it looks for plugins where a daemon is started.
_LOADED: Final = """
    twisted.application.reactors twisted.internet.epollreactor
    twisted.internet.selectreactor twisted.scripts.twistd
    kvd.daemon.service kvd.daemon.supervisor kvd.workers.child kvd.admin.control.site
    kvd.admin.status.site kvd.store.file kvd.store.file_maker kvd.store.null
    kvd.dispatch.policies.gated kvd.dispatch.policies.leastbusy
    kvd.dispatch.policies.reuseport kvd.dispatch.policies.roundrobin
    kvd.dispatch.policies.shared kvd.dispatch.policies.steered
    twisted.cred.strcred twisted.trial.itrial twisted.words.iwords
"""

_PREPARED: Final = """
from kvd.ipc.messages import Load, decode, encode
from kvd.plugins import IStoreDeclaration, find
from kvd.settings import Settings
decode(encode(Load(Settings())))
find(IStoreDeclaration, "file")
"""
"""
How settings are sent to a fork server is found out once, and where plugins are.
"""

_READ_AT_START: Final = "PYTHON", "LD_", "LC_", "LANG"
"""
How the variables begin that Python and the dynamic linker read as a process starts.
"""

_SERVES: Final = re.compile(r"[ \"]kvd serves (.*) from ")
_STATUS: Final = re.compile(r" the status site is at http://\S*:(\d+)$")
_PORT: Final = re.compile(r"https?://\S*:(\d+)(?:,|$)")

STOP_SECONDS = PATIENCE_SECONDS
"""
How long a daemon may take to end before a test fails; a working one takes less
than one.
"""


def fork_twistd(
    arguments: Sequence[str],
    folder: Path,
    streams: Sequence[int],
    environment: Mapping[str, str] = os.environ,
    loaded_in: Mapping[str, str] = os.environ,
    prelude: str = "",
) -> ForkedProcess[str]:
    """
    Fork ``twistd`` from a process that has loaded its modules.

    Args:
        arguments: Behind ``twistd``.
        folder: Where it is started.
        streams: See `ForkedProcess`.
        environment: Of the process.
        loaded_in: The environment of the process that has loaded its modules.
        prelude: What it does first, in Python.
    """
    server, prelude = twistd_server(loaded_in), _COMMAND + prelude
    return ForkedProcess(server, arguments, folder, streams, environment, prelude)


def twistd_server(loaded_in: Mapping[str, str] = os.environ) -> socket.socket:
    """
    What forks ``twistd``.
    """
    return fork_server(_LOADED, "keep_spare()\n" + RUN_TWISTD, loaded_in, _PREPARED)


_COMMAND: Final = f"""
sys.orig_argv[1:] = ["-c", {RUN_TWISTD!r}, *sys.argv[1:]]
"""
"""
As the beginning of a prelude: an upgrade starts ``twistd``, not what forks it.
"""


EXEC: Final = f"""
os.execv(sys.executable, [sys.executable, "-c", {RUN_TWISTD!r}, *sys.argv[1:]])
"""
"""
As the end of a prelude: begin ``twistd`` as another program.
"""


def start_kvd_daemon(options: Sequence[str], folder: Path) -> ForkedProcess[str]:
    """
    A daemon on its way: ``twistd -n kvd``, whose output the caller reads.
    """
    end, pipe = os.pipe()
    try:
        with open(os.devnull) as nothing:
            streams = [nothing.fileno(), pipe, pipe]
            arguments = ["-n", "--pidfile=", "kvd", *options]
            process = fork_twistd(arguments, folder, streams)
    except BaseException:
        os.close(end)
        raise
    finally:
        os.close(pipe)
    process.stdout = os.fdopen(end, errors="replace")
    return process


def read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    """
    What of an environment has no effect on a process that is forked.
    """
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(_READ_AT_START)
    }


class Twistd:
    """
    ``twistd -n kvd`` for the length of a ``with``: serving when it begins,
    ended when it is over, whatever happened between.
    """

    def __init__(
        self,
        options: Sequence[str],
        folder: Path,
        python: str = sys.executable,
        environment: Mapping[str, str] = os.environ,
        before: Sequence[str] = (),
        loaded_in: Mapping[str, str] = os.environ,
        prelude: str = "",
    ) -> None:
        """
        Args:
            options: What stands behind ``twistd -n kvd``; where no address is given,
                it listens on 127.0.0.1, at a port that the kernel chooses.
            folder: Where it is started; must not be the sources, so that only
                what is installed is found.
            python: Whose twistd it is.
            environment: Of the process. Where what is read as a process starts is not
                as in `loaded_in`, or with another Python, the daemon starts as an
                operator starts it; any other is forked from a process that has loaded
                its modules.
            before: What stands between ``twistd -n`` and ``kvd``.
            loaded_in: The environment of that process.
            prelude: What a daemon that is forked does first, in Python.
        """
        self.ports: list[int] = []
        """Of its TCP addresses, in their order, as it said itself."""
        self.status_port = 0
        """Of its status site, where that has one."""
        self.lines: list[str] = []
        """What it printed until it served, and what has been read since."""
        self._reader: Thread | None = None
        self._command = [python, "-c", RUN_TWISTD, "-n", "--pidfile=", *before]
        self._command += ["kvd", *options]
        if not any(option.startswith(("-l", "--listen")) for option in options):
            self._command += ["--listen=tcp:0:interface=127.0.0.1"]
        self._folder = folder
        self._environment = environment
        self._loaded_in = loaded_in
        self._prelude = prelude

    @property
    def port(self) -> int:
        """
        The first of its ports.
        """
        return self.ports[0]

    def __enter__(self) -> Twistd:
        end, pipe = os.pipe()
        try:
            self.process = self._start(pipe)
        finally:
            os.close(pipe)
        self.process.stdout = os.fdopen(end, errors="replace")
        try:
            self._wait_for_start()
        except BaseException:
            self.process.kill()
            self.process.communicate()
            self.process.stdout.close()
            raise
        return self

    def _start(self, output: int) -> ForkedProcess[str] | subprocess.Popen[str]:
        usual = [sys.executable, "-c", RUN_TWISTD]
        is_loaded = read_at_start(self._environment) == read_at_start(self._loaded_in)
        if is_loaded and self._command[:3] == usual:
            with open(os.devnull) as nothing:
                return fork_twistd(
                    self._command[3:],
                    self._folder,
                    [nothing.fileno(), output, output],
                    self._environment,
                    self._loaded_in,
                    self._prelude,
                )
        assert not self._prelude
        return subprocess.Popen(
            self._command,
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            text=True,
        )

    def _wait_for_start(self) -> None:
        # The line that names the addresses is logged once, when connections are
        # accepted; reading it needs no clock.
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if status := _STATUS.search(line):
                self.status_port = int(status[1])
            if serves := _SERVES.search(line):
                self.ports = [int(port) for port in _PORT.findall(serves[1])]
                return
        raise AssertionError("kvd ended before it served:\n" + "".join(self.lines))

    def read_on(self) -> None:
        """
        Read all that it prints: else a daemon that prints much leaves lines out, and
        another that takes its place waits for room in the pipe.
        """
        assert self.process.stdout is not None
        self._reader = Thread(target=self.lines.extend, args=[self.process.stdout])
        self._reader.start()

    def stop(self) -> int:
        """
        Ask it to end, and wait until it did.

        Returns:
            Its status; minus the signal's number where that ended it.
        """
        self.process.send_signal(signal.SIGTERM)
        try:
            if self._reader is not None:
                # Until all that print there have ended.
                self._reader.join(STOP_SECONDS)
                return self.process.wait(STOP_SECONDS)
            rest, _ = self.process.communicate(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired as error:
            self.process.kill()
            self.process.communicate()
            raise AssertionError(
                f"kvd did not end within {STOP_SECONDS} s of SIGTERM"
            ) from error
        self.lines.append(rest)
        return self.process.wait()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.stop()
        assert self.process.stdout is not None
        self.process.stdout.close()
