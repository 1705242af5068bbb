"""
Answers that are remembered, by the identity of the object in question.
"""

from __future__ import annotations

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Memo(Generic[K, V]):
    """
    Remembers the last answers, up to a number.

    An answer belongs to one object, not to others that are equal to it. So a lookup
    compares nothing, and objects need no hash.
    """

    def __init__(self, most: int) -> None:
        """
        Args:
            most: How many answers are remembered. When there are this many, all are
                forgotten; those in use soon come back.
        """
        self._most = most
        # Holding the object keeps its id from being used again.
        self._answers: dict[int, tuple[K, V]] = {}

    def find(self, about: K) -> V | None:
        """
        The answer for an object, if it is remembered.
        """
        found = self._answers.get(id(about))
        return None if found is None else found[1]

    def clear(self) -> None:
        """
        Forget all answers.
        """
        self._answers.clear()

    def remember(self, about: K, answer: V) -> V:
        """
        Remember an answer, and give it back.
        """
        if len(self._answers) >= self._most:
            self._answers.clear()
        self._answers[id(about)] = about, answer
        return answer
