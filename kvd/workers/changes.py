"""
Changes while connections are served: another policy, more or fewer workers, new ones
in the place of old ones.

One change is made at a time, but for the policy's, which takes no time; who asks for
another meanwhile is told so. None closes a listening socket, and a worker that is to
end finishes what it does. What a change waits for, it looks at again and again:
workers come, go and die in every order, and none of the orders then needs a thought
of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from kvd.dispatch.distribution import Dispatching, choose_policy, choose_shadow
from kvd.dispatch.scoreboard import Scoreboard
from kvd.errors import ChangeImpossible
from kvd.settings import MAX_PROCS, Settings
from kvd.workers.pool import START_SECONDS, Pool, State

LOOK_SECONDS: Final = 0.02

ROWS: Final = MAX_PROCS + 1
"""
Of the scoreboard: one more than there may be workers, for the one that stands in while
they are replaced.
"""


class Changing:
    """
    Makes changes.
    """

    _log = Logger()

    def __init__(
        self,
        pool: Pool,
        dispatching: Dispatching,
        scoreboard: Scoreboard,
        reactor: Any,
        settings: Settings,
        load: Callable[[Settings], None],
    ) -> None:
        """
        Args:
            pool: The workers.
            dispatching: How connections come to them.
            scoreboard: With `ROWS` rows.
            reactor: Tells the time.
            settings: Of the workers.
            load: Gives others to those that are made from now on.
        """
        self._settings = settings
        self._load = load
        self._pool = pool
        self._dispatching = dispatching
        self._scoreboard = scoreboard
        self._reactor = reactor
        self._under_way = ""

    @property
    def procs(self) -> int:
        """
        How many workers there should be.
        """
        return len(self._dispatching.chosen.arrangement.members)

    def policy(self, name: str) -> None:
        """
        Let another policy decide from now on; also while another change is under way,
        since nothing has to be waited for.

        Raises:
            OperatorError: There is no such policy, or it cannot be used, or kvd is
                ending; the present one goes on.
        """
        self._check_going_on()
        before = self._dispatching.chosen.name
        self._dispatching.switch(choose_policy(name, self.procs))
        self._log.info(
            "policy {policy} instead of {before}", policy=name, before=before
        )

    def shadow(self, name: str | None) -> None:
        """
        Let another policy look on from now on, and be counted anew.

        Args:
            name: The policy's; None: nobody looks on.

        Raises:
            OperatorError: There is no such policy, it cannot be used, it would see
                nothing, or kvd is ending; who looks on so far goes on.
        """
        self._check_going_on()
        dispatching = self._dispatching
        dispatching.shadow_by(
            None if name is None else choose_shadow(name, dispatching.chosen)
        )
        self._log.info("shadow {shadow}", shadow=name or "off")

    def resize(self, procs: int) -> Deferred[None]:
        """
        Have so many workers.

        Args:
            procs: At least 1, at most `MAX_PROCS`.

        Returns:
            Fires when those that are new are ready, and those that are too many have
            ended.

        Raises:
            ChangeImpossible: There cannot be so many, or another change is under way;
                or, in the Deferred, a new worker does not get ready. The pool goes on
                trying.
        """
        if not 1 <= procs <= MAX_PROCS:
            raise ChangeImpossible(
                f"there cannot be {procs} workers; give a number from 1 to {MAX_PROCS}"
            )
        return self._make(f"{procs} workers", lambda: self._resize(procs))

    async def _resize(self, procs: int) -> None:
        name = self._dispatching.chosen.name
        chosen = choose_policy(name, procs)
        before = len(self._pool.slots)
        self._scoreboard.workers = max(before, procs)
        for number in range(procs, before):
            self._pool.scale_down(number)
        self._dispatching.switch(chosen)
        for number in range(procs):
            self._pool.scale_up(number)
        for number in range(procs):
            await self._until_ready(number)
        for number in range(procs, before):
            await self._until_ended(number)
        self._scoreboard.workers = procs

    def drain(self, worker: int) -> Deferred[None]:
        """
        Let a worker finish what it does, and have a new one in its place.

        Returns:
            Fires when the new one is ready.

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
        Replace all workers, one after the other. One more than wanted is started
        first, so that there are never fewer.

        Returns:
            Fires when all are new.

        Raises:
            ChangeImpossible: As `resize`. If the first new worker does not get ready,
                none of the old ones ends.
        """
        return self._make("restart", lambda: self._replace(range(self.procs)))

    async def _replace(self, workers: Iterable[int]) -> None:
        """
        Replace some, with one more that stands in meanwhile.
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
            # Should it not get ready, the spare one goes on in its stead.
            await self._until_ready(worker)
        self._pool.scale_down(spare)
        await self._until_ended(spare)
        self._scoreboard.workers = spare

    def adopt(self, settings: Settings) -> Deferred[None]:
        """
        Do as other settings say: have their policy and its shadow, as many workers,
        and new workers, if it makes any difference to them.

        Args:
            settings: With at least one worker.

        Returns:
            Fires when that is done.

        Raises:
            OperatorError: As `policy` and `restart`; if the first new worker does not
                get ready, nothing but the policy and its shadow has changed.
        """
        chosen = choose_policy(settings.policy, settings.procs)
        if settings.shadow is not None:
            choose_shadow(settings.shadow, chosen)
        return self._make("settings", lambda: self._adopt(settings))

    async def _adopt(self, settings: Settings) -> None:
        if settings.policy != self._dispatching.chosen.name:
            self.policy(settings.policy)
        shadow = self._dispatching.shadow
        if settings.shadow != (None if shadow is None else shadow.name):
            self.shadow(settings.shadow)
        before = self._settings
        if settings != replace(
            before,
            policy=settings.policy,
            shadow=settings.shadow,
            procs=settings.procs,
        ):
            self._load(settings)
            try:
                await self._replace(range(self.procs))
            except ChangeImpossible:
                # Those that die meanwhile are replaced by what is known to work.
                self._load(before)
                raise
        self._settings = settings
        if settings.procs != self.procs:
            await self._resize(settings.procs)

    # -- one at a time --------------------------------------------------------

    def _make(
        self, name: str, change: Callable[[], Coroutine[Any, Any, None]]
    ) -> Deferred[None]:
        self._check_going_on()
        if self._under_way:
            raise ChangeImpossible(
                f"another change is under way: {self._under_way}; try again when it"
                " is done"
            )
        self._under_way = name
        self._log.info("{change}: begun", change=name)

        def ended(result: Failure | None) -> Failure | None:
            self._under_way = ""
            if result is None:
                self._log.info("{change}: done", change=name)
            else:
                # Who asked may have left meanwhile.
                self._log.warn(
                    "{change}: not done: {reason}",
                    change=name,
                    reason=result.getErrorMessage(),
                )
            return result

        return Deferred.fromCoroutine(change()).addBoth(ended)

    async def _until_ready(self, number: int) -> None:
        slot = self._pool.slots[number]
        last = self._reactor.seconds() + START_SECONDS
        while slot.state is not State.READY:
            if self._reactor.seconds() > last or slot.failure:
                raise ChangeImpossible(
                    f"worker {number} does not get ready"
                    + (f": {slot.failure}" if slot.failure else "")
                )
            await self._look_again()

    async def _until_ended(self, number: int) -> None:
        while self._pool.slots[number].state is not State.ENDED:
            await self._look_again()

    async def _look_again(self) -> None:
        await deferLater(self._reactor, LOOK_SECONDS)
        self._check_going_on()

    def _check_going_on(self) -> None:
        if self._pool.stopping:
            raise ChangeImpossible("kvd is ending")
