"""
The evictor: counts the values of a store and removes some, so that the store keeps to
its limits. One process of a daemon does that (`kvd.workers.evictor`).

It keeps a little room free below each limit that evicts (`headroom`), so that an upload
need not wait for it, and more if uploads wait for more. It removes the value whose
access time is the oldest (`kvd.store.survey`), under the lock of its key and only if it
still is the file that was looked at, with the same access time. So a value that was
read or replaced meanwhile stays. Who is reading a value has its file open, and reads on
to its end. A value is never removed within `PROTECTED_SECONDS` after its publication.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Final

from twisted.logger import Logger

from kvd.model.keys import Key, escape
from kvd.settings import Bounds
from kvd.store.candidates import Candidate, Candidates, make_candidates
from kvd.store.folders import prune
from kvd.store.removing import STAYS, Protected, Remover
from kvd.store.survey import MOST_CANDIDATES, Seen, Survey
from kvd.store.totals import Total, TotalsFile
from kvd.store.usage import Counts, State, UsageMemory, taken_by
from kvd.store.value import is_absence

PROTECTED_SECONDS: Final = 1.0
PROTECTED_NS: Final = int(PROTECTED_SECONDS * 1e9)

HEADROOM_SHARE: Final = 64
HEADROOM_BYTES: Final = 256 << 20
"""
How much of a limit stays free for new values: this part of it, at most so much.
"""

STEP_SECONDS: Final = 0.01
"""
How long one step takes.
"""

_NEAR_SECONDS: Final = 0.1
_IDLE_SECONDS: Final = 0.5
_LEAST_PAUSE_SECONDS: Final = 0.002
_REST: Final = 4
_SHORT_REST: Final = 1
"""
How many times as long as it worked a survey rests, if nobody waits for it; and if few
values are left that are known.
"""

_AT_ONCE: Final = 16
"""
How many values are removed by one call: each more call costs what removing a seventh of
a value does. Their keys are locked meanwhile.
"""

_EARLY_VALUES: Final = 4096
"""
How many values a survey has seen at least before some of them are removed, if uploads
wait; the next time twice as many as now.
"""

_MOST_EMPTIED: Final = 4096
_PRUNE_SECONDS: Final = 1.0
"""
How many folders may be empty, and for how long, until they are removed: to look at one
costs as much as to remove a value, and many values are in one.
"""

_MOST_FAILURES: Final = 16
_FAILED_SECONDS: Final = 10.0
"""
After so many failures in a row the evictor pauses for so long: the disk may be failing.
Of values that it may not remove, it logs one in this time.
"""

_LEAST_PERIOD_SECONDS: Final = 600.0
_PERIOD_SHARE: Final = 100
"""
The values are counted again after this time, and after as many times the time that it
took.
"""

_TTL_SHARE: Final = 16
_LEAST_TTL_SECONDS: Final = 1.0
"""
Expired values are looked for this often while one lives.
"""

_AGE_SHARE: Final = 16
_MOST_RESOLUTION_SECONDS: Final = 3600
_FIRST_RESOLUTION_SECONDS: Final = 60
"""
Reads are noted to this share of the age of the value that is removed next.
"""

_NEAR_SHARE: Final = 10
"""
A limit of which less than this part is free is looked at more often.
"""


def headroom(limit: int) -> int:
    """
    How much stays free below a limit that evicts.
    """
    return min(limit // HEADROOM_SHARE, HEADROOM_BYTES)


class Evictor:
    """
    Works in steps. It blocks, and so belongs to a process without a reactor.
    """

    _log = Logger()

    def __init__(
        self,
        root: int,
        remover: Remover,
        memory: UsageMemory,
        row: int,
        bounds: Bounds,
        totals: TotalsFile,
        *,
        seconds: Callable[[], float] = time.monotonic,
        now_ns: Callable[[], int] = time.time_ns,
        most_candidates: int = MOST_CANDIDATES,
    ) -> None:
        """
        Args:
            root: The store's folder.
            remover: Removes its values.
            memory: Counts what is taken.
            row: The row of this process in it.
            bounds: The limits.
            totals: Where the count is kept for the next daemon.
            seconds: The monotonic clock, by which this works and rests.
            now_ns: The time of day, which the times of files are compared with.
            most_candidates: See `Survey`.
        """
        self._root = root
        self._remover = remover
        self._memory = memory
        self._quotas = bounds.quotas
        self._prefixes = [quota.prefix for quota in bounds.quotas[1:]]
        self._min_free = bounds.min_free
        self._totals = totals
        self._seconds = seconds
        self._now_ns = now_ns
        self._most = most_candidates
        self._usage = memory.usage(self._prefixes, row)
        self._candidates: list[Candidates] = [make_candidates(1) for _ in bounds.quotas]
        self._early: list[int] = []
        self._found = [0] * len(bounds.quotas)
        self._rested = 0.0
        self._survey: Survey | None = None
        self._before: Sequence[Counts] = ()
        self._expired_bytes: list[int] = []
        self._began = self._worked = 0.0
        self._next_survey = 0.0
        self._is_useful = True
        self._took = 0.0
        self._failures = 0
        self._silent_until = float("-inf")
        self._pause_until = self._pruned = 0.0
        self._pause_seconds = _LEAST_PAUSE_SECONDS
        self._emptied: set[bytes] = set()
        self._evicts = any(quota.evicts for quota in bounds.quotas)
        ttls = [quota.ttl_seconds for quota in bounds.quotas if quota.ttl_seconds]
        self._ttl_period = max(
            _LEAST_TTL_SECONDS, min(ttls, default=float("inf")) / _TTL_SHARE
        )
        memory.surveyed = False
        if self._evicts:
            memory.resolution_seconds = _FIRST_RESOLUTION_SECONDS

    # -- steps ----------------------------------------------------------------

    def step(self) -> float:
        """
        Do some work.

        Returns:
            How many seconds to wait before the next step.
        """
        began = self._seconds()
        if began < self._pause_until:
            return min(_NEAR_SECONDS, self._pause_until - began)
        evicted = self._make_room(began + STEP_SECONDS)
        is_urgent = any(self._excess(quota) > 0 for quota in self._evicting())
        if is_urgent and not evicted:
            self._need_candidates()
        if self._survey is None and (began >= self._next_survey or self._has_few()):
            self._begin_survey()
        if self._survey is not None:
            hurries = is_urgent or self._memory.state == State.COUNTING
            return self._step_survey(0 if hurries else self._rest_factor())
        longest = _NEAR_SECONDS if self._is_near() else _IDLE_SECONDS
        # Where room was made a moment ago, more may be wanted soon.
        pause = (
            _LEAST_PAUSE_SECONDS if evicted or is_urgent else 2 * self._pause_seconds
        )
        self._pause_seconds = min(pause, longest)
        return self._pause_seconds

    def _step_survey(self, rest: int) -> float:
        """
        Look at some values.

        Args:
            rest: How many times as long as it works a survey rests.

        Returns:
            See `step`. Meanwhile room may have to be made.
        """
        began = self._seconds()
        if rest and began < self._rested:
            return _LEAST_PAUSE_SECONDS
        while self._survey is not None and self._seconds() < began + STEP_SECONDS:
            self._continue_survey()
        if self._survey is not None and self._memory.state == State.COUNTING:
            self._raise_to(self._survey)
        ended = self._seconds()
        self._rested = ended + rest * (ended - began)
        return _LEAST_PAUSE_SECONDS if rest else 0.0

    def _has_few(self) -> bool:
        """
        Whether more values should be found before those that are known are used up.
        """
        return self._is_useful and any(
            len(self._candidates[quota]) < self._found[quota] // 4
            for quota in self._evicting()
        )

    def _rest_factor(self) -> int:
        are_scarce = any(
            len(self._candidates[quota]) < self._found[quota] // 8
            for quota in self._evicting()
        )
        return _SHORT_REST if are_scarce else _REST

    def stop(self) -> None:
        """
        Keep the count for the next daemon. Nothing may be published afterwards.
        """
        self._prune()
        if self._survey is not None:
            self._survey.close()
        if self._memory.state != State.COUNTING:
            self._keep_totals()

    def _is_near(self) -> bool:
        """
        Whether a limit may soon be reached.
        """
        return any(
            self._excess(quota) > -self._memory.limit(quota) // _NEAR_SHARE
            for quota in self._evicting()
        )

    # -- eviction -------------------------------------------------------------

    def _evicting(self) -> list[int]:
        return [number for number, quota in enumerate(self._quotas) if quota.evicts]

    def _excess(self, quota: int) -> int:
        """
        How many bytes are to be removed.
        """
        counts = self._memory.counts(quota)
        limit = counts.limit
        excess = counts.taken - limit + max(headroom(limit), counts.wanted)
        if quota == 0 and self._min_free:
            space = os.fstatvfs(self._root)
            free = space.f_bavail * space.f_frsize
            spare = headroom(self._min_free)
            excess = max(excess, self._min_free + max(spare, counts.wanted) - free)
        return excess

    def _make_room(self, until: float) -> int:
        """
        Remove values of quotas that are full.

        Returns:
            How many were removed.
        """
        evicted, last = 0, None
        # Those of prefixes first: what they remove counts for the whole store too.
        for quota in reversed(self._evicting()):
            excess = self._excess(quota)
            candidates = self._candidates[quota]
            while excess > 0 and candidates and self._seconds() < until:
                oldest = candidates.oldest(_AT_ONCE)
                removed = self._remove(oldest, excess)
                candidates.drop(len(removed))
                for candidate, freed in zip(oldest, removed, strict=False):
                    if freed:
                        evicted += 1
                        excess -= freed
                        self._memory.count_evicted(quota, freed)
                        last = candidate
                if self._seconds() < self._pause_until:
                    break
        if last is not None:
            self._is_useful = True
            self._note_age(last)
        if len(self._emptied) >= _MOST_EMPTIED or (
            self._seconds() >= self._pruned + _PRUNE_SECONDS
        ):
            self._prune()
        return evicted

    def _remove(self, candidates: list[Candidate], wanted: int) -> list[int]:
        """
        Remove values in their order, unless they were used or replaced.

        Returns:
            How many bytes the first of them took, until it is as many as are wanted; 0:
            a value stays, or is gone.
        """
        now_ns = self._now_ns()
        protected = Protected(now_ns - PROTECTED_NS, now_ns)
        freed = []
        all_removed = self._remover.remove(candidates, wanted, protected)
        for (_, _, key), removed in zip(candidates, all_removed, strict=False):
            taken = 0
            if not isinstance(removed, int):
                if not (isinstance(removed, OSError) and is_absence(removed)):
                    self._failed(key, removed)
            elif removed != STAYS:
                self._failures = 0
                taken = taken_by(removed)
                self._usage.removed(key, taken)
                self._emptied.add(key.rpartition(b"/")[0])
            freed.append(taken)
        return freed

    def _failed(self, key: Key, error: Exception) -> None:
        if isinstance(error, PermissionError):
            # Others have placed it, and maybe very many. The disk works.
            if self._seconds() < self._silent_until:
                return
            self._silent_until = self._seconds() + _FAILED_SECONDS
        else:
            self._failures += 1
        self._log.warn(
            "/{key} cannot be removed to make room: {reason}",
            key=escape(key),
            reason=error,
        )
        if self._failures >= _MOST_FAILURES:
            self._pause_until = self._seconds() + _FAILED_SECONDS

    def _prune(self) -> None:
        self._pruned = self._seconds()
        emptied, self._emptied = self._emptied, set()
        for path in emptied:
            prune(self._root, path.split(b"/") if path else ())

    def _note_age(self, candidate: Candidate) -> None:
        accessed_ns, _, _ = candidate
        age_seconds = (self._now_ns() - accessed_ns) / 1e9
        self._memory.resolution_seconds = min(
            _MOST_RESOLUTION_SECONDS, max(1, int(age_seconds / _AGE_SHARE))
        )

    def _need_candidates(self) -> None:
        """
        A quota is full, and nothing is known that can be removed.
        """
        if self._survey is not None:
            self._take_early(self._survey)
        elif self._is_useful:
            self._begin_survey()
        else:
            # All that was found is protected or cannot be removed: look again later.
            pause = max(PROTECTED_SECONDS / 4, _REST * self._took)
            self._next_survey = min(self._next_survey, self._seconds() + pause)

    def _take_early(self, survey: Survey) -> None:
        """
        Remove some of what was found already: uploads wait, and the survey may take
        long. These are the oldest of a part of the values, and so old ones of all.
        """
        for quota in self._evicting():
            seen = survey.seen(quota).values
            if (
                seen >= self._early[quota]
                and not self._candidates[quota]
                and self._excess(quota) > 0
            ):
                self._early[quota] = 2 * seen
                found = survey.candidates[quota]
                self._candidates[quota] = found.take(len(found) // 4)

    # -- surveys --------------------------------------------------------------

    def _begin_survey(self) -> None:
        self._before = [self._memory.steady_counts(q) for q in range(len(self._quotas))]
        self._began = self._seconds()
        self._expired_bytes = [0] * len(self._quotas)
        self._early = [_EARLY_VALUES] * len(self._quotas)
        self._survey = Survey(
            self._root, self._quotas, self._now_ns, self._expire, self._most
        )

    def _continue_survey(self) -> None:
        survey = self._survey
        assert survey is not None
        try:
            goes_on = survey.step()
        except OSError as error:
            self._log.warn("the values cannot be counted: {reason}", reason=error)
            self._survey = None
            self._next_survey = self._seconds() + _FAILED_SECONDS
            return
        if not goes_on:
            self._survey = None
            self._end_survey(survey)

    def _raise_to(self, survey: Survey) -> None:
        """
        Let the limits hold for what the first survey has seen so far.
        """
        for quota, before in enumerate(self._before):
            now = self._memory.counts(quota)
            least = survey.seen(quota).taken - now.removed_since(before)
            self._usage.correct(quota, max(0, least - now.values_taken))

    def _end_survey(self, survey: Survey) -> None:
        is_first = self._memory.state == State.COUNTING
        self._is_useful = False
        for quota, before in enumerate(self._before):
            seen = survey.seen(quota)
            now = self._memory.steady_counts(quota)
            added = now.added_since(before)
            # Expired values were not seen.
            removed = now.removed_since(before) - self._expired_bytes[quota]
            estimate = now.values_taken
            if is_first:
                estimate = seen.taken + (added - removed) // 2
            right = max(seen.taken - removed, min(seen.taken + added, estimate))
            self._usage.correct(quota, right - now.values_taken)
            self._memory.set_values(quota, self._right_values(quota, seen, before, now))
            candidates = self._candidates[quota] = survey.candidates[quota]
            self._found[quota] = len(candidates)
        self._memory.state = State.COUNTED
        self._memory.surveyed = True
        took = self._took = self._seconds() - self._began
        self._next_survey = self._seconds() + min(
            max(_LEAST_PERIOD_SECONDS, _PERIOD_SHARE * took),
            max(self._ttl_period, _REST * took),
        )
        self._keep_totals()

    def _right_values(self, quota: int, seen: Seen, before: Counts, now: Counts) -> int:
        """
        How many values there are, by the same bounds.
        """
        added = now.values_added - before.values_added
        removed = now.values_removed - before.values_removed
        known = self._memory.values(quota)
        if self._memory.state == State.COUNTING:
            known = seen.values + (added - removed) // 2
        return max(seen.values - removed, min(seen.values + added, known))

    def _expire(self, quotas: Sequence[int], candidate: Candidate) -> bool:
        (freed,) = self._remove([candidate], 1)
        if freed:
            for quota in quotas:
                self._expired_bytes[quota] += freed
                self._memory.count_expired(quota)
        return bool(freed)

    def _keep_totals(self) -> None:
        prefixes = [quota.prefix for quota in self._quotas]
        totals = []
        for quota in range(len(prefixes)):
            counts = self._memory.steady_counts(quota)
            values = self._memory.values(quota)
            totals.append(Total(max(0, counts.values_taken), max(0, values)))
        try:
            self._totals.write(prefixes, totals)
        except OSError as error:
            self._log.warn(
                "the count of the store cannot be kept: {reason}", reason=error
            )
