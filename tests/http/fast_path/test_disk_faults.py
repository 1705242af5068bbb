"""
Tests for `kvd.http.commits`: what the kernel refuses at durability ``disk``, with the
fast path and without.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from unittest import mock

import pytest

from kvd.http.commits import Commits
from tests.http.fast_path.both import Worker
from tests.http.fast_path.cases import get, put
from tests.http.fast_path.test_faults import forbid
from tests.processes import in_child

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


def sealed_again_in_vain() -> Refused:
    """
    Store a value whose sync takes until the next second, when it cannot be sealed.
    """
    worker = Worker(fast_path=True, durability="disk")
    worker.connect(put("other", b"value"))
    worker.send(0, put("other", b"value"))
    with mock.patch.object(Commits, "doRead", return_value=None):
        time.sleep(1 - time.time() % 1)
        worker.send(0, put("k", b"value"))
        forbid(FSETXATTR, errno.EIO)
        time.sleep(1 - time.time() % 1)
    worker.send(0, get("k"))
    assert worker.watched is not None
    served = worker.watched.served
    return Refused(worker.replies(), worker.values(), worker.folder, served)


def test_what_cannot_be_sealed_again_is_not_published() -> None:
    """
    The client is told, and nothing has the key.
    """
    found = in_child(sealed_again_in_vain)
    shutil.rmtree(found.folder)

    (replies,) = found.replies
    statuses = re.findall(rb"HTTP/1.1 (\d+)", replies)
    assert [b"201", b"204", b"500", b"404"] == statuses
    assert {"other": b"value"} == found.values
