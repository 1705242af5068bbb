"""
Tests of what `tests.changes.endurance` takes for a fault.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from tests.changes.endurance import Run
from tests.crash.load import Cut
from tests.processes import peers_of


def test_only_what_a_hung_worker_had_may_be_cut(tmp_path: Path) -> None:
    """
    Whenever its client sees the end: the kernel may close it when others serve already.
    Whoever has the port earlier or later has another connection.
    """
    run = Run(tmp_path, 6, 0.0, hung=[(10.0, {7, 8})])

    assert run.was_hung(Cut(7, connected=9.0, ended=20.0))
    assert 10.0 == run.cut_seconds(Cut(7, connected=9.0, ended=20.0))
    assert not run.was_hung(Cut(9, connected=9.0, ended=13.0))
    assert not run.was_hung(Cut(8, connected=9.0, ended=9.5))
    assert not run.was_hung(Cut(8, connected=10.5, ended=13.0))


def test_the_clients_of_a_process_are_known_by_their_ports() -> None:
    """
    Those of its connections, whether or not it has read anything.
    """
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        port = client.getsockname()[1]
        assert port not in peers_of(os.getpid())
        accepted, _ = server.accept()
        with accepted:
            assert port in peers_of(os.getpid())


def test_the_longest_request_is_named_for_each_policy(tmp_path: Path) -> None:
    """
    Of those that began when it was in force; before the first one, none counts.
    """
    switched = [(10.0, "shared"), (20.0, "gated"), (30.0, "shared"), (40.0, "steered")]
    run = Run(tmp_path, 6, 0.0, switched=switched)
    slow = [(9.0, 5.0), (19.9, 0.7), (35.0, 0.6), (20.0, 0.3)]

    assert {"shared": 0.7, "gated": 0.3, "steered": 0.0} == run.longest_under(slow)
