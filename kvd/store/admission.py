"""
Which uploads begin, where a store has limits.

An upload reserves what its value will take (`kvd.store.usage`) before its first byte,
so a client hears of a refusal before it sends its body. If the length is not known yet,
the upload reserves a block, and more as bytes come.

Where a limit evicts, an upload that finds no room waits for the evictor
(`kvd.store.evicting`), which sees how much is wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from kvd.errors import QuotaFull, ValueTooLarge
from kvd.interfaces import Answer
from kvd.model.keys import Key, escape
from kvd.model.quantities import format_size
from kvd.settings import Bounds
from kvd.store.reading import note_if_stale
from kvd.store.usage import UNLIMITED, UsageMemory, quota_of, taken_by
from kvd.store.value import FileValue
from kvd.store.waiting import Underway

FIRST_STEP_BYTES: Final = 64 << 10
LAST_STEP_BYTES: Final = 1 << 20
"""
How much an upload reserves ahead that does not know its length: first so much, and then
as much again as it has, up to a bound.
"""

WAIT_SECONDS: Final = 5.0
"""
How long an upload waits for the evictor.
"""

SURVEY_SECONDS: Final = 60.0
"""
How long at most, if the evictor has just been started, and looks at all values first.
"""

_FIRST_PAUSE_SECONDS: Final = 0.001
_LONGEST_PAUSE_SECONDS: Final = 0.01
_PAUSE_SHARE: Final = 0.01
"""
Of the time that an upload has waited, which may be longer: many may wait.
"""


class Admission:
    """
    Decides for one process whether an upload may begin.
    """

    def __init__(
        self, memory: UsageMemory, bounds: Bounds, row: int, clock: IReactorTime
    ) -> None:
        """
        Args:
            memory: Counts what is taken.
            bounds: All limits.
            row: The row of this process in the memory.
            clock: Schedules the waiting for room.
        """
        self._memory = memory
        self._quotas = bounds.quotas
        self.min_free = bounds.min_free
        """How many bytes of the file system stay free."""
        self.free: Callable[[], float] = lambda: inf
        """How many bytes the file system has beside those; set by the store."""
        self._row = row
        self._clock = clock
        self._prefixes = tuple(quota.prefix for quota in bounds.quotas[1:])
        self.usage = memory.usage(self._prefixes, row)

    def reserve(self, key: Key, length: int | None) -> QuotaReservation:
        """
        Reserve what an upload will take.

        Args:
            key: Its key.
            length: Of the value; None: it is not known yet.

        Raises:
            ValueTooLarge: No value of this length can ever be stored.
            QuotaFull: There is no room.
        """
        self.check_length(key, length or 0)
        reservation = QuotaReservation(self, key)
        if not reservation.cover(taken_by(length or 0)):
            raise self.refusal(key)
        return reservation

    async def reserve_later(
        self, key: Key, length: int | None, has_space: Callable[[], bool]
    ) -> QuotaReservation:
        """
        Wait for the evictor, and reserve. Raises what `reserve` raises.

        Args:
            key: See `reserve`.
            length: See `reserve`.
            has_space: Whether the file system has enough space.
        """
        reservation = QuotaReservation(self, key)
        await self.wait(reservation, taken_by(length or 0), has_space)
        return reservation

    def held(self, key: Key, taken: int) -> QuotaReservation:
        """
        What the fast path holds for an upload, from now on the caller's.

        Args:
            key: Its key.
            taken: How many bytes.
        """
        reservation = QuotaReservation(self, key)
        reservation.taken = taken
        return reservation

    def check_length(self, key: Key, length: int) -> None:
        """
        Check whether a value of this length, or of more, can ever be stored.

        Raises:
            ValueTooLarge: It cannot.
        """
        for quota in self._quotas_of(key):
            limit = self._memory.limit(quota)
            if taken_by(length) > limit:
                raise ValueTooLarge(
                    f"The value has {length} bytes; {self._place(quota)} may take at"
                    f" most {format_size(limit)}."
                )

    def evicts(self, key: Key, more: int) -> bool:
        """
        Whether room is made for an upload that finds none: all quotas that have too
        little room evict.

        Args:
            key: Its key.
            more: How many bytes it needs.
        """
        full = [
            quota
            for quota in self._quotas_of(key)
            if taken_by(more) > self._memory.limit(quota) - self._memory.taken(quota)
        ]
        # If none of them is full, the disk is.
        return all(self._quotas[quota].evicts for quota in full or [0])

    async def wait(
        self,
        reservation: QuotaReservation,
        taken: int,
        has_space: Callable[[], bool] = lambda: True,
    ) -> None:
        """
        Wait until a reservation holds so much.

        Args:
            reservation: Of an upload.
            taken: How much it is to hold.
            has_space: Whether the file system has enough space.

        Raises:
            QuotaFull: The evictor did not make enough room in time.
        """
        key = reservation.key
        more = taken - reservation.taken
        began = self._clock.seconds()
        waited = known = 0.0
        pause = _FIRST_PAUSE_SECONDS
        self._want(key, more)
        try:
            while not (has_space() and reservation.cover(taken)):
                if waited >= min(known + WAIT_SECONDS, SURVEY_SECONDS):
                    raise self.refusal(key)
                await deferLater(self._clock, pause)
                waited = self._clock.seconds() - began
                if not self._memory.surveyed:
                    known = waited
                longest = max(_LONGEST_PAUSE_SECONDS, _PAUSE_SHARE * waited)
                pause = min(2 * pause, longest)
        finally:
            self._want(key, -more)

    def _want(self, key: Key, taken: int) -> None:
        for quota in self._quotas_of(key):
            self._memory.want(self._row, quota, taken)

    def removed(self, key: Key, size: int) -> None:
        """
        A value was removed.
        """
        self.usage.removed(key, taken_by(size))

    def opened(self, value: FileValue) -> None:
        """
        A value was opened for a client.
        """
        resolution = self._memory.resolution_seconds
        note_if_stale(value.fileno(), value.status, resolution)

    def refusal(self, key: Key) -> QuotaFull:
        """
        The refusal of an upload that finds no room.
        """
        places = [
            f"{self._place(quota)} takes {self._memory.taken(quota)} of at most"
            f" {limit} bytes"
            for quota in self._quotas_of(key)
            if (limit := self._memory.limit(quota)) < UNLIMITED
        ]
        return QuotaFull(f"There is no room for /{escape(key)}: {', '.join(places)}.")

    def limit_of(self, key: Key) -> int:
        """
        How many bytes the values of the smallest quota of a key may take.
        """
        return min(map(self._memory.limit, self._quotas_of(key)))

    def _place(self, quota: int) -> str:
        prefix = self._quotas[quota].prefix
        return f"/{escape(prefix)}" if prefix else "the store"

    def _quotas_of(self, key: Key) -> Sequence[int]:
        quota = quota_of(self._prefixes, key)
        return (0, quota) if quota else (0,)


class QuotaReservation:
    """
    See `Reservation`.
    """

    def __init__(self, admission: Admission, key: Key) -> None:
        self._admission = admission
        self.key = key
        self.taken = 0
        """How many bytes are held."""
        self._ended = False

    def cover(self, taken: int) -> bool:
        """
        Hold this much, unless it already does.

        Returns:
            Whether there is room.
        """
        more = taken - self.taken
        if more > 0 and not self._ended:
            if not self._admission.usage.reserve(self.key, more):
                return False
            self.taken = taken
        return True

    def grow(self, size: int) -> Answer[None]:
        if taken_by(size) <= self.taken:
            return None
        # To make room does not help then.
        self._admission.check_length(self.key, size)
        if self._admission.min_free and self._admission.free() < 0:
            raise QuotaFull(
                f"There is no room for /{escape(self.key)}: less than"
                f" {self._admission.min_free} bytes of the disk are free."
            )
        ahead = min(max(size, FIRST_STEP_BYTES), LAST_STEP_BYTES)
        if self.cover(taken_by(size + ahead)):
            return None
        if not self._admission.evicts(self.key, taken_by(size) - self.taken):
            self.fit(size)
            return None
        # Nobody waits for it when its client has left.
        work = self._admission.wait(self, taken_by(size))
        return Underway().shield(work)

    def fit(self, size: int) -> None:
        taken = taken_by(size)
        if not self.cover(taken):
            raise self._admission.refusal(self.key)
        self._give_back(self.taken - taken)

    def published(self, replaced: int | None) -> None:
        taken, self.taken = self.taken, 0
        self._ended = True
        self._admission.usage.published(
            self.key, taken, -1 if replaced is None else taken_by(replaced)
        )

    def release(self) -> None:
        self._ended = True
        self._give_back(self.taken)

    def _give_back(self, taken: int) -> None:
        if taken > 0:
            self._admission.usage.release(self.key, taken)
            self.taken -= taken
