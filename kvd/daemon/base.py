"""
What the supervisor and the single process have in common: the sockets, the control
socket, the status site, and the end.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred

from kvd.access.counting import clear_row, create_counting
from kvd.access.rights_file import parse_rights
from kvd.admin.control.status import WorkerState, describe
from kvd.daemon.announcing import announce, announce_status
from kvd.daemon.hangup import ignores_hangup, on_hangup
from kvd.daemon.opening import Sockets
from kvd.daemon.rotation import on_rotation
from kvd.daemon.systemd.notifying import Notifier
from kvd.dispatch.reuseport_programs import Fallback
from kvd.http.host_guard import HostGuard
from kvd.ipc.scoreboard import Scoreboard
from kvd.log.writing import write_log_later
from kvd.settings import Settings
from kvd.store.space import Space, look_at
from kvd.workers.changes import ROWS
from kvd.workers.heartbeat import ProcessState
from kvd.workers.loading import is_engine, look_at_engine
from kvd.workers.verifier import VerifierProcess

if TYPE_CHECKING:
    from kvd.admin.control.site import Change
    from kvd.daemon.bounding import Bounding
    from kvd.workers.evictor import EvictorProcess


class ServingService(Service):
    """
    The base of both services.
    """

    def __init__(
        self,
        settings: Settings,
        sockets: Sockets,
        notifier: Notifier,
        memory: int,
        bounding: Bounding | None = None,
        held: int | None = None,
    ) -> None:
        """
        Args:
            settings: All settings.
            sockets: The listening sockets; closed by `stopService`.
            notifier: Reports to the service manager.
            memory: The descriptor of the scoreboard's memory.
            bounding: What a store with limits needs; None: it has none.
            held: A descriptor of the folder that the store is in; None: it is in none.
        """
        self._held = held
        self._settings = settings
        self._notifier = notifier
        self._scoreboard_memory = memory
        self._groups = sockets.groups
        self._control = sockets.control
        self._status = sockets.status
        self._sites: list[Any] = []
        self._ignores_hangup = ignores_hangup()
        self._bounding = bounding
        self._usage = None if bounding is None else bounding.usage
        self._evictor: EvictorProcess | None = None
        # For more processes than there may ever be; what nobody writes takes no memory.
        self._counting = create_counting(ROWS)

    def startService(self) -> None:
        # Not at the top: importing the reactor installs one.
        from twisted.internet import reactor

        super().startService()
        reopen = write_log_later(reactor, self._settings.log_format)

        def rotated() -> None:
            reopen()
            self._pass_on(signal.SIGUSR1)

        on_rotation(rotated, reactor)
        self._scoreboard = Scoreboard(self._scoreboard_memory)
        self._verifier = VerifierProcess(
            reactor, hang_seconds=self._settings.hang_seconds
        )
        self._prepare_for(self._settings)

    def _prepare_for(self, settings: Settings) -> None:
        """
        Start the process that verifies passwords, if the rights file has some.
        """
        users = settings.users
        if users is not None and parse_rights(users.text, users.path).has_passwords:
            self._verifier.start()

    def _open_sites(self, reactor: Any) -> None:
        # Imported here: the workers are being started by now, and a daemon without a
        # status site need not load it.
        began = reactor.seconds()

        def status() -> dict[str, Any]:
            return describe(
                self._present(),
                self._groups,
                self._workers(),
                self._scoreboard,
                reactor.seconds() - began,
                draining=not self.running,
                members=self._members(),
                shadow=self._shadow_counts,
                fallbacks=self._fallbacks(),
                usage=() if self._bounding is None else self._bounding.described(),
                hangs=self._hangs(),
                processes=self._processes(),
            )

        if self._control is not None:
            from kvd.admin.control.site import ControlSite

            listener = self._control.members[0].dup()
            self._sites.append(
                ControlSite(listener, status, self._control_changes(), reactor)
            )
        if self._status is not None:
            from kvd.admin.status.site import StatusSite

            self._sites.append(
                StatusSite(
                    self._status,
                    status,
                    self._scoreboard.sums,
                    lambda: self._scoreboard.workers,
                    lambda: self._present().policy,
                    self._is_known,
                    reactor,
                    self._disk(),
                )
            )
            announce_status(self._status)

    def _disk(self) -> Callable[[], Space] | None:
        """
        What looks at the disk of the store, or at its engine, if there is one.
        """
        store = self._settings.store
        if self._held is None:
            return partial(look_at_engine, store) if is_engine(store.scheme) else None
        bounds = self._settings.bounds
        if bounds is None or self._settings.near is not None:
            return partial(look_at, self._held)
        return partial(look_at, self._held, bounds.min_free, bounds.quotas[0].evicts)

    def _is_known(self, host: bytes | None) -> bool:
        """
        Whether requests to the status site may name this host.
        """
        assert self._status is not None
        guard = HostGuard([self._status.address], self._settings.allowed_hosts)
        return guard.knows(host)

    def _for_serving(self, settings: Settings) -> Settings:
        """
        The settings for the serving processes: with the addresses that the sockets
        really have, where the kernel chose a port or systemd gave a socket.
        """
        return replace(settings, listen=tuple(group.address for group in self._groups))

    def _reload_on_hangup(self, reactor: Any) -> None:
        def reload() -> None:
            self._notifier.reloading()
            self._reload().addCallback(lambda _: self._report_ready(reactor))

        on_hangup(reload, self._ignores_hangup, reactor)

    def _pass_on(self, number: int) -> None:
        """
        Another process that takes the place of this one is to heed this signal too.
        """

    def _reload(self) -> Deferred[None]:
        """
        Reload the settings. The Deferred never fails.
        """
        raise NotImplementedError

    def _serves(self, reactor: Any) -> None:
        """
        Clients that connect are served from now on.
        """
        announce(self._settings, self._groups)
        self._report_ready(reactor)
        # Not before: its start takes some time of a processor.
        self._make_evictor(reactor)
        self._start_evicting()

    def _make_evictor(self, reactor: Any) -> None:
        if self._bounding is not None:
            self._evictor = self._bounding.evictor(self._settings, reactor)

    def _start_evicting(self) -> None:
        if self._evictor is not None and self.running:
            self._evictor.start()

    def _ended(self, worker: int) -> None:
        """
        The process of a worker has ended, and may have no successor.
        """
        clear_row(self._counting, worker)
        if self._bounding is not None:
            self._bounding.ended(worker)

    def _watch_others(self, hang_seconds: float) -> None:
        """
        Set how long these processes may take to say that they live.
        """
        self._verifier.watch(hang_seconds)
        if self._evictor is not None:
            self._evictor.watch(hang_seconds)

    def _end_others(self) -> None:
        """
        End the processes beside the workers, of which none runs any more.
        """
        self._verifier.stop()
        if self._evictor is not None:
            self._evictor.stop()

    def _report_ready(self, reactor: Any) -> None:
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
        The settings in force, with the changes made since the start.
        """
        return self._settings

    def _shadow_counts(self, workers: Sequence[int]) -> dict[str, Any] | None:
        return None

    def _fallbacks(self) -> Sequence[Fallback]:
        """
        The fallbacks in use where a program of the policy cannot be loaded.
        """
        return ()

    def _hangs(self) -> int:
        """
        How many workers were killed because they hung.
        """
        return 0

    def _processes(self) -> list[ProcessState]:
        """
        The processes beside the workers.
        """
        states = [self._verifier.state()]
        if self._evictor is not None:
            states.append(self._evictor.state())
        return [state for state in states if state is not None]

    def _control_changes(self) -> Mapping[str, Change]:
        return {}

    def _stop_answering(self) -> None:
        """
        Close the sites, each once: those of a daemon that was upgraded are closed long
        before it ends.
        """
        while self._sites:
            self._sites.pop().close()

    def _close_sites(self) -> None:
        self._notifier.close()
        self._stop_answering()
        for group in (self._control, self._status):
            if group is not None:
                group.close()
