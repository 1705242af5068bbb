"""
The supervisor: holds the sockets and the workers, and never touches a request.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from kvd.admin.control.changes import changes_by
from kvd.admin.control.status import WorkerState
from kvd.daemon.base import ServingService
from kvd.daemon.opening import Sockets
from kvd.daemon.reload import Reload
from kvd.daemon.systemd.notifying import Notifier
from kvd.daemon.written_files import check_off_reactor
from kvd.dispatch.arrangement import ChosenPolicy
from kvd.dispatch.distribution import PolicyDistribution
from kvd.dispatch.reuseport_programs import Fallback, ReuseportPrograms
from kvd.net.credentials import warn_of_dates
from kvd.settings import Settings
from kvd.system.signals import end_once
from kvd.workers.changes import Changes
from kvd.workers.pool import Pool, State
from kvd.workers.process import ForkServerProcess

if TYPE_CHECKING:
    from kvd.admin.control.site import Change
    from kvd.daemon.bounding import Bounding


class SupervisorService(ServingService):
    """
    Serves through worker processes.
    """

    def __init__(
        self,
        settings: Settings,
        sockets: Sockets,
        notifier: Notifier,
        memory: int,
        bounding: Bounding | None,
        programs: ReuseportPrograms,
        chosen: ChosenPolicy,
        shadow: ChosenPolicy | None,
        read: Callable[[], Settings],
        held: int | None = None,
    ) -> None:
        super().__init__(settings, sockets, notifier, memory, bounding)
        self._programs = programs
        self._chosen = chosen
        self._read = read
        self._held = held
        self._shadow = shadow

    def startService(self) -> None:
        # Not at the top: importing the reactor installs one.
        from twisted.internet import reactor

        super().startService()
        settings = self._settings
        self._forks = ForkServerProcess(
            self._for_serving(settings),
            self._scoreboard_memory,
            self._counting,
            reactor,
            held=self._held,
            usage=self._usage,
        )
        self._distribution = PolicyDistribution(
            self._chosen,
            self._groups,
            self._programs,
            self._scoreboard,
            settings.limits.connections,
            reactor,
            self._shadow,
            settings.hang_seconds,
        )
        self._pool = Pool(
            settings,
            self._distribution,
            self._forks,
            reactor,
            lambda: self._serves(reactor),
            self._ended,
        )
        self._distribution.hung = self._pool.replace_hung
        self._changes = Changes(
            self._pool,
            self._distribution,
            self._scoreboard,
            reactor,
            settings,
            self._load,
        )
        self._reloading = Reload(
            settings,
            self._read,
            lambda new: check_off_reactor(new, reactor),
            self._changes,
        )
        self._forks.start(self._pool)
        self._pool.start()
        end_once(reactor)
        self._reload_on_hangup(reactor)
        self._open_sites(reactor)

    def _load(self, settings: Settings) -> None:
        if settings.credentials:
            warn_of_dates(settings.credentials)
        self._settings = settings
        self._forks.load(self._for_serving(settings))
        self._pool.drain_seconds = settings.drain_seconds
        self._distribution.limit(settings.limits.connections)
        self._distribution.hang_seconds = settings.hang_seconds

    def _reload(self) -> Deferred[None]:
        return self._reloading.start()

    def _workers(self) -> list[WorkerState]:
        stalled = self._distribution.stalled
        return [
            WorkerState(
                record.number,
                record.pid,
                "stalled" if record.number in stalled else record.state.value,
                self._distribution.handing_over(record.number),
            )
            for record in self._pool.workers
            if record.wanted or record.state is not State.ENDED
        ]

    def _members(self) -> Sequence[Collection[int]]:
        arrangement = self._distribution.chosen.arrangement
        return arrangement.members if arrangement.kernel_chooses else ()

    def _present(self) -> Settings:
        shadow = self._distribution.shadow
        return replace(
            self._settings,
            policy=self._distribution.chosen.name,
            procs=self._changes.procs,
            shadow=None if shadow is None else shadow.name,
        )

    def _shadow_counts(self, workers: Sequence[int]) -> dict[str, Any] | None:
        return self._distribution.shadow_counts(workers)

    def _fallbacks(self) -> Sequence[Fallback]:
        return self._distribution.fallbacks

    def _hangs(self) -> int:
        return self._pool.hangs

    def _control_changes(self) -> Mapping[str, Change]:
        return changes_by(self._changes)

    def stopService(self) -> Deferred[None]:
        super().stopService()
        stopped = self._pool.stop()

        def end(_: None) -> None:
            self._forks.stop()
            self._stop_evicting()
            self._close_sites()

        return stopped.addCallback(end)
