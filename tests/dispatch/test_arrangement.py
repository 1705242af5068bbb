"""
Tests for `kvd.dispatch.arrangement`.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from zope.interface import implementer

from kvd.dispatch.arrangement import Arrangement, arrange
from kvd.dispatch.policies.reuseport import ReusePort
from kvd.dispatch.policies.roundrobin import RoundRobin
from kvd.dispatch.policies.shared import Shared
from kvd.errors import BrokenPlugin
from kvd.interfaces import IDispatchPolicy
from kvd.model.view import View


@implementer(IDispatchPolicy)
class Says:
    """
    What the test says, to whatever it is asked.
    """

    def __init__(
        self, kernel_chooses: bool, size: object, members: Sequence[object]
    ) -> None:
        self.kernel_chooses = kernel_chooses
        self._size = size
        self._members = members

    def group_size(self, workers: int) -> int:
        if isinstance(self._size, Exception):
            raise self._size
        return self._size  # type: ignore[return-value]  # as a mistake does

    def members_of(self, worker: int, workers: int) -> Sequence[int]:
        members = self._members[worker]
        if isinstance(members, Exception):
            raise members
        return members  # type: ignore[return-value]  # as a mistake does

    def choose(self, view: View) -> int:
        raise AssertionError("nobody asks yet")


def test_kvds_own_policies_can_be_arranged() -> None:
    """
    One socket each, one for all, or one of the supervisor's.
    """
    own = (frozenset({0}), frozenset({1}))
    same = (frozenset({0}), frozenset({0}))
    none: tuple[frozenset[int], ...] = (frozenset(), frozenset())

    assert Arrangement(True, 2, own) == arrange("p", ReusePort(), 2)
    assert Arrangement(True, 1, same) == arrange("p", Shared(), 2)
    assert Arrangement(False, 1, none) == arrange("p", RoundRobin(), 2)


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (Says(True, ValueError("no"), [[0], [0]]), "fails with ValueError: no"),
        (Says(True, 1, [[0], KeyError("x")]), "fails with KeyError: 'x'"),
        (Says(True, 1, [[0], 7]), "fails with TypeError"),
        (Says(True, 0, [[0], [0]]), "wants 0 of them"),
        (Says(True, "2", [[0], [0]]), "wants '2' of them"),
        (Says(True, True, [[0], [0]]), "wants True of them"),
        (Says(True, 2, [[0], [2]]), "names socket 2 for worker 1; there are 0 to 1"),
        (Says(True, 2, [[0], [-1]]), "names socket -1 for worker 1"),
        (Says(True, 2, [["0"], [1]]), "names socket '0' for worker 0"),
        (Says(True, 2, [[0], [True]]), "names socket True for worker 1"),
        (Says(True, 2, [[0.0], [1]]), "names socket 0.0 for worker 0"),
        (Says(True, 2, [[0, 1], []]), "names none for worker 1"),
        (Says(True, 2, [[0], [0]]), "names nobody for socket 1"),
        (Says(False, 1, [[], [0]]), "names some for worker 1, although"),
    ],
)
def test_what_would_leave_connections_to_nobody_is_reported(
    policy: IDispatchPolicy, words: str
) -> None:
    """
    With the policy's name, and what it said.
    """
    with pytest.raises(BrokenPlugin) as caught:
        arrange("odd", policy, 2)

    assert "'odd', asked for the sockets of 2 workers" in caught.value.sentence
    assert words in caught.value.sentence
