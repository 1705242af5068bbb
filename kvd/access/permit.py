"""
That a request may be carried out.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from kvd.model.operations import Operation


class Permit(NamedTuple):
    """
    What a request may do, until it has ended.
    """

    operation: Operation
    """With what the rules of its prefix add."""
    user: str | None = None
    """Whose requests are counted, if they are."""
    serving: Counter[str] | None = None
    """How many requests of each such user are being served."""

    def ended(self) -> None:
        """
        The request has ended, however that was.
        """
        if self.user is not None and self.serving is not None:
            self.serving[self.user] -= 1
