"""
A shadow: a second policy that is asked about every connection that the policy in force
dispatches. Its answers are counted, but have no effect.

The shadow gets the same views as the policy in force: the workers as they really are.
So the counts say what it would do next, not how busy the workers would be if it had
decided all along; for that, record connections and simulate them. Only `View.turn`,
which remembers a policy's own choices, and the random generator are the shadow's own.

The load of a chosen worker is counted in tasks: its requests in progress and the
connections on their way to it. A connection that is revoked or refused is handed over
again, and so counted again.

The shadow is asked after the batch has been sent to the workers, so that no connection
waits for it. A `Decider` bounds its time.
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
    Asks a second policy and counts its answers, while one policy is in force.
    """

    def __init__(self, name: str, policy: IDispatchPolicy) -> None:
        """
        Args:
            name: The policy as the operator wrote it, for the log.
            policy: The policy to ask.
        """
        self._decider = Decider(name, policy, "it is not counted as a shadow")
        self._turn: int | None = None
        self._random = Random()
        self._connections = self._agreed = self._unanswered = 0
        self._dispatched: Counter[int] = Counter()
        self._chosen: Counter[int] = Counter()
        self._found_dispatched = self._found_chosen = 0
        self._seconds = 0.0

    def look_on(self, views: Sequence[View], dispatched: Iterable[int]) -> None:
        """
        Ask about a batch that has been dispatched.

        Args:
            views: The view that each decision was based on.
            dispatched: The worker that each connection went to.
        """
        began = time.thread_time()
        self._decider.begin()
        try:
            answers = [self._ask(view) for view in views]
        finally:
            self._decider.end()
        self._seconds += time.thread_time() - began
        for view, worker, answer in zip(views, dispatched, answers, strict=True):
            self._count(view, worker, answer)

    def _ask(self, view: View) -> int | None:
        if self._turn is None:
            # Both start from the same turn, so that a policy agrees with itself.
            self._turn = view.turn
        own = replace(view, turn=self._turn, random=self._random)
        answer = self._decider.ask(own)
        if answer is not None:
            self._turn = (answer + 1) % len(view.connections)
        return answer

    def _count(self, view: View, worker: int, answer: int | None) -> None:
        if answer is None:
            # Counting it would compare the two policies over different connections.
            self._unanswered += 1
            return
        self._connections += 1
        self._agreed += answer == worker
        self._dispatched[worker] += 1
        self._chosen[answer] += 1
        self._found_dispatched += view.requests[worker] + view.handing_over[worker]
        self._found_chosen += view.requests[answer] + view.handing_over[answer]

    def counts(self, workers: Sequence[int]) -> dict[str, Any]:
        """
        All counts, as plain data.

        Args:
            workers: The present workers. The balance includes those that got nothing.
        """
        compared = self._connections
        asked = compared + self._unanswered
        return {
            "connections": compared,
            "agreed": self._agreed,
            "unanswered": self._unanswered,
            "seconds": round(self._seconds, 6),
            "microseconds": round(1e6 * self._seconds / max(1, asked), 1),
            "tasks": {
                "dispatched": self._found_dispatched,
                "shadow": self._found_chosen,
            },
            "found": {
                "dispatched": round(self._found_dispatched / max(1, compared), 3),
                "shadow": round(self._found_chosen / max(1, compared), 3),
            },
            "balance": {
                "dispatched": _balance(self._dispatched, workers),
                "shadow": _balance(self._chosen, workers),
            },
            "workers": [
                {
                    "worker": worker,
                    "dispatched": self._dispatched[worker],
                    "shadow": self._chosen[worker],
                }
                for worker in workers
            ],
        }


def _balance(got: Counter[int], workers: Sequence[int]) -> float:
    return round(jain_index([got[worker] for worker in workers]), 4)
