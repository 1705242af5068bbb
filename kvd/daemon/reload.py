"""
Reloading the settings while kvd serves, on SIGHUP.

All settings are checked before any of them changes. They are applied when no other
change is under way; of several reloads that wait for that, the last one is. Changes
made by command meanwhile (``kvd policy``, ``kvd shadow``, ``kvd procs``) are undone:
the settings file rules.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from kvd.errors import DaemonEnds, OperatorError, PlaceTaken
from kvd.net.credentials import credentials_of
from kvd.settings import TLS, Address, Settings, SystemdAddress, UNIXAddress
from kvd.workers.changes import Changes

FIXED: Final = (
    *("listen", "status", "control", "store", "fallback_store", "near"),
    *("max_size", "min_free", "full", "ttl_seconds", "quotas"),
)
"""
What cannot change: clients connect to the addresses, two workers must not serve
different stores, and all count in one memory what the store takes.
"""


_SOME_FILES: Final = TLS("", "")


class Reload:
    """
    Reads the settings again and applies what changed.
    """

    _log = Logger()

    def __init__(
        self,
        settings: Settings,
        read: Callable[[], Settings],
        check: Callable[[Settings], Deferred[None]],
        changes: Changes,
    ) -> None:
        """
        Args:
            settings: The settings at the start.
            read: Reads the settings file and the command line again.
            check: Checks that the files they name can be written; may take a while.
            changes: Makes the changes.
        """
        self._settings = settings
        self._read = read
        self._check = check
        self._changes = changes
        self._count = 0

    def start(self) -> Deferred[None]:
        """
        Reload.

        Returns:
            Fires when the changes are made, or when the log says why they are not.
        """
        return maybeDeferred(self._begin).addErrback(self._refused)

    def _begin(self) -> Deferred[None]:
        new = self._without_fixed(self._read())
        self._count += 1
        return self._check(new).addCallback(self._await_turn, new, self._count)

    def _await_turn(self, _: None, new: Settings, number: int) -> Deferred[None]:
        if number == self._count:
            self._changes.rights(new.users)
        # Nobody who sends a signal learns that it came too early.
        idle = self._changes.until_idle()
        return idle.addCallback(self._adopt, new, number)

    def _adopt(self, _: None, new: Settings, number: int) -> Deferred[None] | None:
        # Otherwise a later reload has overtaken this one.
        return self._changes.adopt(new) if number == self._count else None

    def _without_fixed(self, new: Settings) -> Settings:
        for name in FIXED:
            if getattr(new, name) != getattr(self._settings, name):
                if name == "listen" and _plain(new) == _plain(self._settings):
                    self._log.warn(
                        "listen names other files for TLS, which cannot change while"
                        " kvd runs: those that it named at the start were read again;"
                        " put the new contents there, or restart kvd"
                    )
                else:
                    self._log.warn(
                        "{name} cannot change while kvd runs: it stays as it is until"
                        " kvd is restarted",
                        name=name,
                    )
                new = replace(new, **{name: getattr(self._settings, name)})
                if name == "listen":
                    new = replace(new, credentials=credentials_of(new.listen))
        if not new.procs:
            self._log.warn(
                "procs cannot become 0 while kvd runs: there are still {procs} workers",
                procs=self._changes.procs,
            )
            new = replace(new, procs=self._changes.procs)
        return new

    def _refused(self, failure: Failure) -> None:
        if failure.check(DaemonEnds, PlaceTaken):
            self._log.info(
                "the settings are not applied here: {reason}",
                reason=failure.getErrorMessage(),
            )
        elif failure.check(OperatorError):
            self._log.error(
                "the settings were read again but not applied: {reason}",
                reason=failure.getErrorMessage(),
                happened="change",
            )
        else:
            self._log.failure("the settings cannot be read again", failure=failure)


def _plain(settings: Settings) -> list[Address | SystemdAddress]:
    """
    The addresses, whatever their files are.
    """
    return [
        address
        if isinstance(address, UNIXAddress) or address.tls is None
        else replace(address, tls=_SOME_FILES)
        for address in settings.listen
    ]
