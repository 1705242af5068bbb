"""
The sleep store: keeps nothing, and each PUT blocks its worker for a time.

It is for measuring policies under work that blocks: a sleeping worker needs no
processor, so even two processors can have any number of busy workers. The setting has
the times (``sleep:10ms``, or ``sleep:19x10ms,210ms`` for 19 of 20 requests and the
last), and the key determines the time of a request, so that the client knows it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from zlib import crc32

from zope.interface import implementer

from kvd.errors import BadSetting
from kvd.interfaces import IStore, IStoreMaker
from kvd.model.conditions import UNCONDITIONAL, Conditions
from kvd.model.keys import Key
from kvd.model.quantities import Count, Seconds
from kvd.model.values import NO_METADATA, Metadata, Published
from kvd.settings import Durability
from kvd.store.null import NullStore, NullStoreMaker, NullUpload

_read_share = Count("how many requests of all take a time", 1, 1000)
_read_time = Seconds(most=60)


def read_times(text: str) -> list[float]:
    """
    Read times in seconds, each repeated as often as stated: ``19x10ms,210ms`` gives 20.

    Raises:
        BadSetting: The text is invalid.
    """
    times: list[float] = []
    for part in text.split(","):
        share, found, seconds = part.rpartition("x")
        times += [_read_time(seconds)] * (_read_share(share) if found else 1)
    return times


def time_for(times: Sequence[float], key: bytes) -> float:
    """
    The seconds that a PUT under a key takes.
    """
    return times[crc32(key) % len(times)]


class SleepUpload(NullUpload):
    """
    An upload whose commit sleeps, in the reactor's thread.
    """

    def __init__(
        self,
        seconds: float,
        descriptor: int,
        key: Key,
        length: int | None,
        metadata: Metadata,
    ) -> None:
        super().__init__(descriptor, key, length, metadata)
        self._seconds = seconds

    def commit(self, conditions: Conditions) -> Published:
        time.sleep(self._seconds)
        return super().commit(conditions)


@implementer(IStore)
class SleepStore(NullStore):
    """
    A store that discards all values, and sleeps at each commit.
    """

    def __init__(self, times: Sequence[float]) -> None:
        super().__init__()
        self._times = times

    def begin(
        self,
        key: Key,
        length: int | None,
        metadata: Metadata = NO_METADATA,
        conditions: Conditions = UNCONDITIONAL,
    ) -> NullUpload:
        return SleepUpload(
            time_for(self._times, key), self._descriptor, key, length, metadata
        )


@implementer(IStoreMaker)
class SleepStoreMaker(NullStoreMaker):
    """
    Opens the sleep store; the setting is ``sleep:TIMES``.
    """

    def resolve(self, path: str) -> str:
        try:
            read_times(path)
        except BadSetting as error:
            raise BadSetting(
                "the sleep store needs its times, such as sleep:10ms or"
                f" sleep:19x10ms,210ms: {error.sentence}"
            ) from error
        return path

    def open_store(self, path: str, durability: Durability) -> NullStore:
        return SleepStore(read_times(path))


maker = SleepStoreMaker()
