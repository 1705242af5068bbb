"""
Uploads that overtake each other, and their dates: `kvd.store.upload` with a clock that
is set.
"""

import os
import random
import time
from contextlib import ExitStack
from unittest import mock

import pytest
from twisted.internet.defer import Deferred

from kvd.errors import PreconditionFailed
from kvd.model.conditions import Conditions
from kvd.model.keys import Key
from kvd.model.values import Published
from kvd.store.attribute import NAME, decode
from tests.chance import new_seed
from tests.store.cases import KEY, FileStoreCase, syncing_in_python
from tests.store.stepped import SteppedPool

SECOND = 1_000_000_000
NOON = 1_795_867_200 * SECOND


class Wall:
    """
    A clock that can be set to any time.
    """

    def __init__(self) -> None:
        self.ns = NOON

    def time_ns(self) -> int:
        """
        See `time.time_ns`.
        """
        return self.ns


class DatedCase(FileStoreCase):
    """
    A test case with such a clock.
    """

    def setUp(self) -> None:
        super().setUp()
        self.wall = Wall()
        patched = mock.patch.object(time, "time_ns", self.wall.time_ns)
        patched.start()
        self.addCleanup(patched.stop)

    def date_of(self, key: Key = KEY) -> float:
        """
        The date of a value, which must be the same in the store, its file and its
        attribute.
        """
        path = os.path.join(os.fsencode(self.path), key)
        info = self.result(self.open_store().stat(key))
        published_us = decode(os.getxattr(path, NAME)).published_us
        assert published_us is not None
        assert 1000 * published_us == os.stat(path).st_mtime_ns
        assert published_us / 1e6 == info.changed
        return info.changed - NOON // SECOND


class DateTests(DatedCase):
    """
    A value has the date of its publication, whenever its bytes arrived.
    """

    def setUp(self) -> None:
        super().setUp()
        self.store = self.open_store()

    def test_the_date_is_that_of_publication(self) -> None:
        """
        A slow upload that is published last is the newest.
        """
        slow = self.result(self.store.begin(KEY, None))
        slow.write(b"A")
        self.wall.ns += 2 * SECOND
        self.publish(self.store, body=b"B")
        assert 2 == self.date_of()
        self.wall.ns += 2 * SECOND
        slow.commit(Conditions())

        assert 4 == self.date_of()
        assert b"A" == self.get(self.store)

    def test_a_date_decides(self) -> None:
        """
        A client that has the overtaken value does not overwrite the newer one.
        """
        slow = self.result(self.store.begin(KEY, None))
        self.publish(self.store, body=b"B")
        seen = int(self.store.stat(KEY).changed)
        self.wall.ns += 2 * SECOND
        slow.commit(Conditions())

        late = self.result(self.store.begin(KEY, None))
        with pytest.raises(PreconditionFailed):
            late.commit(Conditions(if_unmodified_since=seen))
        modified = Conditions(if_modified_since=seen)
        assert not modified.is_unchanged(self.store.stat(KEY))

    def test_dates_never_go_back(self) -> None:
        """
        The date of a key does not fall if the clock does; it rises again when the clock
        has passed it.
        """
        for at, date in ((0, 0), (-3600, 0), (-1, 0), (0.5, 0.5), (0.25, 0.5), (9, 9)):
            self.wall.ns = NOON + int(at * SECOND)
            self.publish(self.store)
            assert date == self.date_of()
        self.wall.ns = NOON
        self.publish(self.store, Key(b"other"))
        assert 0 == self.date_of(Key(b"other"))

    def test_dates_of_foreign_files_do_not_count(self) -> None:
        """
        A file of another program may have any date.
        """
        self.place("key")
        for seconds in (2**33, 2**36, -(2**31)):
            os.utime(os.path.join(self.path, "key"), (seconds, seconds))
            self.publish(self.store)
            assert 0 == self.date_of()

    def test_a_publication_that_waits_is_dated_when_it_happens(self) -> None:
        """
        After another process held the key's lock.
        """
        upload = self.result(self.store.begin(KEY, None))
        waiting: list[Deferred[Published]] = []

        def commit() -> None:
            answer = upload.commit(Conditions())
            assert isinstance(answer, Deferred)
            waiting.append(answer)

        self.while_locked(KEY, commit)
        self.wall.ns += 3 * SECOND
        self.clock.advance(1)

        assert 3 == self.date_of()
        info = self.successResultOf(waiting[0]).info
        assert 3 == info.changed - NOON // SECOND


