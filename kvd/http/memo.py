"""
Answers that are remembered, by the very object that was asked about.
"""

from __future__ import annotations

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Memo(Generic[K, V]):
    """
    Remembers the answers given last, up to a number.

    An answer belongs to one object, not to others that are equal: so finding it
    compares nothing, and objects need no hash.
    """

    def __init__(self, most: int) -> None:
        """
        Args:
            most: How many are remembered. When there are so many, all are forgotten;
                those that are asked for come back at once.
        """
        self._most = most
        # The object is held too, so that no other gets its id.
        self._answers: dict[int, tuple[K, V]] = {}

    def find(self, about: K) -> V | None:
        """
        The answer for an object, if it is remembered.
        """
        found = self._answers.get(id(about))
        return None if found is None else found[1]

    def remember(self, about: K, answer: V) -> V:
        """
        Remember an answer, and give it back.
        """
        if len(self._answers) >= self._most:
            self._answers.clear()
        self._answers[id(about)] = about, answer
        return answer
