"""
The store over a real engine: three nodes of SeaweedFS with etcd, as in ``etc/cluster``,
started once, and what it has in common with the double of it
(`tests.s3.memory_engine`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from threading import Timer

import pytest

from tests.integration.twistd import Twistd
from tests.patience import PATIENCE_SECONDS
from tests.s3 import over_engine
from tests.s3.over_engine import served, started
from tests.s3.processes import RunningEngine
from tests.s3.seaweedfs import SeaweedFS

NODES = 3

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def engine() -> Iterator[RunningEngine]:
    """
    All nodes.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        started(SeaweedFS(Path(folder), NODES, in_common=True)) as engine,
    ):
        yield engine


@pytest.fixture(scope="module")
def daemon(
    engine: RunningEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Twistd]:
    """
    kvd before it.
    """
    with served(engine, tmp_path_factory.mktemp("daemon")) as daemon:
        yield daemon


class SeaweedFSContractTests(over_engine.RealEngineContract):
    """
    SeaweedFS behaves as the double.
    """


class SeaweedFSStoreTests(over_engine.RealStoreContract):
    """
    `ObjectStore` in SeaweedFS is a store.
    """


class TestKvdOverSeaweedFS(over_engine.DaemonContract):
    """
    What a client sees of kvd over SeaweedFS.
    """


def test_what_is_tried_ends_with_one_interrupt() -> None:
    """
    ``make engine``: ^C reaches all processes of a terminal, and make tells of a status
    that is not 0. kvd hears of it once, and the nodes after kvd.
    """
    command = [sys.executable, "-m", "tests.s3.trying"]
    options = ["--listen=tcp:0:interface=127.0.0.1", "--control=off", "--procs=1"]
    lines = []
    # Ignored where a shell runs the tests in the background, and then by what they run.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        tried = subprocess.Popen(
            [*command, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    # It ends the others then too.
    impatience = Timer(PATIENCE_SECONDS, tried.terminate)
    impatience.start()
    with tried:
        assert tried.stdout is not None
        for line in tried.stdout:
            lines.append(line)
            if "kvd serves" in line:
                os.killpg(tried.pid, signal.SIGINT)
    assert impatience.is_alive(), lines
    impatience.cancel()

    assert 0 == tried.returncode, lines
    assert "kvd and the nodes have ended" in lines[-1]
    assert 1 == sum("Received SIG" in line for line in lines)
