"""
Answers that are kept, by the very object that was asked about.
"""

from __future__ import annotations

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Kept(Generic[K, V]):
    """
    The answers given last, at most so many.

    An answer belongs to one object, not to others that are equal: so finding it
    compares nothing, and objects need no hash.
    """

    def __init__(self, most: int) -> None:
        """
        Args:
            most: When there are so many, all are forgotten; those that are asked
                for come back at once.
        """
        self._most = most
        # The object is kept too, so that no other gets its id.
        self._answers: dict[int, tuple[K, V]] = {}

    def find(self, about: K) -> V | None:
        """
        What was kept about an object.
        """
        found = self._answers.get(id(about))
        return None if found is None else found[1]

    def keep(self, about: K, answer: V) -> V:
        """
        Keep an answer, and give it back.
        """
        if len(self._answers) >= self._most:
            self._answers.clear()
        self._answers[id(about)] = about, answer
        return answer
