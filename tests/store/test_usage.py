"""
The tests of `kvd.store.usage`.
"""

from __future__ import annotations

import errno
import os
import random
import signal
from collections.abc import Sequence
from unittest import mock

import pytest
from twisted.trial.unittest import SynchronousTestCase

from kvd.native import compiled
from kvd.store import usage as module
from kvd.store.usage import (
    UNLIMITED,
    Usage,
    UsageMemory,
    create_usage,
    quota_in_python,
    quota_of,
    taken_by,
    taken_by_blocks,
)
from tests.chance import new_seed
from tests.descriptors import Descriptors

PREFIXES = (b"ci/", b"team/a/")


class UsageContract:
    """
    What every way to count promises.
    """

    native: object = None
    """The compiled module, if it is to count."""

    def memory(self, *limits: int) -> UsageMemory:
        """
        The memory for quotas with these limits, for ten processes.
        """
        descriptor = create_usage(limits, 10)
        self.addCleanup(os.close, descriptor)  # type: ignore[attr-defined]
        return UsageMemory(descriptor)

    def usage(
        self, memory: UsageMemory, prefixes: Sequence[bytes] = (), row: int = 0
    ) -> Usage:
        """
        What counts for a process.
        """
        with mock.patch.object(module, "_native", self.native):
            return memory.usage(prefixes, row)

    def test_bytes_are_reserved_up_to_the_limit(self) -> None:
        """
        Uploads get what is left, and nothing beyond; what one gives back another gets.
        """
        memory = self.memory(10_000)
        one, other = self.usage(memory), self.usage(memory, row=1)

        assert one.reserve(b"a", 6_000)
        assert not other.reserve(b"b", 4_001)
        assert other.reserve(b"b", 4_000)
        assert 10_000 == memory.taken(0)
        one.release(b"a", 6_000)
        assert other.reserve(b"c", 6_000)
        assert 10_000 == memory.counts(0).held

    def test_nothing_that_is_longer_than_the_limit_is_reserved(self) -> None:
        """
        Also while less than nothing is taken: others have removed what nobody has
        counted.
        """
        memory = self.memory(10_000)
        usage = self.usage(memory)
        usage.removed(b"a", 50_000)

        assert not usage.reserve(b"a", 10_001)
        assert usage.reserve(b"a", 10_000)

    def test_published_value_is_taken_and_what_it_replaced_given_back(self) -> None:
        """
        A publication ends what its upload held. The sums of a process only grow.
        """
        memory = self.memory(UNLIMITED)
        usage = self.usage(memory)
        for taken, replaced in ((4096, -1), (8192, 4096)):
            assert usage.reserve(b"a", taken)
            usage.published(b"a", taken, replaced)

        counts = memory.counts(0)
        assert (8192, 0) == (counts.taken, counts.held)
        assert (12288, 4096) == (counts.bytes_added, counts.bytes_removed)
        assert 1 == memory.values(0)
        usage.removed(b"a", 8192)
        assert (0, 0) == (memory.taken(0), memory.values(0))

    def test_key_has_the_quota_of_its_prefix_too(self) -> None:
        """
        What a key takes counts for its prefix and for the whole store; where one of
        them has no room, neither is charged.
        """
        memory = self.memory(10_000, 5_000, UNLIMITED)
        usage = self.usage(memory, PREFIXES)

        assert not usage.reserve(b"ci/x", 5_001)
        assert (0, 0) == (memory.taken(0), memory.taken(1))
        assert usage.reserve(b"ci/x", 5_000)
        assert usage.reserve(b"team/a/x", 5_000)
        assert not usage.reserve(b"team/a/x", 1)
        assert [10_000, 5_000, 5_000] == [memory.taken(quota) for quota in range(3)]
        usage.published(b"ci/x", 5_000, -1)
        usage.removed(b"ci/x", 5_000)
        assert [5_000, 0, 5_000] == [memory.taken(quota) for quota in range(3)]
        usage.release(b"team/a/x", 5_000)
        assert [0, 0, 0] == [memory.taken(quota) for quota in range(3)]

    def test_next_process_gives_back_what_a_killed_one_held(self) -> None:
        """
        The bytes of uploads that died with their process can be used again; those of
        its values stay.
        """
        memory = self.memory(10_000, 10_000, 10_000)
        usage = self.usage(memory, PREFIXES, row=3)
        assert usage.reserve(b"ci/x", 1_000)
        usage.published(b"ci/x", 1_000, -1)
        assert usage.reserve(b"ci/y", 2_000)
        memory.want(3, 0, 500)
        self.usage(memory, PREFIXES, row=3)

        assert [1_000, 1_000, 0] == [memory.taken(quota) for quota in range(3)]
        assert (0, 0) == (memory.counts(0).held, memory.counts(0).wanted)
        assert 1 == memory.values(0)

    def test_processes_never_exceed_a_limit(self) -> None:
        """
        Several processes reserve, publish and give back side by side, some of which are
        killed. The limit holds at each moment, and at the end every byte is accounted
        for.
        """
        seed = new_seed()
        limit = 40_000
        memory = self.memory(limit)
        children = [self._start(memory, row, seed + row) for row in range(1, 5)]
        highest = 0
        while children:
            highest = max(highest, memory.taken(0))
            ended, status = os.waitpid(children[0], os.WNOHANG)
            if ended:
                children.remove(ended)
                assert status in (0, signal.SIGKILL)

        assert highest <= limit
        for row in range(1, 5):
            self.usage(memory, row=row)
        counts = memory.counts(0)
        assert 0 == counts.held
        assert counts.taken == counts.bytes_added - counts.bytes_removed

    def _start(self, memory: UsageMemory, row: int, seed: int) -> int:
        pid = os.fork()
        if pid:
            return pid
        status = 1
        try:
            chance = random.Random(seed)
            usage = self.usage(memory, row=row)
            own: list[int] = []
            for _ in range(2_000):
                taken = chance.randrange(1, 20_000)
                if not usage.reserve(b"key", taken):
                    if own:
                        usage.removed(b"key", own.pop())
                elif chance.random() < 0.5:
                    usage.release(b"key", taken)
                else:
                    usage.published(b"key", taken, own.pop() if own else -1)
                    own.append(taken)
            if row % 2 and usage.reserve(b"key", 1):
                os.kill(os.getpid(), signal.SIGKILL)
            status = 0
        finally:
            os._exit(status)


