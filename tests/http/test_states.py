"""
Tests for `kvd.http.states`.
"""

import re

import pytest

from kvd.http import states
from kvd.http.states import ENDING, RECEIVING, TRANSITIONS, WAITING, State

NEXT_IN_WORDS = re.compile(r"^([A-Z]+)  .*?  (?=[A-Z]|never)(.*)$", re.MULTILINE)


@pytest.mark.parametrize("state", State)
def test_each_state_is_of_one_kind_and_can_be_left(state: State) -> None:
    """
    All but the last one, to which all others may lead.
    """
    kinds = ({State.PROXY, State.HANDSHAKE}, RECEIVING, WAITING, ENDING)
    assert 1 == sum(state in kind for kind in kinds)
    assert (state is not State.CLOSED) == (State.CLOSED in TRANSITIONS[state])


@pytest.mark.parametrize("state", ENDING)
def test_what_ends_does_not_begin_again(state: State) -> None:
    """
    No request is taken on a connection that is about to be closed.
    """
    assert TRANSITIONS[state] <= ENDING


def test_the_table_for_readers_says_the_same() -> None:
    """
    Row by row: `BROKEN` and `CLOSED` stand for themselves below it.
    """
    assert states.__doc__ is not None
    rows = dict(NEXT_IN_WORDS.findall(states.__doc__))
    assert [*rows] == [state.name for state in State]
    for state in State:
        words = set(re.findall(r"[A-Z]{4,}", rows[state.name]))
        if "the end" in rows[state.name]:
            words |= {"CLOSING", "LINGER"}
        other = {after.name for after in TRANSITIONS[state] - {state}}

        assert (state, words - {"CLOSED", "BROKEN"}) == (
            state,
            other - {"CLOSED", "BROKEN"},
        )
