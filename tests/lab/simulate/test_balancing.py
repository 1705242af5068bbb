"""
Tests for `kvd.lab.simulate.balancing`, and for simulations of several machines.
"""

from __future__ import annotations

from math import fsum, isclose
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvd.dispatch.policies.gated import Gated
from kvd.dispatch.policies.leastbusy import LeastBusy
from kvd.dispatch.policies.roundrobin import RoundRobin
from kvd.dispatch.policies.shared import Shared
from kvd.lab.simulate.balancing import BALANCERS, Balancing, Fleet
from kvd.lab.simulate.engine import Simulation
from kvd.lab.simulate.figures import figures
from kvd.lab.simulate.load import Load, arrivals, closed_load, open_load, services
from tests.exploring import exploring

POLICIES = (RoundRobin(), LeastBusy(), Shared(), Gated())


def balancing(balancer: str, machines: int = 3, balancers: int = 1) -> Balancing:
    """
    Before so many machines.
    """
    return Balancing(Fleet(machines, balancer, balancers), Random(1))


def test_turns_go_round() -> None:
    """
    Whatever is open.
    """
    balancers = balancing("roundrobin")

    assert [0, 1, 2, 0, 1] == [balancers.choose(client) for client in range(5)]


def test_the_machine_with_the_fewest_connections_is_next() -> None:
    """
    Machines with equally many take turns.
    """
    balancers = balancing("leastconn")

    assert [0, 1, 2, 0] == [balancers.choose(client) for client in range(4)]
    balancers.closed(1, 1)
    assert [1, 2, 1] == [balancers.choose(client) for client in (4, 5, 6)]


def test_a_client_stays_with_the_machine_of_its_address() -> None:
    """
    Also when it connects again; others have other machines.
    """
    balancers = balancing("source")
    first = [balancers.choose(client) for client in range(50)]
    for client, machine in enumerate(first):
        balancers.closed(client, machine)

    assert {0, 1, 2} == set(first)
    assert first == [balancers.choose(client) for client in range(50)]


def test_the_better_of_two_is_rarely_the_worst() -> None:
    """
    Of many machines, none gets much more than others, as by a hash some do.
    """

    def most(balancer: str) -> int:
        balancers = balancing(balancer, 32)
        got = [balancers.choose(client) for client in range(3200)]
        return max(map(got.count, range(32)))

    assert most("random2") <= 105 < most("ecmp")


def test_balancers_know_nothing_of_each_other() -> None:
    """
    Each takes its first connection to the first machine.
    """
    balancers = balancing("leastconn", machines=2, balancers=20)

    assert [0, 0, 0] == [balancers.choose(client) for client in range(3)]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: type(policy).__name__)
def test_machines_are_as_if_they_were_alone(policy: RoundRobin) -> None:
    """
    Behind turns, each of two machines does what it does alone with every other
    connection.
    """
    times = services("uneven", 0.01, 400, 5)
    begins = arrivals("poisson", 400, 0.8 * 8 / 0.01, 5)
    load = open_load(times, begins)
    fleet = Fleet(2, "roundrobin")
    both = Simulation(load, policy, 8, 1, fleet).run()
    alone = [
        Simulation(open_load(times[part::2], begins[part::2]), policy, 4, 1).run()
        for part in (0, 1)
    ]

    assert 200 == sum(both.requests[:4]) == sum(both.requests[4:])
    # Chance is another on each machine.
    assert alone[0].requests == both.requests[:4]
    if not policy.kernel_chooses:
        assert alone[1].requests == both.requests[4:]
        assert sorted([*alone[0].waits, *alone[1].waits]) == pytest.approx(
            sorted(both.waits)
        )


def test_a_connection_that_stays_keeps_its_machine() -> None:
    """
    A client that connects again gets the next one.
    """
    stays = Simulation(closed_load([1.0] * 4, 1), RoundRobin(), 2, 1, _TURNS).run()
    again = Simulation(closed_load([1.0] * 4, 1, 1), RoundRobin(), 2, 1, _TURNS).run()

    assert [4, 0] == stays.requests
    assert [2, 2] == again.requests


_TURNS = Fleet(2, "roundrobin")


def test_an_idle_machine_does_not_help_a_busy_one() -> None:
    """
    The third connection waits at the first machine, while the second is idle; the
    figures count it as time lost.
    """
    load = open_load([3.0, 1.0, 1.0], [0.0, 1.0, 2.0])
    outcome = Simulation(load, LeastBusy(), 2, 1, _TURNS).run()

    assert [0.0, 0.0, 1.0] == outcome.waits
    assert 1.0 == outcome.idle_while_queued
    assert figures(outcome, 3.0, 0.0, 2).jain_machines < 1.0


@exploring()
@given(
    st.sampled_from(sorted(BALANCERS)),
    st.sampled_from(POLICIES),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 2),
    st.lists(
        st.tuples(st.floats(0, 2), st.lists(st.floats(0, 1), min_size=1, max_size=4)),
        max_size=12,
    ),
    st.floats(0, 0.1),
)
def test_nothing_is_lost_between_machines(
    balancer: str,
    policy: RoundRobin,
    machines: int,
    each: int,
    balancers: int,
    reuse: int,
    clients: list[tuple[float, list[float]]],
    lag: float,
) -> None:
    """
    Every request is served once, and every connection has one machine.
    """
    clients = sorted(clients)
    first, times = [0], []
    for _, own in clients:
        times += own
        first.append(len(times))
    load = Load([begin for begin, _ in clients], first, times, reuse, lag=lag)
    fleet = Fleet(machines, balancer, balancers)
    outcome = Simulation(load, policy, machines * each, 7, fleet).run()

    assert machines * each == len(outcome.requests)
    assert len(times) == sum(outcome.requests) == len(outcome.waits)
    assert load.connections == sum(outcome.connections)
    assert isclose(fsum(times), fsum(outcome.busy_seconds), abs_tol=1e-9)
    assert outcome.makespan >= load.bound(machines * each) - 1e-9
