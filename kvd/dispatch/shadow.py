"""
A second policy, asked about every connection that the policy in force deals: its
answers are counted, and applied to nothing.

It is shown what the policy in force was shown, at the same moment: the workers as they
really are. So the counts say what it would do next, not what would have become of the
workers if it had done so all the time; for that, connections are recorded, and
simulated. Only `View.turn` is its own, since that is the memory of its own choices;
and chance.

How busy a chosen worker was is counted in tasks: its requests in progress and the
connections on their way to it. A connection that is revoked or refused is handed over
again, and so counted again.

It is asked when the batch is on its way to the workers, so that nobody's connection
waits for it, with a `Decider`'s care.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from kvd.dispatch.balance import jain_index
from kvd.dispatch.deciding import Decider
from kvd.interfaces import IDispatchPolicy
from kvd.model.view import View


class Shadow:
    """
    Asks and counts, beside one policy in force.
    """

    def __init__(self, name: str, policy: IDispatchPolicy) -> None:
        """
        Args:
            name: As the operator chose it, for the log.
            policy: Who is asked.
        """
        self._decider = Decider(name, policy, "it is not counted as a shadow")
        self._turn: int | None = None
        self._random = Random()
        self._connections = self._agreed = self._unanswered = 0
        self._dealt: Counter[int] = Counter()
        self._chosen: Counter[int] = Counter()
        self._found_dealt = self._found_chosen = 0
        self._seconds = 0.0

    def look_on(self, views: Sequence[View], dealt: Iterable[int]) -> None:
        """
        A batch has been dealt.

        Args:
            views: What each decision saw.
            dealt: The worker that each connection went to.
        """
        began = time.thread_time()
        self._decider.begin()
        try:
            answers = [self._ask(view) for view in views]
        finally:
            self._decider.end()
        self._seconds += time.thread_time() - began
        for view, worker, answer in zip(views, dealt, answers, strict=True):
            self._count(view, worker, answer)

    def _ask(self, view: View) -> int | None:
        if self._turn is None:
            # They begin alike, so that a policy agrees with itself.
            self._turn = view.turn
        own = replace(view, turn=self._turn, random=self._random)
        answer = self._decider.ask(own)
        if answer is not None:
            self._turn = (answer + 1) % len(view.connections)
        return answer

    def _count(self, view: View, worker: int, answer: int | None) -> None:
        if answer is None:
            # Else the two would be compared over different connections.
            self._unanswered += 1
            return
        self._connections += 1
        self._agreed += answer == worker
        self._dealt[worker] += 1
        self._chosen[answer] += 1
        self._found_dealt += view.requests[worker] + view.handing_over[worker]
        self._found_chosen += view.requests[answer] + view.handing_over[answer]

    def counts(self, workers: Sequence[int]) -> dict[str, Any]:
        """
        All that was counted, as plain data.

        Args:
            workers: Who is there, for the balance: who got nothing counts too.
        """
        compared = self._connections
        asked = compared + self._unanswered
        return {
            "connections": compared,
            "agreed": self._agreed,
            "unanswered": self._unanswered,
            "seconds": round(self._seconds, 6),
            "microseconds": round(1e6 * self._seconds / max(1, asked), 1),
            "tasks": {"dealt": self._found_dealt, "shadow": self._found_chosen},
            "found": {
                "dealt": round(self._found_dealt / max(1, compared), 3),
                "shadow": round(self._found_chosen / max(1, compared), 3),
            },
            "balance": {
                "dealt": _balance(self._dealt, workers),
                "shadow": _balance(self._chosen, workers),
            },
            "workers": [
                {
                    "worker": worker,
                    "dealt": self._dealt[worker],
                    "shadow": self._chosen[worker],
                }
                for worker in workers
            ],
        }


def _balance(got: Counter[int], workers: Sequence[int]) -> float:
    return round(jain_index([got[worker] for worker in workers]), 4)
