"""
What a daemon has however it serves: its sockets, answers to whoever asks how it is, and
its end.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred

from kvd.admin.control.status import WorkerState, describe
from kvd.daemon.announcing import announce, announce_status
from kvd.daemon.hangup import on_hangup
from kvd.daemon.opening import Sockets
from kvd.daemon.systemd.notifying import Notifier
from kvd.dispatch.reuseport_programs import Instead
from kvd.dispatch.scoreboard import Scoreboard
from kvd.http.host_guard import HostGuard
from kvd.log.writing import write_log_later
from kvd.settings import Settings

if TYPE_CHECKING:
    from kvd.admin.control.site import Change


class ServingService(Service):
    """
    What both services have: the sockets, and the answers to whoever asks how it is.
    """

    def __init__(
        self, settings: Settings, sockets: Sockets, notifier: Notifier, memory: int
    ) -> None:
        """
        Args:
            settings: The whole of them.
            sockets: All that listen; closed in the end.
            notifier: Tells the service manager.
            memory: The descriptor of the scoreboard's.
        """
        self._settings = settings
        self._notifier = notifier
        self._scoreboard_memory = memory
        self._groups = sockets.groups
        self._control = sockets.control
        self._status = sockets.status
        self._sites: list[Any] = []

    def startService(self) -> None:
        # Not at the top: importing the reactor installs one.
        from twisted.internet import reactor

        super().startService()
        write_log_later(reactor)
        self._scoreboard = Scoreboard(self._scoreboard_memory)

    def _answer(self, reactor: Any) -> None:
        # Not at the top: workers are on their way before these are imported, and
        # not everybody wants a status site.
        began = reactor.seconds()

        def told() -> dict[str, Any]:
            return describe(
                self._present(),
                self._groups,
                self._workers(),
                self._scoreboard,
                reactor.seconds() - began,
                draining=not self.running,
                members=self._members(),
                shadow=self._shadow_counts,
                instead=self._instead(),
            )

        if self._control is not None:
            from kvd.admin.control.site import ControlSite

            listener = self._control.members[0].dup()
            self._sites.append(ControlSite(listener, told, self._changes(), reactor))
        if self._status is not None:
            from kvd.admin.status.site import StatusSite

            self._sites.append(
                StatusSite(
                    self._status,
                    told,
                    self._scoreboard.sums,
                    lambda: self._scoreboard.workers,
                    lambda: self._present().policy,
                    self._is_known,
                    reactor,
                )
            )
            announce_status(self._status)

    def _is_known(self, host: bytes | None) -> bool:
        """
        Whether the status site may be asked by a name.
        """
        assert self._status is not None
        guard = HostGuard([self._status.address], self._settings.allowed_hosts)
        return guard.knows(host)

    def _for_serving(self, settings: Settings) -> Settings:
        """
        Settings for the processes that serve: with the addresses that there are, in
        place of those whose port the kernel chose, or which systemd gave.
        """
        return replace(settings, listen=tuple(group.address for group in self._groups))

    def _read_again_on_hangup(self, reactor: Any) -> None:
        def read_again() -> None:
            self._notifier.reloading()
            self._read_again().addCallback(lambda _: self._tell_ready(reactor))

        on_hangup(read_again, reactor)

    def _read_again(self) -> Deferred[None]:
        """
        Go by the settings as they are now; the Deferred never fails.
        """
        raise NotImplementedError

    def _serves(self, reactor: Any) -> None:
        """
        Whoever connects is served from now on.
        """
        announce(self._settings, self._groups)
        self._tell_ready(reactor)

    def _tell_ready(self, reactor: Any) -> None:
        if self.running:
            addresses = ", ".join(str(group.address) for group in self._groups)
            self._notifier.ready(f"serves {addresses}", reactor)

    def stopService(self) -> Deferred[None] | None:
        self._notifier.stopping()
        super().stopService()
        return None

    def _workers(self) -> list[WorkerState]:
        raise NotImplementedError

    def _members(self) -> Sequence[Collection[int]]:
        """
        For each worker, the sockets of each address that it accepts from.
        """
        return [{0}]

    def _present(self) -> Settings:
        """
        The settings, with what has been changed since the start.
        """
        return self._settings

    def _shadow_counts(self, workers: Sequence[int]) -> dict[str, Any] | None:
        return None

    def _instead(self) -> Sequence[Instead]:
        """
        Where a program of the policy cannot be had, what chooses in its stead.
        """
        return ()

    def _changes(self) -> Mapping[str, Change]:
        return {}

    def _answer_no_more(self) -> None:
        self._notifier.close()
        for site in self._sites:
            site.close()
        for group in (self._control, self._status):
            if group is not None:
                group.close()
