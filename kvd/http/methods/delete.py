"""
DELETE of a key.
"""

from __future__ import annotations

from kvd.http.request import RequestHandler
from kvd.model.operations import Delete


class DeleteHandler(RequestHandler):
    """
    Removes a value.
    """

    _operation: Delete

    def begin(self) -> None:
        self.proceed()

    def end(self) -> None:
        operation = self._operation
        self.when(
            self._context.store.remove(operation.key, operation.conditions),
            self._removed,
        )

    def _removed(self, _: None) -> None:
        self.reply(204, [("Kvd-Durability", self._context.store.durability)])
