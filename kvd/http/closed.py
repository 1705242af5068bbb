"""
A process that should decide by a rights file and cannot: it serves nobody, rather than
everybody.
"""

from __future__ import annotations

from typing import Any, NoReturn

from kvd.access.rules import ByPrefix
from kvd.access.scope import Scope
from kvd.errors import OutOfResources


class Closed:
    """
    Permits nothing. Used like `kvd.http.authorization.Authorization`.
    """

    def authorize(self, *_: Any, **__: Any) -> NoReturn:
        """
        See `Authorization.authorize`.

        Raises:
            OutOfResources: Always.
        """
        raise OutOfResources(
            "This worker could not apply the rights file that was read again, and is"
            " being replaced: try again."
        )

    def scope(self, *_: Any) -> Scope:
        """
        See `Authorization.scope`.
        """
        return Scope(ByPrefix({}), None)

    def logs_in_at_once(self, *_: Any) -> bool:
        """
        See `Authorization.logs_in_at_once`.
        """
        return False

    def user_of(self, *_: Any) -> None:
        """
        See `Authorization.user_of`.
        """
