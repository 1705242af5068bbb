"""
Reading the settings again while kvd serves: what SIGHUP asks for.

What was written is checked whole before anything changes. What was changed by hand
meanwhile (``kvd policy``, ``kvd shadow``, ``kvd procs``) becomes again what is written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from kvd.errors import OperatorError
from kvd.settings import Settings
from kvd.workers.changes import Changing

FIXED: Final = ("listen", "status", "control", "store")
"""
What cannot change: somebody comes there, and no two workers may serve different values.
"""


class Rereading:
    """
    Reads the settings again, and has changed what they say.
    """

    _log = Logger()

    def __init__(
        self,
        settings: Settings,
        read: Callable[[], Settings],
        check: Callable[[Settings], Deferred[None]],
        changing: Changing,
    ) -> None:
        """
        Args:
            settings: As they were read at the start.
            read: Reads them.
            check: Sees whether what they name can be written, which may take some time.
            changing: Makes the changes.
        """
        self._settings = settings
        self._read = read
        self._check = check
        self._changing = changing
        self._count = 0

    def read_again(self) -> Deferred[None]:
        """
        Returns:
            Fires when all is done, or said in the log.
        """
        return maybeDeferred(self._begin).addErrback(self._refused)

    def _begin(self) -> Deferred[None]:
        new = self._as_far_as_possible(self._read())
        self._count += 1
        return self._check(new).addCallback(self._adopt, new, self._count)

    def _adopt(self, _: None, new: Settings, number: int) -> Deferred[None] | None:
        # Else they have been read again meanwhile, and are older.
        return self._changing.adopt(new) if number == self._count else None

    def _as_far_as_possible(self, new: Settings) -> Settings:
        for name in FIXED:
            if getattr(new, name) != getattr(self._settings, name):
                self._log.warn(
                    "{name} cannot change while kvd runs, and stays as it is until kvd"
                    " is started anew",
                    name=name,
                )
                new = replace(new, **{name: getattr(self._settings, name)})
        if not new.procs:
            self._log.warn(
                "workers cannot be left out while kvd runs; there stay {procs}",
                procs=self._changing.procs,
            )
            new = replace(new, procs=self._changing.procs)
        return new

    def _refused(self, failure: Failure) -> None:
        if failure.check(OperatorError):
            self._log.error(
                "the settings were read again, and not followed: {reason}",
                reason=failure.getErrorMessage(),
            )
        else:
            self._log.failure("the settings cannot be read again", failure=failure)
