"""
Tests for `kvd.lab.bench.balancer`.
"""

from __future__ import annotations

import pytest

from kvd.lab.bench.balancer import ALGORITHMS, balancing, settings
from kvd.lab.measuring.errors import BenchFailed
from kvd.lab.simulate.balancing import BALANCERS


def test_haproxy_balances_as_the_simulation_does() -> None:
    """
    By the algorithm of the same name, before all daemons.
    """
    lines = [line.split() for line in settings("random2", 80, [81, 82]).splitlines()]

    assert ["balance", "random(2)"] in lines
    assert ["bind", "127.0.0.1:80"] in lines
    assert ["server", "machine-1", "127.0.0.1:82"] == lines[-1]
    assert {*ALGORITHMS, "source"} == set(BALANCERS)


def test_what_one_machine_cannot_show_is_refused() -> None:
    """
    With what can be measured.
    """
    with (
        pytest.raises(BenchFailed, match="ecmp, roundrobin, leastconn, random2 can"),
        balancing("source", [81]),
    ):
        pass


def test_a_machine_without_haproxy_gets_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    What to install.
    """
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)

    with (
        pytest.raises(BenchFailed, match="apt-get install haproxy"),
        balancing("leastconn", [81]),
    ):
        pass
