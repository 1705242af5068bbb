"""
The syncs of a process are counted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from kvd.ipc import syncs
from kvd.ipc.histogram import BUCKETS
from kvd.ipc.row import ROW_WORDS, SYNCS, WORD_BYTES, Row, lone_row
from kvd.ipc.syncs import count_syncs
from kvd.native import compiled
from kvd.store import sync

native: Any = compiled("_fast_path")


@pytest.fixture(params=["compiled", "python"])
def one_sync(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[int], None]]:
    """
    Syncs a descriptor, in either way.
    """
    if request.param == "python":
        monkeypatch.setattr(syncs, "_native", None)
        yield sync.sync_in_python
        count_syncs(None)
        return
    if native is None:
        # Then the other way is all that there is.
        yield sync.sync_in_python
    else:
        yield native.sync
    count_syncs(None)


def counted(row: Row) -> int:
    """
    How many syncs have been counted.
    """
    return sum(row.words[SYNCS + 1 : SYNCS + 1 + BUCKETS])


def test_each_sync_is_counted_whichever_thread_makes_it(
    one_sync: Callable[[int], None], tmp_path: Path
) -> None:
    """
    With the time that it took; no count is lost between threads.
    """
    row = lone_row()
    count_syncs(row)
    file = os.open(tmp_path / "file", os.O_CREAT | os.O_WRONLY)
    with ThreadPoolExecutor(8) as threads:
        assert [None] * 200 == list(threads.map(lambda _: one_sync(file), range(200)))
    os.close(file)

    assert 200 == counted(row)
    assert row.words[SYNCS] > 0
    assert 0 == sum(row.words[SYNCS + 1 + BUCKETS :]), "only these words"


def test_a_sync_that_fails_is_counted_too(one_sync: Callable[[int], None]) -> None:
    """
    It took its time.
    """
    row = lone_row()
    count_syncs(row)
    reading, writing = os.pipe()
    with pytest.raises(OSError, match="Invalid argument"):
        one_sync(reading)
    os.close(reading)
    os.close(writing)

    assert 1 == counted(row)


def test_nothing_is_counted_when_the_row_is_no_longer_in_use(
    one_sync: Callable[[int], None], tmp_path: Path
) -> None:
    """
    Its memory can be released.
    """
    memory = bytearray(ROW_WORDS * WORD_BYTES)
    row = Row(memoryview(memory).cast("Q"), 0)
    count_syncs(row)
    count_syncs(None)
    file = os.open(tmp_path / "file", os.O_CREAT | os.O_WRONLY)
    one_sync(file)
    os.close(file)

    assert 0 == counted(row)
    del row
    memory.clear()


@pytest.mark.skipif(native is None, reason="there is no C compiler")
@pytest.mark.parametrize("word", [-1, 0, 10**9])
def test_the_compiled_module_writes_only_in_the_row(word: int) -> None:
    """
    A row without room is refused.
    """
    words = memoryview(bytearray(8 * 3)).cast("Q")
    with pytest.raises(ValueError, match="no room"):
        native.count_syncs(words, word, (0, 5), 0)
    with pytest.raises(ValueError, match="exponents"):
        native.count_syncs(words, 0, (), 0)
    with pytest.raises(ValueError, match="negative"):
        native.count_syncs(words, 0, (-1,), 0)
