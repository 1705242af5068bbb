"""
Changing a daemon while clients check that none of their requests is lost.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import cycle
from pathlib import Path
from typing import Final

from kvd.admin.control.asking import ControlSocket
from kvd.plugins import IPolicyDeclaration, declared
from tests.chance import new_seed
from tests.crash.load import Cut, Load, Report
from tests.integration.twistd import Twistd

WORKERS: Final = 4
MOST_WORKERS: Final = 8

FURTHER_POLICIES: Final = "steered:by=turns", "steered:by=least"
"""
With arguments, beside those that are declared.
"""

Act = Callable[[ControlSocket, random.Random], None]


def under_load(
    clients: int,
    folder: Path,
    act: Act,
    prelude: str = "",
    pause_seconds: float = 0.0,
    options: Sequence[str] = (),
    is_expected: Callable[[Cut], bool] = lambda cut: False,
) -> Report:
    """
    Serve, and change something meanwhile.

    Args:
        clients: How many there are; half of them keep their connections.
        folder: Empty.
        act: Makes the changes.
        prelude: See `Twistd`.
        pause_seconds: Of each client; see `Load`.
        options: Of the daemon, beside the usual ones.
        is_expected: Whether a request may be cut off.

    Returns:
        What the clients saw; each request that got no reply and should have is among
        the wrong.
    """
    usual = [
        *["--policy=reuseport", f"--procs={WORKERS}", f"--store=file:{folder}/values"],
        *["--durability=process", f"--control={folder}/control"],
    ]
    with (
        closing(ControlSocket(str(folder / "control"))) as asked,
        Twistd([*usual, *options], folder, prelude=prelude) as daemon,
    ):
        daemon.read_on()
        with Load(daemon.port, clients, pause_seconds) as load:
            load.go_on()
            act(asked, random.Random(new_seed()))
            load.go_on()
        workers = asked.status()["workers"]
    report = load.report
    report.log = daemon.lines
    if report.refused:
        report.wrong.append(f"{report.refused} connections were refused")
    report.wrong += [
        f"a request got no reply: {cut}" for cut in report.cut if not is_expected(cut)
    ]
    states = {row["state"] for row in workers}
    if states != {"ready"}:
        report.wrong.append(f"workers are {states} afterwards")
    return report


def switch_and_resize(switches: int, resizes: int) -> Act:
    """
    So many switches, through all policies, and so many numbers of workers, in an
    order of chance.
    """

    def act(asked: ControlSocket, chance: random.Random) -> None:
        policies = cycle([*declared(IPolicyDeclaration), *FURTHER_POLICIES])
        changes = ["policy"] * switches + ["procs"] * resizes
        chance.shuffle(changes)
        for change in changes:
            if change == "policy":
                asked.change("policy", {"policy": next(policies)})
            else:
                procs = chance.randint(1, MOST_WORKERS)
                asked.change("procs", {"procs": procs})
            time.sleep(chance.uniform(0.0, 0.1))

    return act


def restart_under(policy: str) -> Act:
    """
    All workers, one after the other.
    """

    def act(asked: ControlSocket, chance: random.Random) -> None:
        asked.change("policy", {"policy": policy})
        asked.change("restart", {})

    return act


def upgrade_under(policy: str, upgrades: int) -> Act:
    """
    New code takes over so many times; between them the settings are read again, workers
    are replaced, and the policy is switched.
    """

    def act(asked: ControlSocket, chance: random.Random) -> None:
        for _ in range(upgrades):
            asked.change("policy", {"policy": policy})
            asked.upgrade()
            # The old daemon may still drain then, or have ended.
            time.sleep(chance.uniform(0.0, 1.5))
            if chance.random() < 0.2:
                asked.change("restart", {})

    return act
