"""
For which keys a decision about a kind of request holds, and how long.
"""

from __future__ import annotations

from typing import NamedTuple

from kvd.access.rules import ByPrefix


class Scope(NamedTuple):
    """
    For which keys a kind of request may be carried out as it is.
    """

    allowed: ByPrefix[bool]
    """As for rights, the longest prefix counts; keys without a prefix are not
    allowed."""
    expires: float | None
    """When this ceases to hold, in seconds since the epoch; None: never."""
    user: str | None = None
    """Who sends it; None: a client without credentials."""
    by_password: bool = False
    """Whether a password shows that: then this holds for clients from addresses that
    log in at once (`kvd.access.authentication.Authentication.logs_in_at_once`)."""

    def without(self, others: ByPrefix[bool]) -> Scope:
        """
        The same for fewer keys.

        Args:
            others: By prefix, whether its keys stay; those without a prefix do.
        """
        tables = (self.allowed, others)
        prefixes = {prefix for table in tables for prefix, _ in table.items}
        return self._replace(
            allowed=ByPrefix(
                {
                    prefix: self.allowed.of(prefix, False) and others.of(prefix, True)
                    for prefix in prefixes
                }
            )
        )
