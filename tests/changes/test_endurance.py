"""
Tests of what `tests.changes.endurance` takes for a fault.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest

from tests.changes.endurance import Run, main
from tests.changes.hanging import Hung
from tests.crash.load import Cut
from tests.processes import has_ended, peers_of_stopped, stop_all


def test_only_what_a_hung_worker_had_may_be_cut(tmp_path: Path) -> None:
    """
    Whenever its client sees the end: the kernel may close it when others serve already.
    Whoever has the port earlier or later has another connection.
    """
    hung = Hung(began=9.9, stopped=10.0, ports=frozenset({7, 8}), replaced=13.0)
    run = Run(tmp_path, 6, 0.0, hung=[hung])

    assert run.was_hung(Cut(7, connected=9.0, began=9.5, ended=20.0))
    assert run.was_hung(Cut(7, connected=9.0, began=10.5, ended=20.0))
    assert not run.was_hung(Cut(9, connected=9.0, began=9.5, ended=13.0))
    assert not run.was_hung(Cut(8, connected=9.0, began=9.0, ended=9.5))
    assert not run.was_hung(Cut(8, connected=10.5, began=10.5, ended=13.0))


def test_nothing_is_excused_by_a_worker_whose_connections_nobody_saw(
    tmp_path: Path,
) -> None:
    """
    A request may have been another worker's, and then it was lost.
    """
    run = Run(tmp_path, 6, 0.0, hung=[Hung(9.9, 10.0, None, 13.0)])

    assert not run.was_hung(Cut(7, connected=9.0, began=9.5, ended=13.0))


def test_the_clients_of_a_stopped_process_are_known_by_their_ports() -> None:
    """
    Those of its connections, whether or not it has read anything; and those that it has
    no more, or that are another process's, are not.
    """
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as held,
        socket.create_connection(server.getsockname()) as waiting,
    ):
        accepted, _ = server.accept()
        with accepted, waits_for_ever(accepted) as process:
            stop_all([process.pid])
            peers = peers_of_stopped([process.pid])[process.pid]

        assert peers is not None
        assert held.getsockname()[1] in peers
        assert waiting.getsockname()[1] not in peers


def test_what_a_process_had_is_unknown_if_it_did_not_stand_still() -> None:
    """
    Neither what one has that goes on, nor what one has that has ended, though nobody
    has reaped it: it has no descriptors then, which is not to be taken for none.
    """
    with waits_for_ever() as ended, waits_for_ever() as running:
        ended.kill()
        while not has_ended(ended.pid):
            time.sleep(0.001)
        stop_all([ended.pid])

        assert {ended.pid: None, running.pid: None} == peers_of_stopped(
            [ended.pid, running.pid]
        )


@contextmanager
def waits_for_ever(*inherited: socket.socket) -> Iterator[subprocess.Popen[bytes]]:
    """
    A process that does nothing, and has the given sockets.
    """
    with subprocess.Popen(
        ["sleep", "infinity"], pass_fds=[each.fileno() for each in inherited]
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("statuses", [(-9, 0, 0), (0, 0, 1)])
def test_a_run_that_was_killed_is_no_success(statuses: tuple[int, int, int]) -> None:
    """
    Nor is one in which something was wrong, and all are waited for.
    """
    runs = [mock.Mock(wait=mock.Mock(return_value=each)) for each in statuses]
    with mock.patch("subprocess.Popen", side_effect=runs):
        assert 1 == main(["2", "2", "1"])
    for run in runs:
        run.wait.assert_called_once_with()


def test_the_longest_request_is_named_for_each_policy(tmp_path: Path) -> None:
    """
    Of those that began when it was in force; before the first one, none counts.
    """
    switched = [(10.0, "shared"), (20.0, "gated"), (30.0, "shared"), (40.0, "steered")]
    run = Run(tmp_path, 6, 0.0, switched=switched)
    slow = [(9.0, 5.0), (19.9, 0.7), (35.0, 0.6), (20.0, 0.3)]

    assert {"shared": 0.7, "gated": 0.3, "steered": 0.0} == run.longest_under(slow)
