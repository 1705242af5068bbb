"""
Tests for `kvd.workers.backoff`.
"""

from kvd.workers.backoff import LIVED_SECONDS, MOST_SECONDS, Backoff


def test_pauses_grow_while_it_dies_young() -> None:
    """
    The first death is followed by no pause, the next ones by longer and longer.
    """
    backoff = Backoff()
    pauses = [backoff.pause_after(0.5) for _ in range(30)]

    assert [0.0, 0.1, 0.2, 0.4] == pauses[:4]
    assert MOST_SECONDS == pauses[-1]
    assert pauses == sorted(pauses)


def test_a_life_makes_all_well() -> None:
    """
    Who lived long is replaced at once, and may die young once more.
    """
    backoff = Backoff()
    for _ in range(5):
        backoff.pause_after(0.0)

    assert 0.0 == backoff.pause_after(LIVED_SECONDS)
    assert 0.0 == backoff.pause_after(0.0)
    assert 0.1 == backoff.pause_after(0.0)
