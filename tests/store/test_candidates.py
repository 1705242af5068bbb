"""
The tests of `kvd.store.candidates`.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest
from twisted.trial.unittest import SynchronousTestCase

from kvd.model.keys import Key
from kvd.native import compiled
from kvd.store.candidates import Candidate, Candidates, PlainCandidates, make_candidates
from tests.chance import new_seed


def candidate(number: int) -> Candidate:
    """
    A value that was used at this time.
    """
    return number, number + 7, Key(b"k/%d" % number)


class CandidatesContract:
    """
    What every list promises.
    """

    make: Callable[[int], Candidates]

    def filled(self, most: int, numbers: list[int]) -> Candidates:
        """
        A list to which these were added.
        """
        candidates = self.make(most)
        for number in numbers:
            candidates.remember(*candidate(number))
        return candidates

    def test_those_used_least_recently_stay(self) -> None:
        """
        In the order of their use, whatever the order in which they came.
        """
        candidates = self.filled(5, [30, 10, 90, 50, 20, 40, 80, 60, 0, 70])

        assert 5 == len(candidates)
        assert [candidate(0), candidate(10)] == candidates.oldest(2)
        candidates.drop(2)
        assert list(map(candidate, (20, 30, 40))) == candidates.oldest(9)
        candidates.drop(9)
        assert (0, []) == (len(candidates), candidates.oldest(1))

    def test_no_gap_opens_where_some_are_taken(self) -> None:
        """
        What is younger than a value that was left out is left out too; what is older is
        remembered.
        """
        candidates = self.filled(4, [10, 20, 30, 40, 50])
        taken = candidates.take(2)
        candidates.remember(*candidate(60))
        candidates.remember(*candidate(35))

        assert list(map(candidate, (10, 20))) == taken.oldest(9)
        assert list(map(candidate, (30, 35, 40))) == candidates.oldest(9)

    def test_times_may_be_any(self) -> None:
        """
        Before 1970 too. Equal times are in the order of inodes.
        """
        candidates = self.make(9)
        for time, inode in ((0, 5), (-(10**18), 2**64 - 1), (0, 4), (2**62, 1)):
            candidates.remember(time, inode, b"key")

        assert [
            (-(10**18), 2**64 - 1, b"key"),
            (0, 4, b"key"),
            (0, 5, b"key"),
            (2**62, 1, b"key"),
        ] == candidates.oldest(9)

    def test_random_operations(self) -> None:
        """
        Whatever is done with a list, it is like a plain one, if that is what it is
        compared with.
        """
        chance = random.Random(new_seed())
        for _ in range(20):
            most = chance.randrange(1, 40)
            pairs = [(PlainCandidates(most), self.make(most))]
            for step in range(300):
                plain, other = chance.choice(pairs)
                act = chance.random()
                if act < 0.8:
                    one = chance.randrange(100), step, b"%d" % step
                    plain.remember(*one)
                    other.remember(*one)
                elif act < 0.9:
                    count = chance.randrange(most)
                    plain.drop(count)
                    other.drop(count)
                elif act < 0.95:
                    count = chance.randrange(most)
                    pairs.append((plain.take(count), other.take(count)))
                assert len(plain) == len(other) <= most
                if step % 10 == 0:
                    assert plain.oldest(most) == other.oldest(most)


class PlainCandidatesTests(CandidatesContract, SynchronousTestCase):
    """
    Those of Python.
    """

    make = PlainCandidates


class MadeCandidatesTests(CandidatesContract, SynchronousTestCase):
    """
    Those that are used, which are compiled where that is possible.
    """

    make = staticmethod(make_candidates)

    def test_mistakes_are_refused(self) -> None:
        """
        The compiled module checks what it is given.
        """
        module = compiled("_fast_path")
        with pytest.raises(ValueError, match="at least one"):
            module.Candidates(0)  # type: ignore[union-attr]
        folder = os.open(os.path.dirname(__file__), os.O_RDONLY)
        self.addCleanup(os.close, folder)
        with pytest.raises(TypeError, match="no candidates"):
            module.look_at(folder, b"", [b"__init__.py"], ("no list",), 0, 1 << 62)  # type: ignore[union-attr]
