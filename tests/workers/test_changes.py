"""
Tests for `kvd.workers.changes`: the test plays the workers.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from unittest import mock

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, capturedLogs

from kvd.dispatch.arrangement import Arrangement
from kvd.dispatch.distribution import PolicyDistribution, choose_policy
from kvd.dispatch.policies.reuseport import ReusePort
from kvd.dispatch.policies.roundrobin import RoundRobin
from kvd.dispatch.reuseport_programs import ReuseportPrograms
from kvd.errors import (
    BadSetting,
    BrokenPlugin,
    ChangeImpossible,
    OperatorError,
    PlaceTaken,
    UnknownPlugin,
)
from kvd.ipc.messages import Credits, Drain, Failed, Listen, Rights, Unlisten
from kvd.ipc.scoreboard import Scoreboard, create_scoreboard
from kvd.settings import MAX_PROCS, RightsFile, Settings, StoreLocation
from kvd.workers import changes
from kvd.workers.changes import LOOK_SECONDS, Changes
from kvd.workers.distribution import Distribution
from kvd.workers.endings import END_SECONDS
from kvd.workers.pool import START_SECONDS
from kvd.workers.record import State
from tests.workers.test_pool import PoolCase

DRAIN = Drain(5.0, others_serve=True)
SETTINGS = Settings(policy="reuseport", procs=3)


class ChangesCase(PoolCase):
    """
    Three workers of policy ``reuseport``, all ready.
    """

    def setUp(self) -> None:
        super().setUp()
        self.loaded: list[Settings] = []
        self.changes = Changes(
            self.pool,
            self.distribution,
            self.scoreboard,
            self.reactor,
            SETTINGS,
            self.loaded.append,
        )
        self.ready(0, 1, 2)
        for number in range(3):
            self.received(number)
        self.least_ready = 3

    def make_distribution(self, arranged: Arrangement) -> Distribution:
        """
        By a policy that can be changed.
        """
        memory = create_scoreboard(self.procs, 8)
        self.addCleanup(os.close, memory)
        self.scoreboard = Scoreboard(memory)
        self.distribution = PolicyDistribution(
            choose_policy("reuseport", self.procs),
            self.groups,
            ReuseportPrograms(self.groups, memory),
            self.scoreboard,
            1000,
            self.reactor,
        )
        self.addCleanup(self.distribution.close)
        self.addCleanup(self.distribution.finish)
        return self.distribution

    def begin(self, change: Callable[[], Deferred[None]]) -> list[str]:
        """
        Begin a change; the list gets an entry when it ends, with the reason why
        it was not done.
        """
        ended: list[str] = []
        change().addCallbacks(
            lambda _: ended.append(""),
            lambda failure: ended.append(failure.value.sentence),
        )
        self.look()
        return ended

    def look(self) -> None:
        """
        Let the change see what has come.
        """
        self.reactor.settle()
        self.reactor.advance(LOOK_SECONDS)

    def be_ready(self, number: int) -> None:
        """
        A worker is, and that is seen.
        """
        self.ready(number)
        self.look()

    def leave(self, number: int) -> None:
        """
        A worker that got `Drain` has drained, and that is seen.
        """
        assert DRAIN in self.received(number)
        self.least_ready = min(self.least_ready, self.count_ready())
        self.last(number).end()
        self.look()

    def count_ready(self) -> int:
        """
        How many workers are.
        """
        return sum(record.state is State.READY for record in self.pool.workers)

    def there(self) -> list[int]:
        """
        The numbers of the workers that have processes, or will.
        """
        return [record.number for record in self.pool.workers if record.wanted]


class PolicyTests(ChangesCase):
    """
    Another policy decides.
    """

    def test_workers_leave_their_sockets_and_get_them_back(self) -> None:
        """
        The supervisor accepts in between.
        """
        self.changes.policy("roundrobin")
        assert "roundrobin" == self.distribution.chosen.name
        for number in range(3):
            assert [Unlisten(f"0/{number}")] == self.received(number)

        self.changes.policy("reuseport")
        for number in range(3):
            assert [Listen(f"0/{number}")] == self.received(number)

    def test_what_cannot_be_used_leaves_the_present_one(self) -> None:
        """
        And nobody hears of it.
        """

        def fail(self: RoundRobin, workers: int) -> int:
            raise KeyError("missing")

        self.patch(RoundRobin, "group_size", fail)
        for name, kind in [("fair", UnknownPlugin), ("roundrobin", BrokenPlugin)]:
            with pytest.raises(kind):
                self.changes.policy(name)

        assert "reuseport" == self.distribution.chosen.name
        assert [] == self.received(0) + self.received(1) + self.received(2)

    def test_it_is_done_while_another_change_is_under_way(self) -> None:
        """
        That one goes on.
        """
        ended = self.begin(lambda: self.changes.resize(4))
        self.changes.policy("roundrobin")
        assert 4 == self.changes.procs

        self.be_ready(3)
        assert [""] == ended
        assert not any(isinstance(message, Listen) for message in self.received(3))


class ResizeTests(ChangesCase):
    """
    More or fewer workers.
    """

    def test_more(self) -> None:
        """
        It is done when all are ready, each with its own socket.
        """
        ended = self.begin(lambda: self.changes.resize(5))
        self.be_ready(4)
        assert [] == ended
        self.be_ready(3)

        assert [""] == ended
        assert 5 == self.changes.procs == self.scoreboard.workers
        assert 5 == len(self.groups[0].members)
        assert Listen("0/3") in self.received(3)

    def test_fewer(self) -> None:
        """
        It is done when they have finished; others look after their sockets.
        """
        ended = self.begin(lambda: self.changes.resize(1))
        self.leave(2)
        assert [] == ended
        self.leave(1)

        assert [""] == ended
        assert [0] == self.there()
        assert 1 == self.scoreboard.workers
        assert [Listen("0/1"), Listen("0/2")] == self.received(0)

    def test_again_and_again(self) -> None:
        """
        Places and sockets are used anew.
        """
        for _ in range(3):
            fewer = self.begin(lambda: self.changes.resize(2))
            self.leave(2)
            more = self.begin(lambda: self.changes.resize(3))
            self.be_ready(2)
            assert [""] == fewer == more
            self.received(0), self.received(1)

        assert 3 == len(self.groups[0].members)
        assert Listen("0/2") in self.received(2)

    def test_one_that_does_not_get_ready_is_reported(self) -> None:
        """
        And goes on trying, until fewer are wanted.
        """
        ended = self.begin(lambda: self.changes.resize(4))
        self.last(3).say(Failed("the store is gone"))
        self.look()
        assert ["worker 3 does not get ready: the store is gone"] == ended
        assert [0, 1, 2, 3] == self.there()

        self.last(3).end()
        ended = self.begin(lambda: self.changes.resize(3))
        assert [0, 1, 2] == self.there()
        assert [""] == ended
        assert 3 == self.scoreboard.workers

    def test_the_same_number_is_done_at_once(self) -> None:
        """
        Nothing has to change.
        """
        assert [""] == self.begin(lambda: self.changes.resize(3))
        assert [] == self.received(0)

    def test_what_cannot_be_is_refused(self) -> None:
        """
        Before anything is done, and with what would be right.
        """
        for procs in (0, -1, MAX_PROCS + 1):
            with pytest.raises(ChangeImpossible, match="from 1 to 4096"):
                self.changes.resize(procs)

        assert [0, 1, 2] == self.there()

    def test_there_are_as_many_as_can_be(self) -> None:
        """
        The last number is right, and the next is not.
        """
        self.patch(changes, "MAX_PROCS", 4)
        with pytest.raises(ChangeImpossible, match="from 1 to 4"):
            self.changes.resize(5)
        ended = self.begin(lambda: self.changes.resize(4))
        self.be_ready(3)

        assert [""] == ended

    def test_a_policy_that_cannot_do_with_so_many_is_refused(self) -> None:
        """
        All stays as it is.
        """

        def few(self: ReusePort, workers: int) -> int:
            return workers if workers < 4 else 0

        self.patch(ReusePort, "group_size", few)
        (reason,) = self.begin(lambda: self.changes.resize(4))

        assert "wants 0 of them" in reason
        assert [0, 1, 2] == self.there()
        assert 3 == self.changes.procs == self.scoreboard.workers


class DrainTests(ChangesCase):
    """
    One worker is replaced.
    """

    def test_one_more_serves_meanwhile(self) -> None:
        """
        It leaves when the new one is ready.
        """
        ended = self.begin(lambda: self.changes.drain(1))
        assert [] == self.received(1)
        self.be_ready(3)
        self.leave(1)
        self.be_ready(1)
        self.leave(3)

        assert [""] == ended
        assert 3 == self.least_ready
        assert [0, 1, 2] == self.there()
        assert 3 == self.scoreboard.workers

    def test_one_that_is_not_there_is_refused(self) -> None:
        """
        With those that are.
        """
        for worker in (-1, 3):
            with pytest.raises(ChangeImpossible, match="numbered 0 to 2"):
                self.changes.drain(worker)

    def test_one_that_receives_nothing_holds_up_nothing_for_long(self) -> None:
        """
        It is killed.
        """
        ended = self.begin(lambda: self.changes.drain(1))
        self.be_ready(3)
        self.reactor.advance(5 + END_SECONDS)
        self.look()
        self.be_ready(1)
        self.leave(3)

        assert [""] == ended


class RestartTests(ChangesCase):
    """
    All workers are replaced.
    """

    def test_there_are_never_fewer(self) -> None:
        """
        One after the other.
        """
        before = [self.last(number) for number in range(3)]
        ended = self.begin(self.changes.restart)
        self.be_ready(3)
        for number in range(3):
            self.leave(number)
            self.be_ready(number)
        assert [] == ended
        self.leave(3)

        assert [""] == ended
        assert 3 == self.least_ready == self.count_ready() == self.scoreboard.workers
        assert not any(self.last(number) in before for number in range(3))

    def test_if_the_first_new_one_fails_no_old_one_ends(self) -> None:
        """
        The reason is logged; and the next try begins anew.
        """
        ended = self.begin(self.changes.restart)
        self.last(3).say(Failed("the store is gone"))
        self.look()
        assert ["worker 3 does not get ready: the store is gone"] == ended
        self.last(3).end()
        self.look()
        assert [0, 1, 2] == self.there()
        assert 3 == self.count_ready() == self.scoreboard.workers
        assert [] == self.received(0) + self.received(1) + self.received(2)

        ended = self.begin(self.changes.restart)
        assert [] == ended
        self.be_ready(3)
        assert DRAIN in self.received(0)

    def test_one_that_never_gets_ready_is_not_waited_for(self) -> None:
        """
        For ever.
        """
        ended = self.begin(self.changes.restart)
        self.reactor.advance(START_SECONDS)
        self.look()

        assert ["worker 3 does not get ready"] == ended
        assert [0, 1, 2] == self.there()

    def test_the_start_of_the_fork_server_is_waited_for(self) -> None:
        """
        Other settings need another one, and on a machine that is very busy its imports
        take long.
        """
        ended = self.begin(self.changes.restart)
        self.forks.is_starting = True
        self.reactor.advance(10 * START_SECONDS)
        self.look()
        self.forks.is_starting = False
        self.reactor.advance(START_SECONDS / 2)
        self.look()
        assert [] == ended

        self.be_ready(3)
        assert DRAIN in self.received(0)

    def test_if_a_replacement_fails_the_spare_one_stays(self) -> None:
        """
        In its stead; until the workers are counted again.
        """
        ended = self.begin(self.changes.restart)
        self.be_ready(3)
        self.leave(0)
        self.last(0).say(Failed("the store is gone"))
        self.look()
        assert ["worker 0 does not get ready: the store is gone"] == ended
        assert 3 == self.count_ready()
        assert [0, 1, 2, 3] == self.there()

        self.last(0).end()
        self.look()
        self.be_ready(0)
        ended = self.begin(lambda: self.changes.resize(3))
        self.leave(3)
        assert [""] == ended
        assert [0, 1, 2] == self.there()

    def test_a_worker_that_dies_meanwhile_is_replaced_twice(self) -> None:
        """
        As by any death, and in its turn.
        """
        ended = self.begin(self.changes.restart)
        self.last(2).end()
        self.look()
        self.be_ready(3)
        for number in range(2):
            self.leave(number)
            self.be_ready(number)
        # The place of who died is still being filled.
        assert [] == ended
        self.be_ready(2)
        self.leave(2)
        self.be_ready(2)
        self.leave(3)

        assert [""] == ended

    def test_a_worker_that_dies_instead_of_draining_is_as_good(self) -> None:
        """
        The place is free.
        """
        ended = self.begin(lambda: self.changes.drain(0))
        self.be_ready(3)
        self.last(0).end()
        self.look()
        self.be_ready(0)
        self.leave(3)

        assert [""] == ended


class AdoptTests(ChangesCase):
    """
    Other settings are followed.
    """

    def shadow(self) -> str | None:
        """
        The name of who looks on.
        """
        shadow = self.distribution.shadow
        return None if shadow is None else shadow.name

    def test_what_is_the_same_changes_nothing(self) -> None:
        """
        No worker hears of it.
        """
        with capturedLogs() as events:
            assert [""] == self.begin(lambda: self.changes.adopt(SETTINGS))
        assert [] == self.loaded
        assert [] == self.received(0)
        assert not any("policy" in event for event in events)

    def test_policy_and_number_need_no_new_workers(self) -> None:
        """
        But those that are more.
        """
        new = replace(SETTINGS, policy="roundrobin", procs=4)
        ended = self.begin(lambda: self.changes.adopt(new))
        self.be_ready(3)

        assert [""] == ended
        assert [] == self.loaded
        assert "roundrobin" == self.distribution.chosen.name
        assert 4 == self.count_ready()
        assert 4 == len(self.forks.made)

    def test_a_shadow_needs_no_new_workers(self) -> None:
        """
        It comes and goes.
        """
        handed_over = replace(SETTINGS, policy="roundrobin")
        looked_on = replace(handed_over, shadow="leastbusy")
        assert [""] == self.begin(lambda: self.changes.adopt(looked_on))
        assert "leastbusy" == self.shadow()
        assert [""] == self.begin(lambda: self.changes.adopt(handed_over))
        assert self.shadow() is None
        assert [] == self.loaded

    def test_what_was_changed_by_hand_becomes_what_is_written(self) -> None:
        """
        Compared with what is, not with what was read before.
        """
        self.changes.policy("roundrobin")
        fewer = self.begin(lambda: self.changes.resize(2))
        self.leave(2)
        assert [""] == fewer
        ended = self.begin(lambda: self.changes.adopt(SETTINGS))
        self.be_ready(2)

        assert [""] == ended
        assert "reuseport" == self.distribution.chosen.name
        assert 3 == self.count_ready()

    def test_what_workers_need_makes_new_ones(self) -> None:
        """
        One after the other, and then as many as are wanted.
        """
        new = replace(SETTINGS, splice=False, procs=4)
        ended = self.begin(lambda: self.changes.adopt(new))
        assert [new] == self.loaded
        self.be_ready(3)
        for number in range(3):
            self.leave(number)
            self.be_ready(number)
        self.leave(3)
        assert 3 == self.least_ready
        self.be_ready(3)
        assert [""] == ended

        assert [""] == self.begin(lambda: self.changes.adopt(new))
        assert [new] == self.loaded

    def test_an_engine_may_have_other_credentials(self) -> None:
        """
        The settings do not show them, so all workers are replaced each time.
        """
        engine = StoreLocation("s3", "//bucket")
        for new in (
            replace(SETTINGS, store=engine),
            replace(SETTINGS, fallback_store=engine),
        ):
            self.changes._settings = new
            self.loaded.clear()
            ended = self.begin(partial(self.changes.adopt, new))
            assert [new] == self.loaded
            self.be_ready(3)
            for number in range(3):
                self.leave(number)
                self.be_ready(number)
            self.leave(3)
            assert [""] == ended

    def test_what_no_worker_can_do_with_is_taken_back(self) -> None:
        """
        The old ones serve on, and who dies is replaced by one that can.
        """
        new = replace(SETTINGS, splice=False)
        ended = self.begin(lambda: self.changes.adopt(new))
        self.last(3).say(Failed("no"))
        self.look()

        assert ["worker 3 does not get ready: no"] == ended
        assert [new, SETTINGS] == self.loaded
        assert 3 == self.count_ready()

    def test_a_shadow_with_nothing_to_see_changes_nothing(self) -> None:
        """
        Neither the policy under which it would not see anything.
        """
        self.changes.policy("roundrobin")
        new = replace(SETTINGS, policy="gated", shadow="leastbusy", procs=1)
        with pytest.raises(BadSetting, match="under the policy 'gated'"):
            self.changes.adopt(new)

        assert "roundrobin" == self.distribution.chosen.name
        assert [0, 1, 2] == self.there()

    def test_a_policy_that_cannot_be_used_changes_nothing(self) -> None:
        """
        Though all else could be.
        """
        new = replace(SETTINGS, policy="fair", procs=1, splice=False)
        with pytest.raises(UnknownPlugin):
            self.changes.adopt(new)

        assert [] == self.loaded
        assert [0, 1, 2] == self.there()


class RightsTests(ChangesCase):
    """
    Another rights file holds for all workers.
    """

    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(self.pool._forget_rights)

    def test_it_waits_for_nobody(self) -> None:
        """
        Also workers that drain hear of it, and those that get ready only then, before
        they have a client. The same file again makes no work.
        """
        ended = self.begin(self.changes.restart)
        self.be_ready(3)
        assert [DRAIN] == self.received(0)[-1:]
        self.received(3)
        for _ in range(2):
            self.changes.rights(RightsFile("/file", "new"))
        for number in range(4):
            assert [Rights("/file")] == self.received(number)

        self.last(0).end()
        self.look()
        self.be_ready(0)
        assert [Rights("/file"), Credits(), Listen("0/0")] == self.received(0)
        assert [] == ended

    def test_back_to_those_of_the_start(self) -> None:
        """
        Which may have come with settings that no worker could do with.
        """
        for text in ("old", "new", "old"):
            self.changes.rights(RightsFile("/file", text))
            assert [Rights("/file")] == self.received(0)

    def test_there_are_none_any_more(self) -> None:
        """
        At once, too; and what gets ready later hears of it.
        """
        self.changes.rights(None)
        assert [] == self.received(0)
        self.changes.rights(RightsFile("/file", "new"))
        assert [Rights("/file")] == self.received(0)
        with capturedLogs() as events:
            self.changes.rights(None)
        assert [Rights("")] == self.received(0)
        assert ["warn"] == [event["log_level"].name for event in events]
        self.begin(self.changes.restart)
        self.be_ready(3)
        assert [Rights(""), Credits()] == self.received(3)[:2]

    def test_the_first_ones_load_what_was_not_loaded(self) -> None:
        """
        So not where the files of the package are others by now; where there is a rights
        file already, workers have loaded all.
        """
        self.changes.rights(RightsFile("/file", "old"))
        self.received(0)
        self.patch(
            changes,
            "check_code",
            fails := mock.Mock(side_effect=ChangeImpossible("replaced")),
        )
        self.changes.rights(RightsFile("/file", "new"))
        assert [Rights("/file")] == self.received(0)
        self.changes.rights(None)
        self.received(0)
        with pytest.raises(ChangeImpossible, match="replaced"):
            self.changes.rights(RightsFile("/file", "new"))
        assert [] == self.received(0)
        assert 1 == fails.call_count

    def test_without_room_nobody_hears_of_it(self) -> None:
        """
        It can be tried again.
        """
        file = RightsFile("/file", "new")
        short = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        with (
            mock.patch.object(os, "memfd_create", side_effect=short),
            pytest.raises(ChangeImpossible, match="/file: Too many open files"),
        ):
            self.changes.rights(file)
        assert [] == self.received(0)

        self.changes.rights(file)
        assert [Rights("/file")] == self.received(0)


class OneAtATimeTests(ChangesCase):
    """
    A request for another change meanwhile is refused.
    """

    def test_the_one_under_way_is_named(self) -> None:
        """
        And afterwards another can be made, whatever became of it.
        """
        self.begin(self.changes.restart)
        for change in (
            self.changes.restart,
            lambda: self.changes.resize(2),
            lambda: self.changes.drain(0),
        ):
            with pytest.raises(ChangeImpossible, match="under way: restart"):
                change()
        self.last(3).say(Failed("no"))
        self.look()
        self.last(3).end()
        self.look()

        assert [""] == self.begin(lambda: self.changes.resize(3))

    def test_the_end_of_one_can_be_awaited(self) -> None:
        """
        Then another can be made; that kvd ends is an end too.
        """
        assert [""] == self.begin(self.changes.until_idle)
        self.begin(self.changes.restart)
        waiting = self.begin(self.changes.until_idle)
        assert [] == waiting
        self.last(3).say(Failed("no"))
        self.look()
        self.last(3).end()
        self.look()
        assert [""] == waiting

        self.begin(self.changes.restart)
        waiting = self.begin(self.changes.until_idle)
        self.pool.stop()
        self.look()
        assert ["kvd is ending"] == waiting

    def test_nothing_is_changed_where_another_process_serves(self) -> None:
        """
        Neither by who has waited for the end of the upgrade, nor by who comes before
        this process has begun to end: its programs would choose among the sockets that
        are the other's by now.
        """
        over: Deferred[None] = Deferred()

        async def hand_over() -> None:
            await over

        upgrading = self.begin(lambda: self.changes.upgrade(hand_over))
        waiting = self.begin(self.changes.until_idle)
        over.callback(None)
        assert [""] == upgrading
        self.look()
        assert ["another process serves in the place of this one"] == waiting
        for change in (
            self.changes.restart,
            lambda: self.changes.policy("roundrobin"),
            lambda: self.changes.shadow(None),
            lambda: self.changes.rights(None),
        ):
            with pytest.raises(PlaceTaken):
                change()

    def test_what_becomes_of_it_is_logged(self) -> None:
        """
        Who asked may have left.
        """
        with capturedLogs() as events:
            self.begin(self.changes.restart)
            self.last(3).say(Failed("no"))
            self.look()
            self.last(3).end()
            self.begin(lambda: self.changes.resize(3))

        logged = [e["log_format"] for e in events if "change" in e]
        assert [
            "{change}: begun",
            "{change}: not done: {reason}",
            "{change}: begun",
            "{change}: done",
        ] == logged

    def test_the_end_of_kvd_ends_it(self) -> None:
        """
        And nothing can be changed any more. That is no reason to warn somebody.
        """
        ended = self.begin(self.changes.restart)
        self.be_ready(3)
        with capturedLogs() as events:
            self.pool.stop()
            self.look()
        assert ["kvd is ending"] == ended
        levels = [e["log_level"] for e in events if "change" in e]
        assert [LogLevel.info] == levels

        for change in (
            self.changes.restart,
            lambda: self.changes.policy("roundrobin"),
        ):
            with pytest.raises(OperatorError, match="ending"):
                change()
