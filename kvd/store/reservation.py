"""
What an upload holds of the limits of a store.
"""

from __future__ import annotations

from typing import Final, Protocol

from kvd.interfaces import Answer


class Reservation(Protocol):
    """
    What one upload holds.
    """

    def grow(self, size: int) -> Answer[None]:
        """
        Hold enough for a value of this size, which may grow further.

        Raises:
            ValueTooLarge: No value of this size can ever be stored.
            QuotaFull: There is no room.
        """

    def fit(self, size: int) -> None:
        """
        Hold enough for a value of this size, and no more.

        Raises:
            QuotaFull: There is no room.
        """

    def published(self, replaced: int | None) -> None:
        """
        The upload became a value of the size that it `fit`.

        Args:
            replaced: The size of the value that it replaced; None: there was none.
        """

    def release(self) -> None:
        """
        Hold nothing any more. Does nothing after `published`.
        """


class _Unlimited:
    """
    There are no limits.
    """

    def grow(self, size: int) -> None:
        pass

    def fit(self, size: int) -> None:
        pass

    def published(self, replaced: int | None) -> None:
        pass

    def release(self) -> None:
        pass


UNLIMITED: Final[Reservation] = _Unlimited()
"""
What uploads hold where a store has no limits.
"""
