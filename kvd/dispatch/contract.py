"""
What every dispatch policy promises, as tests.
"""

from __future__ import annotations

from zope.interface.verify import verifyObject

from kvd.interfaces import IDispatchPolicy

WORKERS = (1, 2, 3, 8, 32, 64)


class PolicyContract:
    """
    Mixed into a test case that says how its policy is made.
    """

    def make_policy(self) -> IDispatchPolicy:
        """
        The policy under test.
        """
        raise NotImplementedError

    def test_it_provides_the_interface(self) -> None:
        """
        With every method, taking what it has to take.
        """
        assert verifyObject(IDispatchPolicy, self.make_policy())

    def test_every_group_has_a_member(self) -> None:
        """
        An address without a socket is none.
        """
        policy = self.make_policy()
        for workers in WORKERS:
            assert policy.group_size(workers) >= 1

    def test_every_member_is_some_workers(self) -> None:
        """
        Connections in a queue that nobody polls would hang.
        """
        policy = self.make_policy()
        for workers in WORKERS:
            polled = {
                member
                for worker in range(workers)
                for member in policy.members_of(worker, workers)
            }
            assert set(range(policy.group_size(workers))) == polled

    def test_every_worker_has_a_member(self) -> None:
        """
        A worker without one would idle for good.
        """
        policy = self.make_policy()
        for workers in WORKERS:
            for worker in range(workers):
                assert len(policy.members_of(worker, workers)) >= 1

    def test_the_same_question_has_the_same_answer(self) -> None:
        """
        A policy keeps no state.
        """
        policy, other = self.make_policy(), self.make_policy()
        for workers in (*WORKERS, *reversed(WORKERS)):
            assert policy.group_size(workers) == other.group_size(workers)
            assert list(policy.members_of(0, workers)) == list(
                other.members_of(0, workers)
            )
