"""
Every promise of `kvd.dispatch.contract` can be broken: there is a policy for each that
does, and the contract notices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from zope.interface import implementer
from zope.interface.exceptions import Invalid

from kvd.dispatch.contract import (
    DispatchedByLoadContract,
    GatedContract,
    LoadAwareContract,
    PolicyContract,
    RotatingContract,
)
from kvd.errors import BrokenPlugin
from kvd.interfaces import IDispatchPolicy, IGatedPolicy
from kvd.model.view import View, whose_turn

CONTRACTS = (
    PolicyContract,
    RotatingContract,
    LoadAwareContract,
    DispatchedByLoadContract,
    GatedContract,
)


@implementer(IDispatchPolicy)
class Dispatched:
    """
    Takes turns, and is extended by all that are worse.
    """

    kernel_chooses = False

    def group_size(self, workers: int) -> int:
        return 1

    def members_of(self, worker: int, workers: int) -> Sequence[int]:
        return ()

    def choose(self, view: View) -> int:
        return whose_turn(view)


class Unwilling:
    """
    Provides nothing.
    """


class SharesNothing(Dispatched):
    """
    Leaves its only socket to nobody.
    """

    kernel_chooses = True


class Remembering(Dispatched):
    """
    Takes turns that it counts itself.
    """

    def __init__(self) -> None:
        self._next = 0

    def choose(self, view: View) -> int:
        self._next += 1
        return view.ready[self._next % len(view.ready)]


class Grudging(Dispatched):
    """
    Never forgives who once had many connections.
    """

    def __init__(self) -> None:
        self._avoided: set[int] = set()

    def choose(self, view: View) -> int:
        self._avoided |= {n for n in view.ready if view.connections[n] >= 100}
        liked = [n for n in view.ready if n not in self._avoided]
        return liked[view.turn % len(liked)] if liked else view.ready[0]


class Heedless(Dispatched):
    """
    Does not ask who is ready.
    """

    def choose(self, view: View) -> int:
        return view.turn


class First(Dispatched):
    """
    The first has everything.
    """

    def choose(self, view: View) -> int:
        return view.ready[0]


class FirstOfLeast(Dispatched):
    """
    Looks at connections alone, and gives a tie to the first.
    """

    def choose(self, view: View) -> int:
        return min(view.ready, key=view.connections.__getitem__)


class OldFriends(Dispatched):
    """
    Knows three workers.
    """

    def choose(self, view: View) -> int:
        return view.ready[view.turn % min(3, len(view.ready))]


class Blind(Dispatched):
    """
    Throws dice.
    """

    def choose(self, view: View) -> int:
        return view.random.choice(view.ready)


class Greedy(Dispatched):
    """
    Who is busy gets more.
    """

    def choose(self, view: View) -> int:
        return max(view.ready, key=view.requests.__getitem__)


class Forgetful(Dispatched):
    """
    Goes by requests and connections, but forgets what is on its way.
    """

    def choose(self, view: View) -> int:
        return min(view.ready, key=lambda n: (view.requests[n], view.connections[n], n))


class Lenient(Dispatched):
    """
    Goes by load, but one request more or less is the same to it.
    """

    def choose(self, view: View) -> int:
        turn = view.turn
        return min(
            view.ready,
            key=lambda n: (view.requests[n] // 2, (n - turn) % len(view.requests)),
        )


@implementer(IGatedPolicy)
class Gate(Dispatched):
    """
    Everybody accepts.
    """

    kernel_chooses = True

    def members_of(self, worker: int, workers: int) -> Sequence[int]:
        return (0,)

    def accepts(self, worker: int, view: View) -> bool:
        return True


class Closed(Gate):
    """
    Whoever has anything to do accepts nothing, even if all have.
    """

    def accepts(self, worker: int, view: View) -> bool:
        return not view.requests[worker]


class HeldBack(Gate):
    """
    Waits for those who are gone.
    """

    def accepts(self, worker: int, view: View) -> bool:
        return view.requests[worker] == min(view.requests)


class Undecided(Gate):
    """
    Opens by turns.
    """

    def __init__(self) -> None:
        self._open = False

    def accepts(self, worker: int, view: View) -> bool:
        self._open = not self._open
        return self._open


BREAKS = {
    "test_it_provides_the_interface": Unwilling,
    "test_somebody_accepts_from_every_member": SharesNothing,
    "test_the_same_question_has_the_same_answer": Remembering,
    "test_the_chosen_worker_is_ready": Heedless,
    "test_equal_workers_get_equal_shares": First,
    "test_short_connections_are_shared": FirstOfLeast,
    "test_a_lost_worker_gets_nothing_and_the_rest_share": Heedless,
    "test_new_workers_get_their_share": OldFriends,
    "test_closes_that_are_seen_late_are_forgotten": Grudging,
    "test_ties_rotate": Blind,
    "test_the_worker_with_the_fewest_requests_is_chosen": Greedy,
    "test_requests_are_balanced_not_only_connections": Dispatched,
    "test_connections_that_stay_are_spread_evenly": Blind,
    "test_a_slow_worker_gets_less": Dispatched,
    "test_an_end_is_seen_in_the_next_decision": Lenient,
    "test_ends_that_are_seen_late_favour_nobody": FirstOfLeast,
    "test_connections_on_their_way_count": Forgetful,
    "test_connections_on_their_way_count_as_requests": Forgetful,
    "test_it_provides_the_gate": Dispatched,
    "test_somebody_accepts_always": Closed,
    "test_a_busy_worker_leaves_a_connection_to_an_idle_one": Gate,
    "test_a_long_queue_is_for_all": Closed,
    "test_a_queue_is_shared_evenly": Gate,
    "test_a_lost_worker_closes_no_gate": HeldBack,
    "test_the_model_chooses_a_worker_that_accepts": Closed,
    "test_the_same_view_opens_the_same_gates": Undecided,
}


def promises(contract: type[PolicyContract]) -> set[str]:
    """
    The names of a contract's tests.
    """
    return {name for name in dir(contract) if name.startswith("test_")}


@pytest.mark.parametrize("contract", CONTRACTS)
def test_every_promise_can_be_broken(contract: type[PolicyContract]) -> None:
    """
    So each test of a contract says something.
    """
    for promise in promises(contract):
        made: Any = BREAKS[promise]
        case = type(
            "Case", (contract,), {"make_policy": lambda self, made=made: made()}
        )
        with pytest.raises((AssertionError, BrokenPlugin, Invalid)):
            getattr(case(), promise)()


def test_no_other_is_known() -> None:
    """
    Whoever adds a promise adds a policy that breaks it.
    """
    assert set().union(*map(promises, CONTRACTS)) == BREAKS.keys()
