"""
What policies that take turns promise further.
"""

from __future__ import annotations

from kvd.dispatch.contract.every import PolicyContract
from kvd.dispatch.contract.views import WORKERS, view


class RotatingContract(PolicyContract):
    """
    Workers that tie take turns. A mixin to use instead of `PolicyContract`.
    """

    def test_ties_rotate(self) -> None:
        """
        In one round each ready worker is chosen once, whichever worker begins, as long
        as no load changes.
        """
        policy = self.make_policy()
        for workers in WORKERS:
            for ready in (range(workers), range(0, workers, 3)):
                for begins in range(workers):
                    turn, chosen = begins, []
                    for _ in ready:
                        worker = policy.choose(
                            view(workers, ready=tuple(ready), turn=turn)
                        )
                        chosen.append(worker)
                        turn = (worker + 1) % workers
                    assert list(ready) == sorted(chosen)
