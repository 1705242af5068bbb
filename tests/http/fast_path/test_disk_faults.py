"""
Tests for `kvd.http.commits`: what the kernel refuses at durability ``disk``, with the
fast path and without.
"""

from __future__ import annotations

import errno
import os
import pickle
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import pytest

from tests.http.fast_path.both import Worker
from tests.http.fast_path.cases import get, put
from tests.http.fast_path.test_faults import forbid

T = TypeVar("T")

pytestmark = [
    pytest.mark.untraced,
    pytest.mark.skipif(
        os.uname().machine != "x86_64", reason="system calls have other numbers here"
    ),
]

FSYNC, RENAMEAT, RENAMEAT2, FSETXATTR, UTIMENSAT = 74, 264, 316, 190, 280
FSTATFS, LINKAT, UNLINKAT, MKDIRAT = 138, 265, 263, 258

RENAMES = RENAMEAT, RENAMEAT2

REFUSALS = [
    *(((FSYNC,), error) for error in (errno.EIO, errno.ENOSPC, errno.EROFS)),
    *((RENAMES, error) for error in (errno.EIO, errno.ENOSPC, errno.EROFS)),
    *(((FSETXATTR,), error) for error in (errno.ENOSPC, errno.EIO)),
    *(((UTIMENSAT,), error) for error in (errno.EIO, errno.EPERM)),
    *(((MKDIRAT,), error) for error in (errno.ENOSPC, errno.EMLINK)),
    ((FSTATFS,), errno.EIO),
    ((UNLINKAT,), errno.EIO),
]


def in_child(work: Callable[[], T]) -> T:
    """
    Do something in a process of its own, and give back what comes of it.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with os.fdopen(writing, "wb") as pipe:
                pickle.dump(work(), pipe)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    result: T = pickle.loads(said)
    return result


@dataclass
class Refused:
    """
    What came of some requests.
    """

    replies: list[bytes]
    values: dict[str, bytes]
    folder: str = field(compare=False)
    served: int = field(compare=False)
    """By the fast path."""


def refused(numbers: Sequence[int], error: int, *, fast_path: bool) -> Refused:
    """
    Store some values, of which the last ones meet system calls that fail.
    """
    worker = Worker(fast_path=fast_path, durability="disk")
    worker.connect(put("k", b"value"))
    worker.send(0, put("a/k", b"value"))
    worker.send(0, get("k"))
    for number in numbers:
        forbid(number, error)
    for key in ("k", "new", "a/k", "a/new", "folder/new"):
        worker.send(0, put(key, b"other"))
        worker.send(0, get(key))
    # It cannot be ended, as that needs such calls too. The folder is removed below.
    served = 0 if worker.watched is None else worker.watched.served
    return Refused(worker.replies(), worker.values(), worker.folder, served)


@pytest.mark.parametrize(("numbers", "error"), REFUSALS)
def test_both_ways_fail_alike(numbers: Sequence[int], error: int) -> None:
    """
    Clients hear the same, and the store holds the same.
    """
    fast, ordinary = (
        in_child(partial(refused, numbers, error, fast_path=fast_path))
        for fast_path in (True, False)
    )
    for each in (fast, ordinary):
        shutil.rmtree(each.folder)

    assert ordinary == fast
    if numbers == (FSYNC,):
        assert any(b"HTTP/1.1 50" in reply for reply in fast.replies)
    assert fast.served > 3
    assert 0 == ordinary.served
