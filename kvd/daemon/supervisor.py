"""
The supervisor: holds the sockets and the workers, and never touches a request.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from kvd.admin.control.changes import changes_by
from kvd.admin.control.status import WorkerState
from kvd.daemon.announcing import announce
from kvd.daemon.base import ServingService
from kvd.daemon.opening import Sockets
from kvd.daemon.reload import Reload
from kvd.daemon.systemd.notifying import Notifier
from kvd.daemon.upgrade.foreground import Foreground
from kvd.daemon.upgrade.manifest import make_manifest
from kvd.daemon.upgrade.origin import Origin
from kvd.daemon.upgrade.stand_in import report_pid
from kvd.daemon.upgrade.successor import Successor
from kvd.daemon.written_files import check_off_reactor
from kvd.dispatch.arrangement import ChosenPolicy
from kvd.dispatch.distribution import PolicyDistribution
from kvd.dispatch.reuseport_programs import Fallback, ReuseportPrograms
from kvd.errors import DaemonEnds
from kvd.net.credentials import warn_of_dates
from kvd.settings import Settings
from kvd.system.signals import end_once, stop
from kvd.workers.changes import Changes
from kvd.workers.distribution import Distribution, NoDistribution
from kvd.workers.heartbeat import ProcessState
from kvd.workers.pool import Pool
from kvd.workers.process import ForkServerProcess
from kvd.workers.record import State

if TYPE_CHECKING:
    from kvd.admin.control.site import Change
    from kvd.daemon.bounding import Bounding
    from kvd.daemon.upgrade.predecessor import Predecessor


class SupervisorService(ServingService):
    """
    Serves through worker processes.
    """

    _log = Logger()

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
        origin: Origin,
        held: int | None = None,
        predecessor: Predecessor | None = None,
    ) -> None:
        super().__init__(settings, sockets, notifier, memory, bounding, held)
        self._origin = origin
        self._predecessor = predecessor
        self._stand_in = None
        if predecessor is not None:
            self._stand_in = predecessor.manifest.stand_in
            self._ignores_hangup = predecessor.manifest.ignores_hangup
        self._programs = programs
        self._chosen = chosen
        self._read = read
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
            self._verifier.asking.fileno(),
            reactor,
            held=self._held,
            usage=self._usage,
        )
        if self._predecessor is None:
            distribution: Distribution = self._distribute(reactor)
            serving: Callable[[], None] = partial(self._serves, reactor)
        else:
            # The workers get ready, and accept nothing.
            distribution = NoDistribution()
            serving = self._get_ready
        self._pool = Pool(
            settings,
            distribution,
            self._forks,
            reactor,
            serving,
            self._ended,
            (self._counting, self._verifier.asking.fileno()),
        )
        self._forks.start(self._pool)
        self._pool.start()
        self._is_asked_to_end = end_once(reactor)
        if self._predecessor is None:
            self._heed_settings(reactor)
            self._open_sites(reactor)
        else:
            taking = self._take_over(self._predecessor, reactor)
            Deferred.fromCoroutine(taking).addErrback(self._failed, reactor)

    def _distribute(self, reactor: Any) -> PolicyDistribution:
        self._distribution = PolicyDistribution(
            self._chosen,
            self._groups,
            self._programs,
            self._scoreboard,
            self._settings.limits.connections,
            reactor,
            self._shadow,
            self._settings.hang_seconds,
        )
        self._distribution.hung = lambda worker, seconds: self._pool.replace_hung(
            worker, seconds
        )
        return self._distribution

    def _heed_settings(self, reactor: Any) -> None:
        """
        Heed the settings file from now on.
        """
        settings = self._settings
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
        self._reload_on_hangup(reactor)

    # -- in the place of another daemon -----------------------------------------------

    _is_ready = False

    def _get_ready(self) -> None:
        self._is_ready = True

    async def _take_over(self, predecessor: Predecessor, reactor: Any) -> None:
        # The settings have been read already.
        signal.signal(signal.SIGHUP, lambda number, _: predecessor.remember(number))
        allowed = await predecessor.allowed(
            lambda: self._is_ready, lambda: self._pool.failure, reactor
        )
        if not (allowed and self.running):
            self._end(reactor)
            return
        predecessor.own_sockets()
        if self._bounding is not None and predecessor.totals:
            self._bounding.estimate(predecessor.totals)
        self._origin.write_pid_file()
        if self._stand_in is not None:
            report_pid(self._stand_in)
        self._pool.distribute_by(self._distribute(reactor))
        self._heed_settings(reactor)
        announce(self._settings, self._groups)
        # Whatever may fail has to do so now, while the old one goes on.
        self._open_sites(reactor)
        for site in self._sites:
            site.answering.pause()
        self._make_evictor(reactor)
        if not await predecessor.accepts_no_more(self._is_asked_to_end, reactor):
            # The old one has it again.
            self._origin.leave_pid_file()
            self._end(reactor)
            return
        predecessor.own_files()
        # Those of the old one may be there, as where a worker of its has hung since.
        self._attach_again()
        # Not before: an upgrade of this daemon could end it while the old one is about
        # to leave its place to it.
        for site in self._sites:
            site.answering.resume()
        # Not before: the service manager ignores other processes than the main one.
        self._report_ready(reactor)
        self._start_evicting()
        await predecessor.ended(signal.raise_signal, reactor)

    def _failed(self, failure: Failure, reactor: Any) -> None:
        self._log.failure("kvd cannot take the place of another one", failure=failure)
        self._end(reactor)

    def _end(self, reactor: Any) -> None:
        # A signal has its own way to stop the reactor, which can be stopped only once.
        if not self._is_asked_to_end():
            stop(reactor)

    # -- another daemon in its place --------------------------------------------------

    _starting: Successor | None = None
    _successor: Successor | None = None

    async def _upgrade(self, reactor: Any) -> None:
        environment = self._notifier.environment
        successor = Successor(
            self._origin.command,
            self._origin.folder,
            {**os.environ, **environment},
            reactor,
        )
        foreground = None
        self._starting = successor
        with ExitStack() as undo:
            undo.callback(successor.abandon)
            if self._origin.in_foreground and not environment and not self._stand_in:
                foreground = Foreground()
                undo.callback(foreground.close)
            manifest = make_manifest(
                self._settings,
                Sockets(self._groups, self._control, self._status),
                None if self._bounding is None else self._bounding.totals,
                self._stand_in if foreground is None else foreground.write,
                self._ignores_hangup,
            )
            successor.start(manifest)
            await successor.until("ready", self._check_going_on)
            bounding = self._bounding
            undo.callback(self._take_back)
            successor.take([] if bounding is None else bounding.totals_now())
            await successor.until("serves", self._check_going_on)
            # Else the new daemon would go on, of which whoever sent the signal knows
            # nothing.
            self._check_going_on()
            undo.pop_all()
        self._starting = None
        self._hand_on(successor, foreground, reactor)

    def _check_going_on(self) -> None:
        """
        Raises:
            DaemonEnds: kvd is ending, or has been asked to.
        """
        if self._is_asked_to_end():
            raise DaemonEnds("kvd is ending")
        self._changes.check_going_on()

    def _take_back(self) -> None:
        """
        The new daemon may have served for a moment, and this one goes on.
        """
        self._origin.write_pid_file()
        if self._stand_in is not None:
            report_pid(self._stand_in)
        self._attach_again()

    def _attach_again(self) -> None:
        """
        Another daemon may have attached its programs to the sockets since this one did.
        """
        if self.running:
            self._distribution.switch(self._distribution.chosen)

    def _hand_on(
        self, successor: Successor, foreground: Foreground | None, reactor: Any
    ) -> None:
        """
        The new daemon serves. Accept nothing more, and end.
        """
        for group in (*self._groups, self._control, self._status):
            if group is not None:
                group.give_away()
        self._stop_answering()
        self._programs.leave()
        self._notifier.hand_on(successor.pid)
        if self._evictor is not None:
            # Now, since the last request may take long, and only one process at a time
            # makes room.
            self._evictor.leave()
        successor.confirm()
        self._successor = successor
        self._origin.leave_pid_file()
        if foreground is not None:
            foreground.keep(successor.pid)
        if self._is_asked_to_end():
            # Just now: it is the other one that was meant.
            successor.pass_on(signal.SIGTERM)
        self._log.info(
            "process {pid} serves in the place of this one, which finishes the requests"
            " that it has",
            pid=successor.pid,
        )
        # The reply to who asked for it goes first.
        reactor.callLater(0, stop, reactor)

    def _load(self, settings: Settings) -> None:
        if settings.credentials:
            warn_of_dates(settings.credentials)
        self._settings = settings
        self._prepare_for(settings)
        self._forks.load(self._for_serving(settings))
        self._pool.drain_seconds = settings.drain_seconds
        self._distribution.limit(settings.limits.connections)
        self._distribution.hang_seconds = settings.hang_seconds
        self._watch_others(settings.hang_seconds)

    def _pass_on(self, number: int) -> None:
        successor = self._successor or self._starting
        if successor is not None:
            successor.pass_on(number)

    def _reload(self) -> Deferred[None]:
        self._pass_on(signal.SIGHUP)
        if self._successor is not None:
            return succeed(None)
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

    def _processes(self) -> list[ProcessState]:
        return [self._forks.state(), *super()._processes()]

    def _control_changes(self) -> Mapping[str, Change]:
        # Not at the top: importing the reactor installs one.
        from twisted.internet import reactor

        return {
            **changes_by(self._changes),
            "upgrade": lambda arguments: self._changes.upgrade(
                lambda: self._upgrade(reactor)
            ),
        }

    def stopService(self) -> Deferred[None]:
        super().stopService()
        if self._starting is not None:
            # At once: workers may end sooner than the upgrade looks again, and a
            # successor that sees this process end takes its place.
            self._starting.abandon()
        stopped = self._pool.stop()

        def end(_: None) -> None:
            self._forks.stop()
            self._end_others()
            self._close_sites()

        return stopped.addCallback(end)
