"""
Tests for `kvd.workers.backoff`.
"""

from kvd.workers.backoff import FIRST_SECONDS, MOST_SECONDS, Backoff


def test_pauses_grow_while_it_dies_of_its_start() -> None:
    """
    The first death is followed by no pause, the next ones by longer and longer.
    """
    backoff = Backoff()
    pauses = [backoff.pause_after(1.0, worked=False) for _ in range(30)]

    assert [0.0, 0.1, 0.2, 0.4] == pauses[:4]
    assert MOST_SECONDS == pauses[-1]
    assert pauses == sorted(pauses)


def test_a_worker_that_worked_is_replaced_at_once() -> None:
    """
    However often it dies, and starts that failed are forgotten.
    """
    backoff = Backoff()
    for _ in range(5):
        backoff.pause_after(0.0, worked=False)

    for _ in range(5):
        assert 0.0 == backoff.pause_after(FIRST_SECONDS, worked=True)
    assert 0.0 == backoff.pause_after(0.0, worked=False)


def test_starts_are_a_moment_apart() -> None:
    """
    Whoever dies of its first request does not keep a processor busy.
    """
    assert FIRST_SECONDS == Backoff().pause_after(0.0, worked=True)