class DiskDateTests(DatedCase):
    """
    At durability ``disk`` the date is on the disk with the value.
    """

    def setUp(self) -> None:
        super().setUp()
        self.pool = SteppedPool()
        self.store = self.open_store("disk", self.pool)
        self.synced: list[tuple[str, float]] = []
        fsync = os.fsync

        def sync(descriptor: int) -> None:
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            of = "folder" if os.path.isdir(path) else "file"
            date = os.fstat(descriptor).st_mtime - NOON // SECOND
            self.synced.append((of, date if of == "file" else 0))
            fsync(descriptor)

        replaced = ExitStack()
        replaced.enter_context(syncing_in_python())
        replaced.enter_context(mock.patch("os.fsync", sync))
        self.addCleanup(replaced.close)

    def begin_commit(self, body: bytes) -> Deferred[Published]:
        """
        Begin a commit whose file is about to be synced.
        """
        upload = self.result(self.store.begin(KEY, None))
        upload.write(body)
        answer = upload.commit(Conditions())
        assert isinstance(answer, Deferred)
        return answer

    def test_one_sync_is_enough(self) -> None:
        """
        If the sync of the file ends within the second in which it began.
        """
        done = self.begin_commit(b"v")
        self.wall.ns += SECOND // 2
        self.pool.finish()

        assert 0 == self.date_of()
        assert 0 == self.successResultOf(done).info.changed - NOON // SECOND
        assert [("file", 0.0), ("folder", 0)] == self.synced

    def test_a_slow_sync_is_repeated_with_the_new_date(self) -> None:
        """
        A value that is published in a later second has that date, also on the disk,
        before the reply.
        """
        done = self.begin_commit(b"v")
        self.wall.ns += 2 * SECOND
        self.pool.finish()

        assert 2 == self.date_of()
        assert 2 == self.successResultOf(done).info.changed - NOON // SECOND
        assert [("file", 0.0), ("file", 2.0), ("folder", 0)] == self.synced

    def test_a_value_that_was_published_meanwhile(self) -> None:
        """
        It is not the newer one by its date, even within a second.
        """
        done = self.begin_commit(b"A")
        self.wall.ns += SECOND // 2
        self.publish(self.open_store("process"), body=b"B")
        self.pool.finish()

        assert 0.5 == self.date_of()
        assert 0.5 == self.successResultOf(done).info.changed - NOON // SECOND
        assert [("file", 0.0), ("file", 0.5), ("folder", 0)] == self.synced
        assert b"A" == self.get(self.store)


class OvertakingTests(DatedCase):
    """
    Any order of uploads, with any changes of the clock.
    """

    def test_no_client_is_misled(self) -> None:
        """
        Dates do not fall, and are current unless the clock was set back. Entity tag,
        date and bytes belong together.
        """
        first = new_seed()
        for seed in range(first, first + 30):
            self.overtake(seed)

    def overtake(self, seed: int) -> None:
        """
        Run some uploads of one key in any order.
        """
        chance = random.Random(seed)
        stores = [self.open_store(), self.open_store()]
        key = Key(b"seed/%d" % seed)
        uploads = []
        last_us = 0
        for number in range(40):
            self.wall.ns += chance.choice([0, 1, 1000, SECOND // 3, SECOND, 5 * SECOND])
            self.wall.ns -= chance.choice([0, 0, 0, 0, SECOND, 60 * SECOND])
            upload = self.result(chance.choice(stores).begin(key, None))
            upload.write(b"%d" % number)
            uploads.append((number, upload))
            while uploads and chance.random() < 0.6:
                which, upload = uploads.pop(chance.randrange(len(uploads)))
                present_us = self.wall.ns // 1000
                published = upload.commit(Conditions())
                assert isinstance(published, Published)
                info, value = published.info, stores[0].open(key)
                assert info == value.info, seed
                assert b"%d" % which == self.body(value), seed
                # Whole microseconds, which a number of seconds in a float only is near.
                changed_us = round(info.changed * 1_000_000)
                assert max(last_us, present_us) == changed_us, seed
                last_us = changed_us
        for _, upload in uploads:
            upload.discard()
