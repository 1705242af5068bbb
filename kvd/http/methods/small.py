"""
The exchanges that send no body: DELETE, and replies that need no store.
"""

from __future__ import annotations

from kvd.http.methods.contract import Exchange, Replier
from kvd.http.site import Site
from kvd.model.operations import Delete, Tell


class DeleteExchange(Exchange):
    """
    Removes a value.
    """

    def __init__(self, operation: Delete, replier: Replier, site: Site) -> None:
        self._operation = operation
        self._replier = replier
        self._site = site

    def begin(self) -> None:
        self._replier.proceed()

    def end(self) -> None:
        self._replier.when(
            self._site.store.remove(self._operation.key, self._operation.conditions),
            lambda _: self._replier.reply(
                204, [("Kvd-Durability", self._site.store.durability)]
            ),
        )


class TellExchange(Exchange):
    """
    A reply that needs no store.
    """

    def __init__(self, operation: Tell, replier: Replier, site: Site) -> None:
        self._operation = operation
        self._replier = replier

    def begin(self) -> None:
        self._replier.proceed()

    def end(self) -> None:
        self._replier.reply(self._operation.status, list(self._operation.fields))
