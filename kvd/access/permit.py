"""
That a request may be carried out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from kvd.model.operations import Operation

if TYPE_CHECKING:
    from kvd.access.counting import OpenCounts


class Permit(NamedTuple):
    """
    What a request may do, until it has ended.
    """

    operation: Operation
    """With what the rules of its prefix add."""
    also: Callable[[Any], Any]
    """Decides about another operation for the same client, and returns it with what the
    rules of its prefix add."""
    user: str | None = None
    """Whose request it is; None: a client's without credentials."""
    counted: str | None = None
    """As what it is counted until it has ended, if it is."""
    serving: OpenCounts | None = None
    """Where it is counted."""

    def ended(self) -> None:
        """
        The request has ended, however that was.
        """
        if self.counted is not None and self.serving is not None:
            self.serving.remove(self.counted)
