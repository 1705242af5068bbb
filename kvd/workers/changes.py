"""
Changes to a running daemon: switch the policy, resize the pool, replace workers.

Only one change runs at a time; a request for another one meanwhile fails with a message
that says so. The exceptions take no time: another policy, another rights file. No
change closes a listening socket, and a worker that is to end finishes its requests
first. A change waits by polling the state it needs: workers start, leave and die in any
order, and polling needs no special case for any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from kvd.dispatch.distribution import PolicyDistribution, choose_policy, choose_shadow
from kvd.errors import ChangeImpossible, DaemonEnds, PlaceTaken
from kvd.ipc.scoreboard import Scoreboard
from kvd.settings import MAX_PROCS, RightsFile, Settings
from kvd.system.code import check_code
from kvd.workers.loading import is_engine
from kvd.workers.pool import START_SECONDS, Pool
from kvd.workers.record import State

LOOK_SECONDS: Final = 0.02

ROWS: Final = MAX_PROCS + 1
"""
Rows of the scoreboard: one more than the most workers, for the spare worker that serves
while others are replaced.
"""


class Changes:
    """
    Changes the policy and the workers of a running daemon.
    """

    _log = Logger()

    def __init__(
        self,
        pool: Pool,
        distribution: PolicyDistribution,
        scoreboard: Scoreboard,
        reactor: Any,
        settings: Settings,
        load: Callable[[Settings], None],
    ) -> None:
        """
        Args:
            pool: The workers.
            distribution: Brings connections to the workers.
            scoreboard: With `ROWS` rows.
            reactor: Provides the time.
            settings: The settings that the workers have now.
            load: Makes workers that start from now on use other settings.
        """
        self._settings = settings
        self._users = settings.users
        self._load = load
        self._pool = pool
        self._distribution = distribution
        self._scoreboard = scoreboard
        self._reactor = reactor
        self._under_way = ""
        self._handed_over = False

    @property
    def procs(self) -> int:
        """
        The wanted number of workers.
        """
        return len(self._distribution.chosen.arrangement.members)

    def policy(self, name: str) -> None:
        """
        Switch to another policy. This works while another change is under way, since
        it does not wait for anything.

        Raises:
            OperatorError: There is no such policy, or it cannot be used, or kvd is
                ending; the present policy stays in force.
        """
        self.check_going_on()
        check_code()
        before = self._distribution.chosen.name
        self._distribution.switch(choose_policy(name, self.procs))
        self._log.info(
            "policy {policy} instead of {before}",
            policy=name,
            before=before,
            happened="switch",
        )

    def shadow(self, name: str | None) -> None:
        """
        Set the shadow policy, and start its counts at zero.

        Args:
            name: The policy's name; None: no shadow.

        Raises:
            OperatorError: There is no such policy, it cannot be used, it would see
                nothing, or kvd is ending; the present shadow stays.
        """
        self.check_going_on()
        check_code()
        distribution = self._distribution
        distribution.shadow_by(
            None if name is None else choose_shadow(name, distribution.chosen)
        )
        self._log.info("shadow {shadow}", shadow=name or "off", happened="switch")

    def resize(self, procs: int) -> Deferred[None]:
        """
        Change the number of workers.

        Args:
            procs: At least 1, at most `MAX_PROCS`.

        Returns:
            Fires when the new workers are ready and the surplus ones have ended.

        Raises:
            ChangeImpossible: The number is out of range, or another change is under
                way; or, in the Deferred, a new worker does not get ready. The pool
                keeps trying to start it.
        """
        if not 1 <= procs <= MAX_PROCS:
            raise ChangeImpossible(
                f"there cannot be {procs} workers; give a number from 1 to {MAX_PROCS}"
            )
        return self._make(f"{procs} workers", lambda: self._resize(procs))

    async def _resize(self, procs: int) -> None:
        name = self._distribution.chosen.name
        chosen = choose_policy(name, procs)
        before = len(self._pool.workers)
        self._scoreboard.workers = max(before, procs)
        for number in range(procs, before):
            self._pool.scale_down(number)
        self._distribution.switch(chosen)
        for number in range(procs):
            self._pool.scale_up(number)
        for number in range(procs):
            await self._until_ready(number)
        for number in range(procs, before):
            await self._until_ended(number)
        self._scoreboard.workers = procs

    def drain(self, worker: int) -> Deferred[None]:
        """
        Replace one worker, once it has finished its requests.

        Returns:
            Fires when the new worker is ready.

        Raises:
            ChangeImpossible: As `restart`; or there is no such worker.
        """
        if not 0 <= worker < self.procs:
            raise ChangeImpossible(
                f"there is no worker {worker}; they are numbered 0 to {self.procs - 1}"
            )
        return self._make(f"drain of worker {worker}", lambda: self._replace([worker]))

    def restart(self) -> Deferred[None]:
        """
        Replace all workers, one after the other. A spare worker starts first, so that
        there are never fewer than wanted.

        Returns:
            Fires when all workers have been replaced.

        Raises:
            ChangeImpossible: As `resize`. If the spare worker does not get ready, none
                of the old workers ends.
        """
        return self._make("restart", lambda: self._replace(range(self.procs)))

    async def _replace(self, workers: Iterable[int]) -> None:
        """
        Replace some workers, with a spare one that serves meanwhile.
        """
        spare = self.procs
        self._scoreboard.workers = spare + 1
        self._pool.scale_up(spare)
        try:
            await self._until_ready(spare)
        except ChangeImpossible:
            self._pool.scale_down(spare)
            self._scoreboard.workers = spare
            raise
        for worker in workers:
            self._pool.scale_down(worker)
            await self._until_ended(worker)
            self._pool.scale_up(worker)
            # If it does not get ready, the spare worker keeps serving.
            await self._until_ready(worker)
        self._pool.scale_down(spare)
        await self._until_ended(spare)
        self._scoreboard.workers = spare

    def upgrade(
        self, hand_over: Callable[[], Coroutine[Any, Any, None]]
    ) -> Deferred[None]:
        """
        Have new code take the place of this daemon.

        Args:
            hand_over: Starts the new daemon, and lets it serve.

        Returns:
            Fires when the new daemon serves, and this one drains: it changes nothing
            more.

        Raises:
            ChangeImpossible: Another change is under way; or, in the Deferred, the new
                daemon does not serve. This one goes on.
        """
        return self._make("upgrade", lambda: self._upgrade(hand_over))

    async def _upgrade(
        self, hand_over: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        await hand_over()
        # From now on, and not only when the workers begin to end: its programs would
        # choose among sockets that are the new daemon's.
        self._handed_over = True

    def until_idle(self) -> Deferred[None]:
        """
        Wait until no change is under way.

        Raises:
            DaemonEnds: kvd is ending.
        """
        return Deferred.fromCoroutine(self._until_idle())

    async def _until_idle(self) -> None:
        while self._under_way:
            await self._look_again()

    def check_going_on(self) -> None:
        """
        Raises:
            PlaceTaken: Another process serves in the place of this one.
            DaemonEnds: kvd is ending.
        """
        if self._handed_over:
            raise PlaceTaken("another process serves in the place of this one")
        if self._pool.stopping:
            raise DaemonEnds("kvd is ending")

    def rights(self, users: RightsFile | None) -> None:
        """
        Have all workers decide by another rights file, or by none. This works while
        another change is under way, and waits for no client: what is withdrawn must not
        hold until slow clients have had their time.

        Args:
            users: Has been checked. The same as before changes nothing.

        Raises:
            ChangeImpossible: kvd is ending, or there is no room, or workers would load
                other code than theirs; nothing has changed.
        """
        self.check_going_on()
        if users == self._users:
            return
        if self._users is None:
            # Workers load what decides.
            check_code()
        try:
            self._pool.adopt_rights(users)
        except OSError as error:
            assert users is not None
            raise ChangeImpossible(
                f"workers cannot be given the rights file {users.path}:"
                f" {error.strerror}"
            ) from error
        self._users = users
        if users is None:
            self._log.warn(
                "all workers go by no rights file any more: every client may do"
                " everything",
                happened="switch",
            )
        else:
            self._log.info(
                "all workers have the rights file {path} as it is now",
                path=users.path,
                happened="switch",
            )

    def adopt(self, settings: Settings) -> Deferred[None]:
        """
        Apply new settings: their policy, their shadow and their number of workers. The
        workers are replaced if any other setting differs, or if an engine may have
        other credentials, which are no part of the settings.

        Args:
            settings: All settings; with at least one worker.

        Returns:
            Fires when the settings are applied.

        Raises:
            OperatorError: As `policy` and `restart`; if the spare worker does not get
                ready, only the policy and its shadow have changed.
        """
        check_code()
        chosen = choose_policy(settings.policy, settings.procs)
        if settings.shadow is not None:
            choose_shadow(settings.shadow, chosen)
        return self._make("settings", lambda: self._adopt(settings))

    async def _adopt(self, settings: Settings) -> None:
        if settings.policy != self._distribution.chosen.name:
            self.policy(settings.policy)
        shadow = self._distribution.shadow
        if settings.shadow != (None if shadow is None else shadow.name):
            self.shadow(settings.shadow)
        before = self._settings
        present = replace(
            before,
            policy=settings.policy,
            shadow=settings.shadow,
            procs=settings.procs,
        )
        if settings != present or _has_engine(settings):
            self._load(settings)
            try:
                await self._replace(range(self.procs))
            except ChangeImpossible:
                # Workers that die later must be replaced with settings that work.
                self._load(before)
                raise
        self._settings = settings
        if settings.procs != self.procs:
            await self._resize(settings.procs)

    # -- one at a time --------------------------------------------------------

    def _make(
        self, name: str, change: Callable[[], Coroutine[Any, Any, None]]
    ) -> Deferred[None]:
        self.check_going_on()
        if self._under_way:
            raise ChangeImpossible(
                f"another change is under way: {self._under_way}; try again when it"
                " is done"
            )
        self._under_way = name
        self._log.info("{change}: begun", change=name, happened="change")

        def ended(result: Failure | None) -> Failure | None:
            self._under_way = ""
            if result is None:
                self._log.info("{change}: done", change=name, happened="change")
            else:
                told = {
                    "change": name,
                    "reason": result.getErrorMessage(),
                    "happened": "change",
                }
                if result.check(DaemonEnds, PlaceTaken):
                    self._log.info("{change}: not done: {reason}", **told)
                else:
                    # The client that asked may have disconnected.
                    self._log.warn("{change}: not done: {reason}", **told)
            return result

        return Deferred.fromCoroutine(change()).addBoth(ended)

    async def _until_ready(self, number: int) -> None:
        record = self._pool.workers[number]
        left = START_SECONDS
        looked = self._reactor.seconds()
        while record.state is not State.READY:
            now = self._reactor.seconds()
            left -= 0.0 if self._pool.is_starting else now - looked
            looked = now
            if left < 0.0 or record.failure:
                raise ChangeImpossible(
                    f"worker {number} does not get ready"
                    + (f": {record.failure}" if record.failure else "")
                )
            await self._look_again()

    async def _until_ended(self, number: int) -> None:
        while self._pool.workers[number].state is not State.ENDED:
            await self._look_again()

    async def _look_again(self) -> None:
        await deferLater(self._reactor, LOOK_SECONDS)
        self.check_going_on()


def _has_engine(settings: Settings) -> bool:
    """
    Whether a store of the settings is an engine on other machines.
    """
    stores = (settings.store, settings.fallback_store)
    return any(store is not None and is_engine(store.scheme) for store in stores)