class LockedUsageTests(UsageContract, SynchronousTestCase):
    """
    Python counts.
    """


class CompiledUsageTests(UsageContract, SynchronousTestCase):
    """
    The compiled module counts.
    """

    native = compiled("_fast_path")

    def test_row_outside_of_the_memory_is_refused(self) -> None:
        """
        The module writes nowhere else.
        """
        memory = self.memory(1)
        compiled_usage = compiled("_fast_path").Usage  # type: ignore[union-attr]
        for row in (-1, 10):
            with pytest.raises(ValueError, match="no such row"):
                compiled_usage(memory.bytes, (), row, module.WORDS)
        with pytest.raises(IndexError):
            compiled_usage(memory.bytes, (), 9, module.WORDS).correct(1, 1)


def test_taken_is_the_length_in_whole_blocks() -> None:
    """
    Also of an empty value, which takes an inode at least.
    """
    for take in (taken_by, taken_by_blocks):
        assert [4096, 4096, 4096, 8192] == [take(n) for n in (0, 1, 4096, 4097)]


def test_both_forms_find_the_same_quota() -> None:
    """
    The first whose prefix the key has; 0 for the store's own.
    """
    assert quota_of is not quota_in_python
    for form in (quota_of, quota_in_python):
        for key, quota in (
            (b"ci/", 1),
            (b"ci/a", 1),
            (b"team/a/b", 2),
            (b"team/a", 0),
            (b"ci", 0),
            (b"", 0),
        ):
            assert quota == form(PREFIXES, key), key
        assert 0 == form((), b"a")
        assert 1 == form((b"", b"a"), b"a")


def test_words_that_a_cell_does_not_have_are_refused() -> None:
    """
    A mistake here must not write into the memory of other quotas.
    """
    native = compiled("_fast_path")
    assert native is not None
    memory = bytearray(64 * 10)
    for words in ((8, 3, 0, 1, 0, 1, 2, 3, 8), (8, 3, 0, -1, 0, 1, 2, 3, 4), (0,) * 9):
        with pytest.raises(ValueError, match=r"^a cell has \d words, and none is"):
            native.Usage(memory, (), 0, words)


@pytest.mark.parametrize("call", ["os.ftruncate", "mmap.mmap"])
def test_memory_that_cannot_be_used_is_not_left_open(call: str) -> None:
    """
    As where there is none left.
    """
    opened = Descriptors("/memfd:")
    with (
        mock.patch(call, side_effect=OSError(errno.ENOMEM, "no memory")),
        pytest.raises(OSError, match="no memory"),
    ):
        create_usage([10], 3)

    assert 0 == opened.more
