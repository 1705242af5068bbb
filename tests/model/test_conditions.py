"""
Tests for `kvd.model.conditions`, in the order of RFC 9110 section 13.2.2.
"""

import pytest

from kvd.errors import PreconditionFailed
from kvd.model.conditions import UNCONDITIONAL, Conditions, EntityTags
from kvd.model.keys import Key, escape
from kvd.model.values import ValueInfo

STORED = ValueInfo(Key(b"k"), 1, "now", 1000.7)
NOW = EntityTags(frozenset({"now"}))
WEAK = EntityTags(weak=frozenset({"now"}))
OTHER = EntityTags(frozenset({"other"}))
ANY = EntityTags(any=True)

CHANGES = [
    (UNCONDITIONAL, STORED, True),
    (UNCONDITIONAL, None, True),
    (Conditions(if_match=NOW), STORED, True),
    (Conditions(if_match=OTHER), STORED, False),
    (Conditions(if_match=WEAK), STORED, False),
    (Conditions(if_match=ANY), STORED, True),
    (Conditions(if_match=ANY), None, False),
    (Conditions(if_match=NOW), None, False),
    (Conditions(if_none_match=ANY), None, True),
    (Conditions(if_none_match=ANY), STORED, False),
    (Conditions(if_none_match=NOW), STORED, False),
    (Conditions(if_none_match=WEAK), STORED, False),
    (Conditions(if_none_match=OTHER), STORED, True),
    (Conditions(if_unmodified_since=1000), STORED, True),
    (Conditions(if_unmodified_since=999), STORED, False),
    (Conditions(if_unmodified_since=999), None, True),
    # If-Match makes If-Unmodified-Since mean nothing.
    (Conditions(if_match=NOW, if_unmodified_since=1), STORED, True),
    (Conditions(if_match=NOW, if_none_match=NOW), STORED, False),
    # If-Modified-Since is for reading alone.
    (Conditions(if_modified_since=9999), STORED, True),
]


@pytest.mark.parametrize(("conditions", "current", "allowed"), CHANGES)
def test_changes_are_allowed_or_not(
    conditions: Conditions, current: ValueInfo | None, allowed: bool
) -> None:
    """
    PUT and DELETE.
    """
    try:
        conditions.check_change(current)
    except PreconditionFailed:
        assert not allowed
    else:
        assert allowed


READS = [
    (UNCONDITIONAL, False),
    (Conditions(if_none_match=NOW), True),
    (Conditions(if_none_match=WEAK), True),
    (Conditions(if_none_match=ANY), True),
    (Conditions(if_none_match=OTHER), False),
    (Conditions(if_modified_since=1000), True),
    (Conditions(if_modified_since=999), False),
    # If-None-Match makes If-Modified-Since mean nothing.
    (Conditions(if_none_match=OTHER, if_modified_since=9999), False),
    (Conditions(if_match=NOW, if_none_match=NOW), True),
]


@pytest.mark.parametrize(("conditions", "unchanged"), READS)
def test_a_reader_that_has_the_value_gets_304(
    conditions: Conditions, unchanged: bool
) -> None:
    """
    GET and HEAD.
    """
    assert unchanged is conditions.is_unchanged(STORED)


@pytest.mark.parametrize(
    "conditions",
    [Conditions(if_match=OTHER), Conditions(if_unmodified_since=1, if_none_match=NOW)],
)
def test_a_reader_that_wants_another_value_is_refused(conditions: Conditions) -> None:
    """
    Before other conditions are evaluated.
    """
    with pytest.raises(PreconditionFailed):
        conditions.is_unchanged(STORED)


def test_a_refusal_names_what_is_stored() -> None:
    """
    So that a client can continue from there.
    """
    with pytest.raises(PreconditionFailed, match='"now"'):
        Conditions(if_match=OTHER).check_change(STORED)
    with pytest.raises(PreconditionFailed, match="no value"):
        Conditions(if_match=OTHER).check_change(None)


def test_keys_are_escaped_for_people_and_urls() -> None:
    """
    Slashes stay, all other special bytes are escaped.
    """
    assert "a%20b/%FF%25" == escape(b"a b/\xff%")
