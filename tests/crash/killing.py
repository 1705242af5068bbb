"""
Killing workers at random while clients check what they were promised.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from kvd.admin.control.asking import ControlSocket
from kvd.settings import Durability
from tests.chance import new_seed
from tests.crash.load import Load, Report
from tests.integration.twistd import Twistd
from tests.ports import unused_port
from tests.processes import await_stop, has_ended

CLIENTS: Final = 12
WORKERS: Final = 4
WAIT_SECONDS: Final = 30
FORK_SERVER_EVERY: Final = 3
"""
So often the fork server dies too, and cannot replace the worker at once.
"""


def kill_workers(
    policy: str,
    kills: int,
    folder: Path,
    spare: bool = False,
    durability: Durability = "process",
    clients: int = CLIENTS,
    pause_seconds: float = 0.0,
) -> Report:
    """
    Serve under load and kill workers.

    Args:
        policy: Under which they serve.
        kills: How many die.
        folder: Empty.
        spare: Kill none of them, to compare with.
        durability: Of what they store.
        clients: How many there are; half of them keep their connections.
        pause_seconds: Of each client; see `Load`.

    Returns:
        What the clients saw; more broken requests than there were connections
        on the killed workers is among the wrong.
    """
    chance = random.Random(new_seed())
    open_on_killed = 0
    longest_stop = 0.0
    with (
        closing(ControlSocket(str(folder / "control"))) as asked,
        Twistd(_options(policy, folder, durability), folder) as daemon,
    ):
        asked.status()
        before = _descriptors(daemon.process.pid)
        with Load(daemon.port, clients, pause_seconds) as load:
            for number in range(kills):
                time.sleep(chance.uniform(0.02, 0.12))
                if spare:
                    continue
                if number % FORK_SERVER_EVERY == FORK_SERVER_EVERY - 1:
                    _kill_fork_server(daemon.process.pid)
                open_there, stopped_seconds = _kill_one(asked, chance)
                open_on_killed += open_there
                longest_stop = max(longest_stop, stopped_seconds)
            load.go_on()
        _await(asked, WORKERS)
        # What a fork server prints is read for as long as a worker of its is left.
        asked.change("restart", {})
        after = _descriptors_left(daemon.process.pid, before)
    report = load.report
    report.stopped_seconds = longest_stop
    if report.refused:
        report.wrong.append(f"{report.refused} connections were refused")
    if report.broken > open_on_killed:
        report.wrong.append(
            f"{report.broken} requests broke, but the killed workers had only"
            f" {open_on_killed} connections"
        )
    if after > before:
        report.wrong.append(f"the supervisor had {before} descriptors, then {after}")
    return report


def kill_daemon(
    policy: str, kills: int, folder: Path, clients: int, pause_seconds: float
) -> Report:
    """
    Kill the supervisor under load and start it anew, some times.

    Returns:
        What the clients saw.
    """
    # Known before: the clients go on at the same port, which nobody else may have while
    # no daemon does.
    port = unused_port()
    listening = f"--listen=tcp:{port}:interface=127.0.0.1"
    options = [*_options(policy, folder), listening]
    control = ControlSocket(str(folder / "control"))
    daemon = Twistd(options, folder)
    daemon.__enter__()
    try:
        with Load(port, clients, pause_seconds) as load:
            for _ in range(kills):
                load.go_on()
                workers = [row["pid"] for row in control.status()["workers"]]
                control.close()
                daemon.process.kill()
                daemon.__exit__(None, None, None)
                _await_end(workers)
                daemon = Twistd(options, folder)
                daemon.__enter__()
            load.go_on()
    finally:
        daemon.__exit__(None, None, None)
        control.close()
    return load.report


def _options(
    policy: str, folder: Path, durability: Durability = "process"
) -> list[str]:
    return [
        *["--policy", policy, "--procs", str(WORKERS)],
        *["--store", f"file:{folder}/values", "--durability", durability],
        *["--control", f"{folder}/control"],
    ]


def _kill_one(asked: ControlSocket, chance: random.Random) -> tuple[int, float]:
    """
    Stop a ready worker, count its connections, and end it.

    Returns:
        How many connections it may have had, and for how many seconds it was stopped.
    """
    # Not the last: without any, it is clear who waits for whom.
    _await(asked, 2)
    worker = chance.choice(_ready(asked))
    pidfd = os.pidfd_open(worker["pid"])
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
        stopped = time.monotonic()
        # So that its connections can be counted.
        await_stop(worker["pid"])
        row = asked.status()["workers"][worker["worker"]]
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        stopped_seconds = time.monotonic() - stopped
    finally:
        os.close(pidfd)
    assert worker["pid"] == row["pid"]
    _await_noticed(asked, worker["pid"])
    # One that ends with its only request is not counted while the fast path serves it.
    return int(row["open"]) + 1, stopped_seconds


def _kill_fork_server(supervisor: int) -> None:
    """
    The supervisor's only child; workers are the fork server's, and of its process
    group. When it ends, the group is an orphan, and the kernel has a member that is
    stopped go on (_exit(2)): so it has ended when this returns.
    """
    with open(f"/proc/{supervisor}/task/{supervisor}/children") as file:
        killed = [int(child) for child in file.read().split()]
    for child in killed:
        os.kill(child, signal.SIGKILL)
    _await_end(killed)


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def _descriptors_left(pid: int, expected: int) -> int:
    # The supervisor lets go of the dead a little later.
    deadline = time.monotonic() + WAIT_SECONDS
    while (left := _descriptors(pid)) > expected and time.monotonic() < deadline:
        time.sleep(0.01)
    return left


def _ready(asked: ControlSocket) -> list[dict[str, Any]]:
    # One that is ready may be so a moment before the fork server's word of it.
    rows: list[dict[str, Any]] = asked.status()["workers"]
    return [row for row in rows if row["state"] == "ready" and row["pid"]]


def _await(asked: ControlSocket, workers: int) -> None:
    """
    Until so many are ready.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    while len(_ready(asked)) < workers:
        assert time.monotonic() < deadline, "workers are not replaced"
        time.sleep(0.01)


def _await_noticed(asked: ControlSocket, pid: int) -> None:
    """
    Until the supervisor knows of a kill: on a busy machine, the next one might be
    meant for the same process.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    while any(row["pid"] == pid for row in asked.status()["workers"]):
        assert time.monotonic() < deadline, "a kill is not noticed"
        time.sleep(0.01)


def _await_end(pids: Sequence[int]) -> None:
    """
    Nobody outlives the supervisor, nor a kill.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    while not all(has_ended(pid) for pid in pids):
        assert time.monotonic() < deadline, "a process outlives its end"
        time.sleep(0.001)
