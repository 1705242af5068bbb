"""
Tests for `kvd.access.logins`.
"""

from __future__ import annotations

from kvd.access.counting import SLOTS, CountingMemory
from kvd.access.logins import Logins


def test_all_processes_know_what_one_has_verified() -> None:
    """
    By the hash that the user has now, and nothing else; and from where it came.
    """
    memory = CountingMemory()
    first, second = Logins(memory), Logins(memory)
    for logins in (first, second):
        assert not logins.has_credentials(b"Basic x", "hash")
        assert not logins.has_address("192.0.2.1")
    first.remember(b"Basic x", "hash", "192.0.2.1")

    for logins in (first, second):
        assert logins.has_credentials(b"Basic x", "hash")
        assert not logins.has_credentials(b"Basic x", "other hash")
        assert not logins.has_credentials(b"Basic y", "hash")
        assert logins.has_address("192.0.2.1")
        assert not logins.has_address("192.0.2.2")
    assert not Logins(CountingMemory()).has_credentials(b"Basic x", "hash")


def test_half_of_a_hash_is_not_enough() -> None:
    """
    Nor what another process has not written to its end.
    """
    memory = CountingMemory()
    logins = Logins(memory)
    logins.remember(b"Basic x", "hash", "192.0.2.1")
    words = memory.credentials.words
    (slot,) = [at for at in range(0, len(words), 3) if words[at]]
    for place in (0, 2):
        before = words[slot + place]
        words[slot + place] = before ^ 2
        assert not logins.has_credentials(b"Basic x", "hash")
        words[slot + place] = before
    assert logins.has_credentials(b"Basic x", "hash")


def test_those_that_were_not_used_for_longest_are_forgotten() -> None:
    """
    There is room for so many.
    """
    logins = Logins(CountingMemory())
    logins.remember(b"Basic x", "hash", "192.0.2.1")
    for number in range(4 * SLOTS):
        logins.remember(b"Basic %d" % number, "hash", str(number))
        assert logins.has_credentials(b"Basic x", "hash"), number

    assert not logins.has_credentials(b"Basic 0", "hash")
    assert not logins.has_address("192.0.2.1")
