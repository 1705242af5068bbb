"""
The tests of `kvd.store.evicting` and `kvd.store.survey`.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections import namedtuple
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from kvd.errors import KeyAbsent, QuotaFull, StoreUnusable, ValueTooLarge
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.settings import DEFAULT_MODES, Bounds, Quota
from kvd.store import evicting, removing, survey
from kvd.store.candidates import PlainCandidates, make_candidates
from kvd.store.evicting import Evictor, headroom
from kvd.store.file import FileStore
from kvd.store.folders import open_path_by_names
from kvd.store.looking import look_by_python
from kvd.store.survey import Survey
from kvd.store.totals import Total, TotalsFile, open_totals
from kvd.store.usage import State, taken_by
from tests.chance import new_seed
from tests.store.bounded import SECOND_NS, BoundedCase
from tests.store.cases import KEY

BLOCK = 4096


def names(*numbers: int) -> list[str]:
    """
    The names of values, in their order.
    """
    return sorted(f"a{number // 10}/{number}" for number in numbers)


class CountingTests(BoundedCase):
    """
    The evictor counts what is there.
    """

    max_size = 1 << 30
    quotas = (Quota(b"a1/", 1 << 20, False, None),)

    def test_values_from_before_are_counted(self) -> None:
        """
        Those that others placed too, each for its prefix; not what is kvd's own, nor a
        link.
        """
        for number in range(25):
            self.place(names(number)[0], bytes(number * 1000))
        os.symlink("a1", self.at("link"))
        self.take_steps(self.evictor())

        assert State.COUNTED == self.memory.state
        assert self.really_taken() == self.memory.taken(0)
        assert self.really_taken("a1/") == self.memory.taken(1)
        assert [25, 10] == [self.memory.values(0), self.memory.values(1)]

    def test_count_is_right_though_others_write_meanwhile(self) -> None:
        """
        A value that is published, replaced or removed during the count is counted once
        or not at all. What the count cannot know, the next one corrects.
        """
        store = self.open_bounded()
        for number in range(200):
            self.place(names(number)[0], bytes(BLOCK))
        evictor = self.evictor()
        # Each step takes one look: no time passes on this clock.
        with mock.patch("kvd.store.evicting.STEP_SECONDS", 0):
            evictor.step()
        self.publish(store, Key(b"a1/10"), bytes(3 * BLOCK))
        store.remove(Key(b"a0/1"), UNCONDITIONAL)
        self.publish(store, Key(b"new"), bytes(BLOCK))
        self.take_steps(evictor)
        right = self.really_taken()
        assert abs(self.memory.taken(0) - right) <= 4 * BLOCK

        self.clock.advance(1000)
        self.take_steps(evictor)
        assert right == self.memory.taken(0)
        assert self.really_taken("a1/") == self.memory.taken(1)

    def test_files_that_others_place_are_found_by_the_next_count(self) -> None:
        """
        And those that they removed are missed.
        """
        evictor = self.evictor()
        self.take_steps(evictor)
        self.place("a1/x", bytes(10 * BLOCK))
        self.clock.advance(1000)
        self.take_steps(evictor)
        assert 10 * BLOCK == self.memory.taken(1)
        os.unlink(self.at("a1/x"))
        self.clock.advance(1000)
        self.take_steps(evictor)
        assert [0, 0] == [self.memory.taken(0), self.memory.taken(1)]
        assert 0 == self.memory.values(0)

    def test_uploads_are_not_counted_twice(self) -> None:
        """
        What they hold stays held.
        """
        store = self.open_bounded()
        upload = store.begin_at_once(KEY, 5 * BLOCK)
        self.place("x", bytes(BLOCK))
        self.take_steps(self.evictor())

        assert 6 * BLOCK == self.memory.taken(0)
        upload.discard()
        assert BLOCK == self.memory.taken(0)

    def test_count_is_kept_for_the_next_daemon(self) -> None:
        """
        In a file that only one daemon may have at a time.
        """
        self.place("a1/x", bytes(BLOCK))
        evictor = self.evictor()
        self.take_steps(evictor)
        self.publish(self.open_bounded(), KEY, bytes(2 * BLOCK))
        evictor.stop()
        with open(self.at(".kvd/usage"), "rb") as file:
            totals = TotalsFile(file.fileno())
            assert [Total(3 * BLOCK, 2), Total(BLOCK, 1)] == totals.read([b"", b"a1/"])
            assert totals.read([b"", b"other/"]) is None
        with pytest.raises(StoreUnusable, match="another daemon"):
            open_totals(self.folder(), DEFAULT_MODES)

    def test_torn_or_foreign_count_is_not_used(self) -> None:
        """
        Then the values are counted as if there had been none.
        """
        self.place("file", b"")
        with open(self.at("file"), "r+b") as file:
            totals = TotalsFile(file.fileno())
            totals.write([b"a b/"], [Total(1, 2)])
            assert [Total(1, 2)] == totals.read([b"a b/"])
            text = file.read()
            for torn in (text[:-4], text[2:], b"\xff" + text, b"x\nend\n", b""):
                file.seek(0)
                file.truncate()
                file.write(torn)
                file.flush()
                assert totals.read([b"a b/"]) is None or torn == text[2:]


class FilledCase(BoundedCase):
    """
    A test case with a full store.
    """

    max_size = 20 * BLOCK
    evicts = True

    def filled(self, count: int = 20) -> FileStore:
        """
        A store in which value N was last used N minutes after its publication.
        """
        store = self.open_bounded()
        for number in range(count):
            self.publish(store, self.key(number), bytes(BLOCK))
            self.use_at(self.key(number), number * 60)
        return store

    def setUp(self) -> None:
        super().setUp()
        self.later_ns = 3600 * SECOND_NS

    def want(self, store: FileStore, evictor: Evictor, blocks: int) -> None:
        """
        Have an upload wait until there is room for it, and discard it at once.
        """
        began = store.begin(KEY, blocks * BLOCK)
        assert isinstance(began, Deferred)
        began.addCallback(lambda upload: upload.discard())
        for _ in range(1000):
            if began.called:
                break
            self.clock.advance(evictor.step())
        assert began.called

    def key(self, number: int) -> Key:
        """
        The key of a value.
        """
        return Key(names(number)[0].encode())


class EvictingTests(FilledCase):
    """
    A store that is full loses what was used least recently.
    """

    def test_oldest_values_make_room(self) -> None:
        """
        As much as uploads want, and no more; folders that become empty go with them.
        """
        store = self.filled()
        evictor = self.evictor()
        self.want(store, evictor, 10)
        self.take_steps(evictor)

        assert names(*range(10, 20)) == self.found()
        assert 10 == self.memory.evictions(0).values
        assert 10 * BLOCK == self.memory.evictions(0).bytes
        assert ["a1"] == [name for name in os.listdir(self.path) if name[0] != "."]

    def test_it_looks_again_soon_after_it_made_room(self) -> None:
        """
        And less and less often if nothing is wanted.
        """
        store = self.filled()
        evictor = self.evictor()
        self.want(store, evictor, 1)
        self.take_steps(evictor, 3)
        pauses = [evictor.step()]
        for _ in range(20):
            self.clock.advance(pauses[-1])
            pauses.append(evictor.step())
        assert 0.1 == pauses[-1] == max(pauses)
        self.want(store, evictor, 2)

        assert evictor.step() <= 0.01

    def test_value_that_was_read_stays(self) -> None:
        """
        Also if it was read only after the evictor had looked at it.
        """
        store = self.filled()
        evictor = self.evictor()
        with mock.patch.object(evictor, "_make_room", return_value=0):
            self.take_steps(evictor)
        self.memory.resolution_seconds = 1
        for number in (0, 1, 3):
            with mock.patch("kvd.store.reading.time.time", return_value=9e9):
                store.open(self.key(number)).close()
        self.want(store, evictor, 3)

        assert names(0, 1, 3, *range(6, 20)) == self.found()

    def test_replaced_value_stays(self) -> None:
        """
        The new value is another one than the evictor looked at.
        """
        store = self.filled()
        evictor = self.evictor()
        with mock.patch.object(evictor, "_make_room", return_value=0):
            self.take_steps(evictor)
        store.remove(self.key(19), UNCONDITIONAL)
        self.publish(store, self.key(0), b"new")
        self.publish(store, KEY, b"other")
        self.want(store, evictor, 1)

        assert b"new" == self.get(store, self.key(0))
        assert names(1)[0] not in self.found()

    def test_new_value_is_protected(self) -> None:
        """
        What was acknowledged within the last second stays, and the upload waits.
        """
        store = self.open_bounded()
        self.publish(store, KEY, bytes(20 * BLOCK))
        published_ns = os.stat(self.at("key")).st_mtime_ns
        now = published_ns

        def now_ns() -> int:
            return now

        evictor = self.evictor(now_ns)
        began = store.begin(Key(b"other"), BLOCK)
        assert isinstance(began, Deferred)
        self.take_steps(evictor)
        assert ["key"] == self.found()
        self.assertNoResult(began)
        now += 2 * SECOND_NS
        self.clock.advance(1)
        self.take_steps(evictor)
        assert [] == self.found()
        self.successResultOf(began).discard()

    def test_reader_reads_on(self) -> None:
        """
        A value that is open stays readable when it was removed.
        """
        store = self.filled()
        value = store.open(self.key(0))
        self.want(store, self.evictor(), 1)

        with pytest.raises(KeyAbsent):
            store.open(self.key(0))
        assert bytes(BLOCK) == value.read(0, 2 * BLOCK)
        value.close()

    def test_locked_key_is_left(self) -> None:
        """
        Whoever holds its lock is just changing it.
        """
        store = self.filled()
        evictor = self.evictor()
        self.while_locked(self.key(0), lambda: self.want(store, evictor, 1))

        assert names(0, *range(2, 20)) == self.found()

    def test_other_file_of_locks_is_found(self) -> None:
        """
        Another program has removed the file of locks, and other processes use a new
        one: what is locked there is left.
        """
        store = self.filled()
        evictor = self.evictor()
        with mock.patch.object(evictor, "_make_room", return_value=0):
            self.take_steps(evictor)
        os.unlink(self.at(".kvd/lock"))
        self.while_locked(self.key(1), lambda: self.want(store, evictor, 2))

        assert names(1, *range(3, 20)) == self.found()

    def test_link_in_place_of_a_folder_is_not_followed(self) -> None:
        """
        Not even if the same files are behind it.
        """
        store = self.filled()
        evictor = self.evictor()
        with mock.patch.object(evictor, "_make_room", return_value=0):
            self.take_steps(evictor)
        outside = f"{self.path}-outside"
        os.rename(self.at("a0"), outside)
        self.addCleanup(shutil.rmtree, outside)
        os.symlink(outside, self.at("a0"))
        with capturedLogs():
            self.want(store, evictor, 1)

        assert sorted(map(str, range(10))) == sorted(os.listdir(outside))
        assert names(*range(11, 20)) == [x for x in self.found() if x[:2] == "a1"]

    def test_more_is_found_when_the_list_is_used_up(self) -> None:
        """
        The evictor remembers a bounded number of values.
        """
        store = self.filled()
        evictor = self.evictor(most=3)
        for number in range(20, 35):
            self.want(store, evictor, 1)
            self.publish(store, self.key(number), bytes(BLOCK))
            self.use_at(self.key(number), number * 60)
        evictor.stop()

        assert names(*range(15, 35)) == self.found()

    def test_upload_does_not_wait_for_the_end_of_a_long_count(self) -> None:
        """
        The oldest quarter of what was seen so far is good enough then.
        """
        store = self.filled()
        evictor = self.evictor()
        self.take_steps(evictor)
        for number in range(200):
            self.place(f"x{number}", b"")
            self.use_at(f"x{number}", 3000)
        step = Survey.step

        def take_long(survey: Survey) -> bool:
            self.clock.advance(0.02)
            return step(survey)

        evictor._candidates[0] = make_candidates(1)
        with (
            mock.patch.object(Survey, "step", take_long),
            mock.patch("kvd.store.evicting._EARLY_VALUES", 40),
            mock.patch.object(evictor, "_end_survey", side_effect=AssertionError),
        ):
            self.want(store, evictor, 2)

    def test_smaller_limit_than_what_is_there(self) -> None:
        """
        At the start, the oldest values go until the rest fits.
        """
        for number in range(50):
            self.place(f"{number:02}", bytes(BLOCK))
            self.use_at(f"{number:02}", number * 60)
        self.take_steps(self.evictor())

        assert [f"{number}" for number in range(31, 50)] == self.found()
        assert 19 * BLOCK == self.memory.taken(0)

    def test_time_of_use_in_the_future_becomes_the_present(self) -> None:
        """
        The clock was set back: the value is not protected for as long as it was ahead.
        """
        self.filled()
        self.use_at(self.key(5), 10 * 365 * 86400)
        self.take_steps(self.evictor())

        ahead = os.stat(self.at(names(5)[0]))
        assert ahead.st_atime - ahead.st_mtime < 3600

    def test_reads_are_noted_more_often_if_values_live_shorter(self) -> None:
        """
        A sixteenth of the age of what is removed is precise enough.
        """
        store = self.filled()
        evictor = self.evictor()
        assert 60 == self.memory.resolution_seconds
        self.want(store, evictor, 1)
        assert 3600 // 16 <= self.memory.resolution_seconds <= 8000 // 16

    def test_value_that_never_fits_removes_nothing(self) -> None:
        """
        It is refused at once, and all that is there can still be read.
        """
        store = self.filled(19)
        with pytest.raises(ValueTooLarge):
            store.begin(KEY, 20 * BLOCK + 1)
        self.take_steps(self.evictor())

        assert names(*range(19)) == self.found()
        for number in range(19):
            assert bytes(BLOCK) == self.get(store, self.key(number))

    def test_files_that_others_place_meanwhile(self) -> None:
        """
        They are found by the next count, and then removed like others: in the order of
        their use. Whatever was placed over a value that was to be removed stays.
        """
        store = self.filled()
        evictor = self.evictor()
        with mock.patch.object(evictor, "_make_room", return_value=0):
            self.take_steps(evictor)
        for number in range(10):
            self.place(f"theirs/{number}", b"%d" % number)
            self.use_at(f"theirs/{number}", number * 6000)
        self.place("new", b"placed")
        os.replace(self.at("new"), self.at(names(0)[0]))
        self.use_at(names(0)[0], 30 * 6000)
        self.want(store, evictor, 2)
        assert names(0, *range(3, 20)) == [x for x in self.found() if x[0] == "a"]
        self.later_ns = 40 * 6000 * SECOND_NS
        self.clock.advance(1000)
        self.take_steps(evictor)

        assert self.really_taken() == self.memory.taken(0) <= self.max_size
        assert b"placed" == self.get(store, self.key(0))
        left = [x for x in self.found() if x.startswith("theirs/")]
        assert [f"theirs/{number}" for number in range(1, 10)] == left
        for name in left:
            assert name[-1:].encode() == self.get(store, Key(name.encode()))


class EvictingByPythonTests(EvictingTests):
    """
    The same without the compiled module.
    """

    def setUp(self) -> None:
        super().setUp()
        self.patch(removing, "_native", None)
        self.patch(survey, "look", look_by_python)
        self.patch(survey, "make_candidates", PlainCandidates)
        self.patch(evicting, "make_candidates", PlainCandidates)


class FailingDiskTests(FilledCase):
    """
    A disk that fails while values are removed.
    """

    def test_failures_pause_the_evictor(self) -> None:
        """
        It logs some, and tries again after a while. Nothing is counted as removed.
        """
        store = self.filled()
        evictor = self.evictor()
        began = store.begin(KEY, 2 * BLOCK)
        assert isinstance(began, Deferred)
        broken = OSError(errno.EIO, os.strerror(errno.EIO))
        with (
            capturedLogs() as logs,
            mock.patch("kvd.store.removing._native", None),
            mock.patch("kvd.store.removing.os.unlink", side_effect=broken),
        ):
            for _ in range(20):
                evictor.step()
        assert 16 == len([e for e in logs if "cannot be removed" in e["log_format"]])
        assert 20 == len(self.found())
        assert 20 * BLOCK == self.memory.taken(0)
        self.clock.advance(10)
        self.failureResultOf(began, QuotaFull)
        self.want(store, evictor, 2)
        assert 18 == len(self.found())

    def test_failures_of_the_compiled_call_pause_it_too(self) -> None:
        """
        It tells them as numbers.
        """
        store = self.filled()
        evictor = self.evictor()
        began = store.begin(KEY, 2 * BLOCK)
        broken = mock.Mock()
        broken.remove_unchanged.return_value = [removing.STAYS - errno.EIO]
        with (
            capturedLogs() as logs,
            mock.patch("kvd.store.removing._native", broken),
        ):
            self.take_steps(evictor)
        failures = [e for e in logs if "cannot be removed" in e["log_format"]]
        assert 16 == len(failures)
        assert errno.EIO == failures[0]["reason"].errno
        assert 20 == len(self.found())
        self.clock.advance(10)
        self.take_steps(evictor)
        assert 20 * BLOCK > self.memory.taken(0) == self.really_taken()
        assert isinstance(began, Deferred)
        self.failureResultOf(began, QuotaFull)

    def test_values_that_may_not_be_removed_do_not_hold_up_others(self) -> None:
        """
        Another user has placed them, in a folder of theirs. One line says so for all of
        them, and the evictor does not look at the store again and again.
        """
        store = self.filled(0)
        for number in range(40):
            self.place(f"theirs/{number}", b"")
            self.use_at(f"theirs/{number}", number)
        self.max_size = 60 * BLOCK
        self.memory.quota(0)[1] = 60 * BLOCK
        for number in range(20):
            self.publish(store, self.key(number), bytes(BLOCK))
            self.use_at(self.key(number), number * 60)
        real = os.unlink

        def unlink(name: bytes, *, dir_fd: int) -> None:
            if os.path.samestat(os.fstat(dir_fd), os.stat(self.at("theirs"))):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            real(name, dir_fd=dir_fd)

        evictor = self.evictor()
        with (
            capturedLogs() as logs,
            mock.patch("kvd.store.removing._native", None),
            mock.patch("kvd.store.removing.os.unlink", unlink),
            mock.patch.object(
                evictor, "_begin_survey", side_effect=evictor._begin_survey
            ) as begun,
        ):
            self.take_steps(evictor)
            self.want(store, evictor, 10)
            assert names(*range(10, 20)) == [x for x in self.found() if "a1/" in x]
            began = store.begin(KEY, 30 * BLOCK)
            assert isinstance(began, Deferred)
            for _ in range(5000):
                if began.called:
                    break
                self.clock.advance(evictor.step())
            self.failureResultOf(began, QuotaFull)
        assert 40 == len(self.found())
        warned = [e for e in logs if "cannot be removed" in e["log_format"]]
        assert 1 == len(warned)
        assert begun.call_count <= 30

    def test_each_call_may_fail(self) -> None:
        """
        Whichever call of the evictor fails at whichever time, it goes on, and at the
        end room was made and what is counted is what is there.
        """
        for call in ("open", "stat", "unlink", "scandir", "rmdir", "mkdir"):
            for failing in (1, 2, 5):
                self._fail(call, failing)

    def _fail(self, call: str, failing: int) -> None:
        self.rows = 0
        store = self.filled()
        evictor = self.evictor()
        calls = 0
        real: Callable[..., Any] = getattr(os, call)

        def fail(*args: Any, **more: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == failing:
                raise OSError(errno.EIO, "injected")
            return real(*args, **more)

        began = store.begin(KEY, 3 * BLOCK)
        assert isinstance(began, Deferred)
        with (
            capturedLogs(),
            mock.patch("kvd.store.folders.open_path", open_path_by_names),
            mock.patch("kvd.store.removing._native", None),
            mock.patch("kvd.store.survey.look", look_by_python),
            mock.patch.object(os, call, fail),
        ):
            for _ in range(20):
                pause = evictor.step()
        # The store's own calls do not fail.
        self.clock.advance(pause)
        for _ in range(1000):
            if began.called:
                break
            self.clock.advance(evictor.step())
        self.successResultOf(began).discard()
        self.clock.advance(1000)
        self.take_steps(evictor)
        assert self.really_taken() == self.memory.taken(0), (call, failing)
        for name in self.found():
            store.remove(Key(name.encode()), UNCONDITIONAL)
        assert 0 == self.memory.taken(0), (call, failing)


class PrefixTests(BoundedCase):
    """
    Prefixes with limits of their own.
    """

    max_size = 1 << 30
    quotas = (
        Quota(b"cache/", 10 * BLOCK, True, None),
        Quota(b"kept/", 10 * BLOCK, False, None),
        Quota(b"short/", None, False, 60.0),
    )

    def test_only_values_of_a_full_prefix_are_removed(self) -> None:
        """
        Others stay, also those that were used less recently.
        """
        self.later_ns = 3600 * SECOND_NS
        store = self.open_bounded()
        for name in ("kept/a", "b", "cache/c", "cache/d"):
            self.publish(store, Key(name.encode()), bytes(5 * BLOCK))
            self.use_at(name, ord(name[-1]))
        began = store.begin(Key(b"cache/e"), BLOCK)
        self.take_steps(self.evictor())

        self.result(began).discard()
        assert ["b", "cache/d", "kept/a"] == self.found()

    def test_prefix_that_refuses_keeps_its_values(self) -> None:
        """
        Whatever else is full: only what may be evicted makes room for others.
        """
        self.later_ns = 3600 * SECOND_NS
        self.bounds = Bounds(
            (Quota(b"", 20 * BLOCK, True, None), *self.quotas), self.min_free
        )
        self.memory.quota(0)[1] = 20 * BLOCK
        store = self.open_bounded()
        for name in ("kept/a", "b", "cache/c", "d"):
            self.publish(store, Key(name.encode()), bytes(5 * BLOCK))
            self.use_at(name, ord(name[-1]))
        began = store.begin(Key(b"kept/e"), BLOCK)
        self.take_steps(self.evictor())

        self.result(began).discard()
        assert ["cache/c", "d", "kept/a"] == self.found()

    def test_expired_values_are_removed(self) -> None:
        """
        Those whose publication is longer ago than they may live, however recently they
        were read.
        """
        store = self.open_bounded()
        for name in ("short/a", "b"):
            self.publish(store, Key(name.encode()))
            self.use_at(name, 59)
        evictor = self.evictor()
        self.take_steps(evictor)
        assert ["b", "short/a"] == self.found()
        self.later_ns = 60 * SECOND_NS
        self.clock.advance(10)
        self.take_steps(evictor)

        assert ["b"] == self.found()
        assert 1 == self.memory.evictions(3).expired
        assert BLOCK == self.memory.taken(0)
        assert (0, 0) == (self.memory.taken(3), self.memory.values(3))


class ClockTests(BoundedCase):
    """
    A date that jumps, where values have a time to live.
    """

    max_size = 1 << 30
    ttl_seconds = 60.0

    def test_values_live_by_their_dates(self) -> None:
        """
        While the clock is ahead, values reach their time too early. One that is
        published then stays longer by as much when the clock is set back, and no
        longer. Nothing else is removed.
        """
        store = self.open_bounded()
        self.publish(store, Key(b"early"))
        evictor = self.evictor()
        self.take_steps(evictor)
        self.later_ns = 3600 * SECOND_NS
        self.publish(store, Key(b"ahead"), b"value")
        ahead_ns = os.stat(self.at("ahead")).st_mtime_ns + 3600 * SECOND_NS
        os.utime(self.at("ahead"), ns=(ahead_ns, ahead_ns))
        self._count_again(evictor)
        assert ["ahead"] == self.found()

        self.later_ns = 0
        self.publish(store, Key(b"late"), b"late")
        self._count_again(evictor)
        assert ["ahead", "late"] == self.found()
        assert b"value" == self.get(store, Key(b"ahead"))
        self.later_ns = 3600 * SECOND_NS
        self._count_again(evictor)
        assert ["ahead"] == self.found()
        self.later_ns += 61 * SECOND_NS
        self._count_again(evictor)
        assert [] == self.found()
        assert (0, 0) == (self.memory.taken(0), self.memory.values(0))

    def _count_again(self, evictor: Evictor) -> None:
        self.clock.advance(10)
        self.take_steps(evictor)


class OvercrowdedTests(BoundedCase):
    """
    A store that refuses, with more in it than its limit allows.
    """

    max_size = 10 * BLOCK

    def test_what_is_there_stays(self) -> None:
        """
        And nothing is added, until enough was removed.
        """
        for number in range(30):
            self.place(f"{number}", b"%d" % number)
        store = self.open_bounded()
        self.take_steps(self.evictor())
        assert 30 * BLOCK == self.memory.taken(0)
        assert 30 == len(self.found())
        for key in (KEY, Key(b"0")):
            with pytest.raises(QuotaFull, match=f"takes {30 * BLOCK} of at most"):
                store.begin(key, 1)
        for number in range(21):
            assert b"%d" % number == self.get(store, Key(b"%d" % number))
            store.remove(Key(b"%d" % number), UNCONDITIONAL)
        self.publish(store, KEY, b"new")

        assert b"new" == self.get(store, KEY)
        assert self.really_taken() == self.memory.taken(0) == self.max_size


class MinFreeTests(BoundedCase):
    """
    A disk on which some space is to stay free.
    """

    min_free = 100 * BLOCK
    evicts = True

    def test_values_are_removed_until_so_much_is_free(self) -> None:
        """
        Whoever took the space.
        """
        self.later_ns = 3600 * SECOND_NS
        for number in range(50):
            self.place(str(number), bytes(BLOCK))
            self.use_at(str(number), number * 60)
        real = os.fstatvfs
        Space = namedtuple("Space", "f_bavail f_frsize f_blocks")

        def space(descriptor: int) -> Any:
            free = 130 - self.really_taken() // BLOCK
            return Space(free, BLOCK, real(descriptor).f_blocks)

        with mock.patch("kvd.store.evicting.os.fstatvfs", space):
            self.take_steps(self.evictor())

        assert list(map(str, range(22, 50))) == sorted(self.found(), key=int)


@pytest.mark.untraced
class ModelTests(BoundedCase):
    """
    Random operations, and a model in memory of what the store must have.
    """

    max_size = 64 * BLOCK
    evicts = True
    quotas = (Quota(b"a/", 16 * BLOCK, True, None),)

    def test_store_is_like_its_model(self) -> None:
        """
        Several processes write, read and remove; others place files; the evictor works
        in between. A value that is there is the one that was written last. The limits
        hold after each step, and what is counted is what is there as soon as it was
        counted once more.
        """
        seed = new_seed()
        chance = random.Random(seed)
        stores = [self.open_bounded() for _ in range(3)]
        evictor = self.evictor(most=20)
        model: dict[Key, bytes] = {}
        refused = 0
        for number in range(600):
            key = Key(b"%c/%d" % (chance.choice(b"abc"), chance.randrange(40)))
            store = chance.choice(stores)
            act = chance.random()
            if act < 0.55:
                body = b"%d" % number + bytes(chance.randrange(4 * BLOCK))
                refused += not self._put(store, evictor, key, body, model, chance)
            elif act < 0.75:
                self._check(store, key, model)
            elif act < 0.85:
                self._remove(store, key, model)
            elif act < 0.95:
                self.take_steps(evictor, 3)
            else:
                self.clock.advance(700)
                self.take_steps(evictor)
                assert self.really_taken() == self.memory.taken(0)
                assert self.really_taken("a/") == self.memory.taken(1)
            assert self.memory.taken(0) <= self.max_size
            assert self.memory.taken(1) <= 16 * BLOCK
        for key in model:
            self._check(stores[0], key, model)
        assert refused < 60
        assert self.memory.evictions(0).values + self.memory.evictions(1).values > 50
        assert 0 == self.memory.counts(0).wanted

    def _put(
        self,
        store: FileStore,
        evictor: Evictor,
        key: Key,
        body: bytes,
        model: dict[Key, bytes],
        chance: random.Random,
    ) -> bool:
        length = len(body) if chance.random() < 0.7 else None
        began = store.begin(key, length)
        for _ in range(40):
            if not isinstance(began, Deferred) or began.called:
                break
            self.take_steps(evictor, 5)
        upload = self.result(began)
        written = upload.write(body)
        for _ in range(40):
            if not isinstance(written, Deferred) or written.called:
                break
            self.take_steps(evictor, 5)
        self.result(written)
        if chance.random() < 0.1:
            upload.discard()
            return True
        self.result(upload.commit(UNCONDITIONAL))
        model[key] = body
        # It is there at once.
        self._check(store, key, {key: body})
        assert key in {Key(name.encode()) for name in self.found()}
        return True

    def _check(self, store: FileStore, key: Key, model: dict[Key, bytes]) -> None:
        try:
            found = self.get(store, key)
        except KeyAbsent:
            return  # Evicted, or never there.
        assert model.get(key) == found

    def _remove(self, store: FileStore, key: Key, model: dict[Key, bytes]) -> None:
        try:
            store.remove(key, UNCONDITIONAL)
        except KeyAbsent:
            pass
        model.pop(key, None)


def test_headroom_is_below_two_percent() -> None:
    """
    The limit is used to 98 % and more.
    """
    for limit in (1 << 20, 1 << 30, 1 << 50):
        assert headroom(limit) <= 0.02 * limit
    assert taken_by(1) > headroom(1000)
