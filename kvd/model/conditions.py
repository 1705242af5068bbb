"""
Conditions of a request (RFC 9110 section 13), independent of their header fields.

The store evaluates them while it holds the key's lock. The protocol evaluates them
earlier too, so that it can refuse a request before its body.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvd.errors import PreconditionFailed

if TYPE_CHECKING:
    from kvd.model.values import ValueInfo


@dataclass(frozen=True, slots=True)
class EntityTags:
    """
    The entity tags of one ``If-Match`` or ``If-None-Match``.
    """

    strong: frozenset[str] = frozenset()
    weak: frozenset[str] = frozenset()
    any: bool = False
    """The field was ``*``: any stored value matches."""

    def match_strongly(self, current: ValueInfo | None) -> bool:
        """
        Whether the value has one of these tags, for ``If-Match``: a weak tag never
        matches (RFC 9110 section 8.8.3.2).
        """
        return current is not None and (self.any or current.etag in self.strong)

    def match_weakly(self, current: ValueInfo | None) -> bool:
        """
        Whether the value has one of these tags, for ``If-None-Match``.
        """
        return current is not None and (
            self.any or current.etag in self.strong or current.etag in self.weak
        )


@dataclass(frozen=True, slots=True)
class Conditions:
    """
    What must be true of the stored value for the request to be carried out.

    They are evaluated in the order of RFC 9110 section 13.2.2. Times are seconds since
    the epoch; the time of a value is cut to whole seconds, the precision of an HTTP
    date.
    """

    if_match: EntityTags | None = None
    if_none_match: EntityTags | None = None
    if_modified_since: int | None = None
    if_unmodified_since: int | None = None

    def check_change(self, current: ValueInfo | None) -> None:
        """
        Evaluate the conditions of PUT and DELETE.

        Args:
            current: The stored value; None if there is none.

        Raises:
            PreconditionFailed: A condition does not hold; the request must change
                nothing.
        """
        self._check_expected(current)
        if self.if_none_match is not None and self.if_none_match.match_weakly(current):
            raise PreconditionFailed(
                "If-None-Match forbids the change: the key holds a value"
                f" with the entity tag {_quoted(current)}."
            )

    def is_unchanged(self, current: ValueInfo) -> bool:
        """
        Evaluate the conditions of GET and HEAD.

        Returns:
            Whether the client already has the value (304).

        Raises:
            PreconditionFailed: ``If-Match`` or ``If-Unmodified-Since`` does
                not hold.
        """
        self._check_expected(current)
        if self.if_none_match is not None:
            return self.if_none_match.match_weakly(current)
        if self.if_modified_since is not None:
            return int(current.changed) <= self.if_modified_since
        return False

    def _check_expected(self, current: ValueInfo | None) -> None:
        if self.if_match is not None:
            if not self.if_match.match_strongly(current):
                raise PreconditionFailed(
                    "If-Match names another value than the stored one: the key holds"
                    f" {_quoted(current)}."
                )
        elif (
            self.if_unmodified_since is not None
            and current is not None
            and int(current.changed) > self.if_unmodified_since
        ):
            raise PreconditionFailed(
                "The value was changed after the time in If-Unmodified-Since."
            )


def _quoted(current: ValueInfo | None) -> str:
    return "no value" if current is None else f'"{current.etag}"'


UNCONDITIONAL = Conditions()
