"""
A worker that hangs is replaced, and meanwhile the others serve all who connect.
"""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from kvd.admin.control.asking import ControlSocket
from kvd.plugins import IPolicyDeclaration, declared
from tests.changes.changing import FURTHER_POLICIES
from tests.integration.http import ask
from tests.integration.test_daemon import eventually
from tests.integration.twistd import Twistd

pytestmark = pytest.mark.integration


def test_a_worker_that_hangs_is_replaced_under_every_policy(tmp_path: Path) -> None:
    """
    Its state names it, and every connection that is made
    meanwhile is served.
    """
    control = tmp_path / "control"
    options = ["--procs=3", "--hang-timeout=2s", "--store=null:"]
    with (
        closing(ControlSocket(str(control))) as asked,
        Twistd([*options, f"--control={control}"], tmp_path) as daemon,
    ):
        policies = [*declared(IPolicyDeclaration)]
        for policy in policies:
            asked.change("policy", {"policy": policy})
            before = asked.status()["workers"][1]["pid"]
            os.kill(before, signal.SIGSTOP)
            with ThreadPoolExecutor(10) as clients:
                replies = clients.map(
                    lambda _: ask(daemon.port, "GET", "/k").status, range(60)
                )
                assert [404] * 60 == list(replies), policy
            eventually(
                lambda: asked.status()["workers"][1]["state"] == "stalled",
                f"worker 1 is stalled under {policy}",
            )

            def is_replaced(before: int = before) -> bool:
                row = asked.status()["workers"][1]
                return bool(row["state"] == "ready" and row["pid"] != before)

            eventually(is_replaced, f"worker 1 is replaced under {policy}")
        assert len(policies) == asked.status()["hangs"]


def test_others_serve_while_most_workers_hang(tmp_path: Path) -> None:
    """
    Under every policy, although none is replaced meanwhile. They get their share again
    when they go on.
    """
    control = tmp_path / "control"
    options = ["--procs=8", "--hang-timeout=1h", "--store=null:"]
    with (
        closing(ControlSocket(str(control))) as asked,
        Twistd([*options, f"--control={control}"], tmp_path) as daemon,
    ):

        def states() -> list[str]:
            return [row["state"] for row in asked.status()["workers"]]

        for policy in [*declared(IPolicyDeclaration), *FURTHER_POLICIES]:
            asked.change("policy", {"policy": policy})
            stopped = [row["pid"] for row in asked.status()["workers"]][:6]
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
            with ThreadPoolExecutor(10) as clients:
                replies = clients.map(
                    lambda _: ask(daemon.port, "GET", "/k").status, range(60)
                )
                assert [404] * 60 == list(replies), policy
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
            eventually(lambda: ["ready"] * 8 == states(), f"all respond under {policy}")
        assert 0 == asked.status()["hangs"]


def test_processes_beside_the_workers_that_hang_are_replaced(tmp_path: Path) -> None:
    """
    Their state names them. A worker that ends meanwhile is replaced all the same, and
    room is made again.
    """
    control = tmp_path / "control"
    options = ["--procs=2", "--hang-timeout=2s", f"--control={control}"]
    options += [f"--store=file:{tmp_path}/values", "--max-size=64KiB", "--full=evict"]
    with (
        closing(ControlSocket(str(control))) as asked,
        Twistd(options, tmp_path) as daemon,
    ):

        def states() -> dict[str, str]:
            rows = asked.status()["processes"]
            return {row["process"]: row["state"] for row in rows}

        def are(state: str) -> bool:
            return states() == {"fork server": state, "evictor": state}

        eventually(lambda: are("ready"), "both have answered")
        before = asked.status()
        hung = [row["pid"] for row in before["processes"]]
        for pid in hung:
            os.kill(pid, signal.SIGSTOP)
        os.kill(before["workers"][0]["pid"], signal.SIGKILL)

        def are_replaced() -> bool:
            status = asked.status()
            pids = [row["pid"] for row in status["processes"]]
            workers = {row["state"] for row in status["workers"]}
            return not set(pids) & set(hung) and are("ready") and workers == {"ready"}

        eventually(are_replaced, "both are replaced, and the worker")
        assert [1, 1] == [row["hangs"] for row in asked.status()["processes"]]
        for number in range(40):
            reply = ask(daemon.port, "PUT", f"/{number}", bytes(4096))
            assert 201 == reply.status, number
