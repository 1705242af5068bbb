"""
Tests for `kvd.lab.simulate.engine`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import fsum, isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvd.dispatch.policies.gated import Gated
from kvd.dispatch.policies.reuseport import ReusePort
from kvd.dispatch.policies.roundrobin import RoundRobin
from kvd.dispatch.policies.shared import Shared
from kvd.interfaces import IDispatchPolicy
from kvd.lab.simulate.engine import Simulation
from kvd.lab.simulate.figures import one_queue
from kvd.lab.simulate.load import Load, closed_load, open_load
from kvd.lab.simulate.outcome import BadChoice, Outcome
from kvd.model.view import View
from tests.exploring import exploring
from tests.lab.simulate.policies import LeastLoaded, Odd, Picky

NOTHING: dict[str, int] = {}
POLICIES = (RoundRobin(), ReusePort(), Shared(), Gated(), LeastLoaded())


def run(load: Load, policy: IDispatchPolicy, workers: int = 2) -> Outcome:
    """
    One run.
    """
    return Simulation(load, policy, workers).run()


# A second passes between connections; the first needs three.
UNEVEN = open_load([3.0, 1.0, 1.0], [0.0, 1.0, 2.0])


def test_turns_are_blind_to_what_is_busy() -> None:
    """
    The third waits behind the first, while the other worker is idle.

        worker 0  |0 0 0 2|
        worker 1  |. 1 . .|
    """
    assert Outcome(
        makespan=4.0,
        waits=[0.0, 0.0, 1.0],
        connections=[2, 1],
        requests=[2, 1],
        busy_seconds=[4.0, 1.0],
        seconds_with_busy=[0.0, 3.0, 1.0],
        idle_while_queued=1.0,
        wasted=1.0,
        tail=0.0,
    ) == run(UNEVEN, RoundRobin())


def test_a_policy_that_sees_the_load_keeps_nobody_waiting() -> None:
    """
    The third goes to the worker that is idle again.

        worker 0  |0 0 0|
        worker 1  |. 1 2|
    """
    assert Outcome(
        makespan=3.0,
        waits=[0.0, 0.0, 0.0],
        connections=[1, 2],
        requests=[1, 2],
        busy_seconds=[3.0, 2.0],
        seconds_with_busy=[0.0, 1.0, 2.0],
        idle_while_queued=0.0,
        wasted=0.0,
        tail=0.0,
    ) == run(UNEVEN, LeastLoaded())


def test_a_common_socket_keeps_connections_for_the_first_free_worker() -> None:
    """
    The third comes when all are busy, and is nobody's until one is not.

        one    |0 0 .|
        other  |1 2 2|
    """
    outcome = run(open_load([2.0, 1.0, 2.0], [0.0, 0.0, 0.5]), Shared())

    assert 3.0 == outcome.makespan
    assert [0.0, 0.0, 0.5] == outcome.waits
    assert [1, 2] == sorted(outcome.requests)
    assert 0.0 == outcome.idle_while_queued


def test_a_busy_worker_takes_one_connection_between_two_requests() -> None:
    """
    One client per worker stays; four further connections come at once. Each
    worker takes two of them, though it has its own client's requests to serve.
    """
    load = Load([0.0, 0.0, 0.5, 0.5, 0.5, 0.5], [0, 3, 6, 7, 8, 9, 10], [1.0] * 10)
    outcome = run(load, Shared())

    assert [3, 3] == outcome.connections
    assert [5, 5] == outcome.requests
    assert 5.0 == outcome.makespan


def test_a_connection_that_stays_keeps_its_worker() -> None:
    """
    Two clients with two requests each, all at worker 0, which takes them in
    turns.
    """
    outcome = run(closed_load([1.0] * 4, 2), Odd(lambda view: 0))

    assert [2, 0] == outcome.connections
    assert [4, 0] == outcome.requests
    assert [0.0, 1.0, 1.0, 1.0] == outcome.waits
    assert 3.0 == outcome.idle_while_queued


def test_a_connection_is_made_anew_when_it_was_used_often_enough() -> None:
    """
    One client, five requests, two for each connection: turns give three
    connections to two workers.
    """
    outcome = run(closed_load([1.0] * 5, 1, reuse=2), RoundRobin())

    assert [2, 1] == outcome.connections
    assert [3, 2] == outcome.requests
    assert 5.0 == outcome.makespan


def test_a_pause_is_nobodys_work() -> None:
    """
    Between a reply and the next request the worker serves others.

        client 0  |0 0 - 0 0|
        client 1  |  . 1 -  1|   at the same worker
    """
    load = closed_load([2.0, 2.0, 1.0, 1.0], 2, pause_seconds=1.0)
    outcome = run(load, RoundRobin(), workers=1)

    assert [0.0, 2.0, 0.0, 1.0] == outcome.waits
    assert 6.0 == outcome.makespan
    assert 0.0 == outcome.seconds_with_busy[0]


def test_a_worker_that_waits_for_a_request_seems_idle() -> None:
    """
    Three connections come while nobody has sent anything: the common socket may
    give them all to one. It serves the requests one after the other.
    """
    load = replace(open_load([1.0] * 3, [0.0] * 3), lag=0.5)
    outcome = run(load, Odd(lambda view: view.ready[0], kernel_chooses=True))

    assert [3, 0] == outcome.connections
    assert [0.0, 1.0, 2.0] == outcome.waits
    assert 3.5 == outcome.makespan
    assert 0.5 == outcome.seconds_with_busy[0]


def test_a_dealt_connection_is_on_its_way_until_its_request() -> None:
    """
    As the supervisor counts it; then it is open.
    """
    seen = []

    def choose(view: View) -> int:
        seen.append((list(view.handing_over), list(view.connections)))
        return 0

    load = replace(open_load([1.0] * 3, [0.0, 0.25, 0.5]), lag=0.375)
    run(load, Odd(choose))

    assert [([0, 0], [0, 0]), ([1, 0], [0, 0]), ([1, 0], [1, 0])] == seen


def test_the_tail_is_the_time_at_the_end_with_few_workers() -> None:
    """
    Ten workers; one of them, which is few, has twice as much as the others.
    """
    load = open_load([2.0] + [1.0] * 9, [0.0] * 10)

    assert 1.0 == run(load, RoundRobin(), workers=10).tail


def test_a_policy_sees_the_workers_as_they_are() -> None:
    """
    Connections, requests in progress, and whose turn it is: what has ended is
    seen at once, and what has begun too.
    """
    seen = []

    def choose(view: View) -> int:
        seen.append((view.turn, list(view.connections), list(view.requests)))
        return 1 if len(seen) == 1 else 2

    # The first client's connection lasts for two requests and a pause.
    load = Load(
        [0.0, 0.5, 1.0, 1.5], [0, 2, 3, 4, 5], [1.0, 1.0, 9.0, 9.0, 9.0], 0, [1.0] * 4
    )
    run(load, Odd(choose), workers=3)

    assert [
        (0, [0, 0, 0], [0, 0, 0]),
        (2, [0, 1, 0], [0, 1, 0]),
        (0, [0, 1, 1], [0, 0, 1]),
        (0, [0, 1, 2], [0, 0, 2]),
    ] == seen


@pytest.mark.parametrize("answer", [-1, 2, "0", True, None])
def test_an_answer_that_cannot_be_is_an_error(answer: int) -> None:
    """
    A laboratory is where one wants to know.
    """
    with pytest.raises(BadChoice, match=f"chose {answer!r}, which is no ready worker"):
        run(UNEVEN, Odd(lambda view: answer))


def test_a_busy_worker_is_not_ready_where_the_socket_is_common() -> None:
    """
    A model that wakes the same worker always is no model.
    """
    with pytest.raises(BadChoice, match="chose 0, which is no ready worker"):
        run(UNEVEN, Odd(lambda view: 0, kernel_chooses=True))


def test_gates_let_the_idle_come_first() -> None:
    """
    Three clients that stay come while nobody has sent anything: each worker has one,
    where without gates any of them may have several.
    """
    load = replace(open_load([1.0] * 3, [0.0] * 3), lag=0.5)

    assert [1, 1, 1] == run(load, Gated(), workers=3).connections


def test_a_connection_goes_to_an_open_gate() -> None:
    """
    Though another is first to wake.
    """
    policy = Picky(lambda worker, view: worker == 1)
    outcome = run(open_load([1.0], [0.0]), policy)

    assert [0, 1] == outcome.connections
    assert [0.0] == outcome.waits


def test_no_gate_stays_closed_while_a_connection_waits() -> None:
    """
    After 20 ms an idle worker takes it, whatever the policy says.
    """
    outcome = run(open_load([1.0], [0.0]), Picky(lambda worker, view: False))

    assert 0.02 < outcome.waits[0] < 0.0225


def test_a_busy_worker_asks_its_gate_between_two_requests() -> None:
    """
    It is closed after the first of its own client's, and open after the second, which
    ends before it would be opened by force.
    """
    seen: list[int] = []

    def accepts(worker: int, view: View) -> bool:
        assert [0, 1] == list(view.ready)
        seen.append(worker)
        return len(seen) != 3

    own, short = [1.0, 1 / 128, 1.0], [1.0]
    load = Load([0.0, 0.0, 0.5], [0, 3, 6, 7], own + [2.0] * 3 + short)
    outcome = run(load, Picky(accepts))

    assert [0, 1, 0, 0] == seen
    assert 0.5 + 1 / 128 in outcome.waits


def test_a_policy_that_fails_is_an_error() -> None:
    """
    In words.
    """
    with pytest.raises(BadChoice, match="failed with KeyError: 'missing'"):
        run(UNEVEN, Odd(lambda view: NOTHING["missing"]))
    with pytest.raises(BadChoice, match="failed with KeyError: 'gate'"):
        run(UNEVEN, Picky(lambda worker, view: bool(NOTHING["gate"])))


# Quarters are exact in binary, so that sums are exact too.
quarters = st.integers(0, 40).map(lambda number: number / 4)


@st.composite
def loads(draw: st.DrawFn) -> Load:
    """
    Any few clients.
    """
    begins = sorted(draw(st.lists(quarters, min_size=1, max_size=12)))
    counts = [draw(st.integers(1, 4)) for _ in begins]
    first = [0]
    for count in counts:
        first.append(first[-1] + count)
    return Load(
        [begin - begins[0] for begin in begins],
        first,
        draw(st.lists(quarters, min_size=first[-1], max_size=first[-1])),
        draw(st.integers(0, 3)),
        draw(
            st.none() | st.lists(quarters, min_size=len(begins), max_size=len(begins))
        ),
    )


@exploring()
@given(loads(), st.sampled_from(POLICIES), st.integers(1, 5), st.integers(0, 3))
def test_nothing_is_lost_and_nothing_invented(
    load: Load, policy: IDispatchPolicy, workers: int, seed: int
) -> None:
    """
    All requests are served, in no more and no less than their time, and no run
    is shorter than the bound.
    """
    outcome = Simulation(load, policy, workers, seed).run()

    assert len(load.services) == sum(outcome.requests) == len(outcome.waits)
    assert load.connections == sum(outcome.connections)
    assert fsum(load.services) == fsum(outcome.busy_seconds)
    assert outcome.makespan == fsum(outcome.seconds_with_busy)
    busy = sum(
        count * seconds for count, seconds in enumerate(outcome.seconds_with_busy)
    )
    assert fsum(load.services) == busy
    assert min(outcome.waits) >= 0
    bound = load.bound(workers)
    assert outcome.makespan >= bound or isclose(outcome.makespan, bound)
    assert outcome.wasted <= outcome.idle_while_queued * workers
    assert outcome == Simulation(load, policy, workers, seed).run()


@exploring()
@given(loads(), st.integers(1, 5))
def test_one_queue_leaves_nobody_idle_while_something_waits(
    load: Load, workers: int
) -> None:
    """
    That is why the others are held against it.
    """
    assert 0.0 == one_queue(load, workers).idle_while_queued


@exploring()
@given(st.lists(quarters, min_size=1, max_size=20), st.integers(1, 5))
def test_least_loaded_is_as_good_as_one_queue_where_all_cost_the_same(
    begins: Sequence[float], workers: int
) -> None:
    """
    Then the shortest queue is also the one that is done first.
    """
    load = open_load([1.0] * len(begins), sorted(begins))

    assert sorted(one_queue(load, workers).waits) == sorted(
        Simulation(load, LeastLoaded(), workers).run().waits
    )
