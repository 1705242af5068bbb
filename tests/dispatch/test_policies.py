"""
Tests for the policies in `kvd.dispatch`.
"""

from twisted.trial.unittest import SynchronousTestCase

from kvd.dispatch.leastbusy import LeastBusy
from kvd.dispatch.reuseport import ReusePort
from kvd.dispatch.roundrobin import RoundRobin
from kvd.dispatch.shared import Shared
from kvd.interfaces import IDispatchPolicy
from kvd.plugins import IPolicyDeclaration, declared, load
from kvd.testing import PolicyContract, view


class SharedTests(PolicyContract, SynchronousTestCase):
    """
    `Shared` lets the first to wake take the connection.
    """

    def make_policy(self) -> IDispatchPolicy:
        return Shared()

    def test_there_is_one_socket_for_all(self) -> None:
        """
        However many workers there are.
        """
        assert 1 == self.make_policy().group_size(32)


class ReusePortTests(PolicyContract, SynchronousTestCase):
    """
    `ReusePort` lets the kernel's hash choose.
    """

    def make_policy(self) -> IDispatchPolicy:
        return ReusePort()

    def test_everybody_has_a_socket_of_its_own(self) -> None:
        """
        And nobody another's.
        """
        policy = self.make_policy()

        assert [[n] for n in range(5)] == [
            list(policy.members_of(n, 5)) for n in range(5)
        ]


class RoundRobinTests(PolicyContract, SynchronousTestCase):
    """
    `RoundRobin` takes turns.
    """

    ties_rotate = True

    def make_policy(self) -> IDispatchPolicy:
        return RoundRobin()

    def test_everybody_gets_the_same(self) -> None:
        """
        To the connection.
        """
        assert [8] * 8 == self._deal(self.make_policy(), 8, 64)

    def test_turn_of_a_lost_worker_passes_on(self) -> None:
        """
        A turn that belonged to a lost worker goes to the one after it.
        """
        policy = self.make_policy()

        assert 2 == policy.choose(view(3, ready=[0, 2], turn=1))
        assert 0 == policy.choose(view(3, ready=[0, 1], turn=2))

    def test_load_makes_no_difference(self) -> None:
        """
        It is blind to costs; so says its description.
        """
        policy = self.make_policy()

        assert 1 == policy.choose(
            view(2, turn=1, connections=(0, 9), requests=(0, 9), handing_over=(0, 9))
        )


class LeastBusyTests(PolicyContract, SynchronousTestCase):
    """
    `LeastBusy` looks at what each worker does.
    """

    def make_policy(self) -> IDispatchPolicy:
        return LeastBusy()

    def test_fewest_requests_win(self) -> None:
        """
        However many idle connections a worker has, and whoever's turn it is.
        """
        busy = view(3, turn=1, requests=(1, 2, 0), connections=(1, 2, 500))

        assert 2 == self.make_policy().choose(busy)

    def test_what_is_on_its_way_counts(self) -> None:
        """
        A worker to which three are handed over is not idle (Seastar #3514: what
        was counted late went to one shard).
        """
        assert 1 == self.make_policy().choose(view(2, handing_over=(3, 2)))
        assert 0 == self.make_policy().choose(
            view(2, requests=(1, 0), handing_over=(0, 2))
        )

    def test_among_equals_the_fewest_connections_count(self) -> None:
        """
        Each of them may ask again.
        """
        assert 2 == self.make_policy().choose(view(3, connections=(5, 4, 3)))

    def test_ties_take_turns(self) -> None:
        """
        Nobody is everybody's first choice (Seastar #290: ties always went to
        shard 0).
        """
        policy = self.make_policy()

        assert [0, 1, 2, 3] == [policy.choose(view(4, turn=n)) for n in range(4)]
        assert 0 == policy.choose(view(4, ready=(0, 2), turn=3))
        assert [8] * 8 == self._deal(policy, 8, 64)

    def test_who_is_not_ready_is_not_the_least_busy(self) -> None:
        """
        The row of a worker that is gone is empty.
        """
        assert 1 == self.make_policy().choose(view(2, ready=(1,), requests=(0, 9)))


class ModelTests(SynchronousTestCase):
    """
    Where the kernel chooses, `choose` is a model of it.
    """

    def test_shared_goes_to_who_waits(self) -> None:
        """
        Who is busy wakes later.
        """
        busy = view(4, requests=(1, 1, 0, 1))

        assert 2 == Shared().choose(busy)

    def test_reuseport_is_blind(self) -> None:
        """
        And uneven by chance: a hash is no turn.
        """
        chosen = [ReusePort().choose(view(4, seed=seed)) for seed in range(400)]
        shares = [chosen.count(worker) for worker in range(4)]

        assert 400 == sum(shares)
        assert [100] * 4 != shares
        assert min(shares) > 60


def test_all_are_found_by_name() -> None:
    """
    As an operator names them.
    """
    names = ("shared", "reuseport", "roundrobin", "leastbusy")
    found = {name: load(IPolicyDeclaration, name) for name in names}

    assert found.keys() <= declared(IPolicyDeclaration).keys()
    assert isinstance(found["shared"], Shared)
    assert isinstance(found["reuseport"], ReusePort)
    assert isinstance(found["roundrobin"], RoundRobin)
    assert isinstance(found["leastbusy"], LeastBusy)
