"""
The processes of an engine.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from tests.ports import unused_port

READY_SECONDS = 120.0
"""
How long something may take to be ready; on a machine that does nothing else Ceph takes
half a minute.
"""

LOG_CHARACTERS = 2000


class RunningEngine(Protocol):
    """
    An engine on this machine, of several nodes and gateways.
    """

    @property
    def urls(self) -> list[str]:
        """
        The URLs of the gateways.
        """

    @property
    def environment(self) -> dict[str, str]:
        """
        The credentials, as every S3 tool reads them: the access key and the secret.
        """

    def start(self) -> None:
        """
        Start all of it, and make the bucket.
        """

    def start_node(self, node: int) -> None:
        """
        Start one node, perhaps again.
        """

    def kill_node(self, node: int) -> None:
        """
        Kill one node.
        """

    def revive(self) -> list[str]:
        """
        Start again what has ended that nobody has killed, as systemd does
        (``Restart=always``).

        Returns:
            How each of them has ended, with the end of its log.
        """

    def stop(self) -> None:
        """
        Kill all of it.
        """


def last_words(name: str, process: subprocess.Popen[bytes], log: Path) -> str:
    """
    Say how a process has ended, with the end of its log.
    """
    said = log.read_text(errors="replace")[-LOG_CHARACTERS:]
    return f"{name} ended by itself with {process.returncode}: {said}"


class Processes:
    """
    Processes with names, each with a log.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        """
        Args:
            folder: Has the logs, and is where they run.
            environment: What they have beside that of this process.
        """
        self._folder = folder
        self._environment = {**os.environ, **environment}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._commands: dict[str, Sequence[object]] = {}

    def start(self, name: str, command: Sequence[object]) -> None:
        """
        Start a process.
        """
        self._commands[name] = command
        with (self._folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                [str(word) for word in command],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
            )

    def run(self, *command: object) -> str:
        """
        Run a command to its end.

        Returns:
            What it printed.
        """
        done = subprocess.run(
            [str(word) for word in command],
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=READY_SECONDS,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def kill(self, name: str) -> None:
        """
        Kill a process.
        """
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def kill_all(self) -> None:
        """
        Kill all processes.
        """
        for name in [*self._running]:
            self.kill(name)

    def revive(self) -> list[str]:
        """
        See `RunningEngine`.
        """
        ended = self._ended()
        for name in ended:
            self.start(name, self._commands[name])
        return [*ended.values()]

    def _ended(self) -> dict[str, str]:
        return {
            name: last_words(name, process, self._folder / f"{name}.log")
            for name, process in self._running.items()
            if process.poll() is not None
        }

    def wait_until(self, holds: Callable[[], bool], what: str) -> None:
        """
        Wait until something holds.
        """
        deadline = time.monotonic() + READY_SECONDS
        while not holds():
            ended = self._ended()
            assert not ended, f"{what}: {ended}"
            assert time.monotonic() < deadline, f"{what}: {self._logs()}"
            time.sleep(0.1)

    def _logs(self) -> str:
        return "\n".join(
            f"{path.name}:\n{path.read_text(errors='replace')[-LOG_CHARACTERS:]}"
            for path in sorted(self._folder.glob("*.log"))
        )


class GatewayEngine:
    """
    An engine with gateways, all of whose processes are in one folder.
    """

    def __init__(
        self, folder: Path, gateways: int, environment: Mapping[str, str]
    ) -> None:
        """
        Args:
            folder: Has the files of its processes; it exists.
            gateways: How many there are.
            environment: What its processes have beside that of this one.
        """
        self.folder = folder
        self._gateways = [unused_port() for _ in range(gateways)]
        self._processes = Processes(folder, environment)

    @property
    def urls(self) -> list[str]:
        """
        See `RunningEngine`.
        """
        return [f"http://127.0.0.1:{port}" for port in self._gateways]

    def revive(self) -> list[str]:
        """
        See `RunningEngine`.
        """
        return self._processes.revive()

    def stop(self) -> None:
        """
        See `RunningEngine`.
        """
        self._processes.kill_all()
