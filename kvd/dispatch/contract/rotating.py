"""
What a policy promises further that takes turns.
"""

from __future__ import annotations

from kvd.dispatch.contract.every import PolicyContract
from kvd.dispatch.contract.views import WORKERS, view


class RotatingContract(PolicyContract):
    """
    What a policy promises further that takes turns among workers that are alike: mixed
    in instead of `PolicyContract`.
    """

    def test_ties_rotate(self) -> None:
        """
        In one round each ready worker is chosen once, whoever begins and while
        no load has changed yet.
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
