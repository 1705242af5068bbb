"""
Tests for the policies in `kvd.dispatch`.
"""

import re
from dataclasses import replace
from random import Random

import pytest
from twisted.trial.unittest import SynchronousTestCase

from kvd.dispatch.policies.gated import Gated
from kvd.dispatch.policies.leastbusy import LeastBusy
from kvd.dispatch.policies.reuseport import ReusePort
from kvd.dispatch.policies.roundrobin import RoundRobin
from kvd.dispatch.policies.shared import Shared
from kvd.dispatch.policies.steered import Steered
from kvd.dispatch.selection import load_policy
from kvd.errors import BadSetting, UnknownPlugin
from kvd.interfaces import IDispatchPolicy, IGatedPolicy
from kvd.net.reuseport import by_chance, by_cpu, by_weight
from kvd.plugins import IPolicyDeclaration, declared, load
from kvd.testing import (
    DispatchedByLoadContract,
    GatedContract,
    PolicyContract,
    RotatingContract,
    view,
)


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


class RoundRobinTests(RotatingContract, SynchronousTestCase):
    """
    `RoundRobin` takes turns.
    """

    def make_policy(self) -> IDispatchPolicy:
        return RoundRobin()

    def test_everybody_gets_the_same(self) -> None:
        """
        To the connection.
        """
        assert [8] * 8 == self._dispatch(self.make_policy(), 8, 64)

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


class LeastBusyTests(DispatchedByLoadContract, RotatingContract, SynchronousTestCase):
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

    def test_among_equals_the_fewest_connections_count(self) -> None:
        """
        Each of them may ask again.
        """
        assert 2 == self.make_policy().choose(view(3, connections=(5, 4, 3)))

    def test_the_turn_of_a_worker_that_is_not_ready_passes_on(self) -> None:
        """
        Among equals.
        """
        assert 0 == self.make_policy().choose(view(4, ready=(0, 2), turn=3))

    def test_a_worker_that_is_not_ready_is_not_the_least_busy(self) -> None:
        """
        The row of a worker that is gone is empty.
        """
        assert 1 == self.make_policy().choose(view(2, ready=(1,), requests=(0, 9)))


class GatedTests(GatedContract, SynchronousTestCase):
    """
    `Gated` leaves connections to the least busy.
    """

    def make_policy(self) -> IGatedPolicy:
        return Gated()

    def test_the_least_busy_worker_accepts(self) -> None:
        """
        Fewest requests first, then fewest connections; all of them, if several have
        the same.
        """
        seen = view(4, requests=(1, 0, 0, 0), connections=(1, 5, 4, 4))
        policy = Gated()

        assert [False, False, True, True] == [policy.accepts(n, seen) for n in range(4)]


class SteeredTests(PolicyContract, SynchronousTestCase):
    """
    `Steered` lets a program choose.
    """

    def make_policy(self) -> IDispatchPolicy:
        return Steered()


class SteeredByCpuTests(PolicyContract, SynchronousTestCase):
    """
    By the processor that took the packet.
    """

    def make_policy(self) -> IDispatchPolicy:
        return Steered().with_options({"by": "cpu"})


class SteeredProgramTests(SynchronousTestCase):
    """
    The programs of `Steered`, and its model.
    """

    def test_programs_are_those_of_steering(self) -> None:
        """
        Over the members that are ready.
        """
        policy = Steered()
        assert by_chance([0, 2]) == policy.program([0, 2])
        by_processor = Steered("cpu")
        assert by_cpu([0, 2]) == by_processor.program([0, 2])
        weighted = Steered("weights", (3, 0, 5))
        assert by_weight([3, 0, 5, 1]) == weighted.program([0, 1, 2, 3])
        assert by_weight([3]) == weighted.program([0, 1])

    def test_others_serve_if_all_with_a_weight_are_gone(self) -> None:
        """
        Rather than nobody.
        """
        policy = Steered("weights", (3, 0, 0))

        assert by_chance([1, 2]) == policy.program([1, 2])
        assert policy.choose(view(3, ready=(1, 2))) in (1, 2)

    def test_the_model_follows_the_weights(self) -> None:
        """
        Over many connections.
        """
        policy = Steered("weights", (3, 0))
        chance = Random(1)
        chosen = [policy.choose(replace(view(3), random=chance)) for _ in range(4000)]

        assert 0 == chosen.count(1)
        assert 2800 < chosen.count(0) < 3200


class OptionTests(SynchronousTestCase):
    """
    Options stand behind a policy's name.
    """

    def test_options_are_given_to_the_policy(self) -> None:
        """
        As many as there are.
        """
        policy = load_policy("steered:weights=2/1")

        assert isinstance(policy, Steered)
        assert by_weight([2, 1]) == policy.program([0, 1])
        assert isinstance(load_policy("steered"), Steered)
        assert isinstance(load_policy("steered:by=cpu"), Steered)

    def test_impossible_options_are_refused(self) -> None:
        """
        The message says what would be right.
        """
        for text, sentence in (
            ("steered:", "are written steered:KEY=VALUE,KEY=VALUE"),
            ("steered:by", "are written steered:KEY=VALUE,KEY=VALUE"),
            ("steered:by=", "are written"),
            ("steered:by=cpu,by=cpu", "each key once"),
            ("steered:by=luck", "none of random, cpu, weights"),
            ("steered:speed=9", "no option 'speed'; it has by and weights"),
            ("steered:by=weights", "weights are given as"),
            ("steered:by=cpu,weights=1/2", "without another value of by"),
            ("steered:weights=1/x", "whole numbers"),
            ("steered:weights=-1", "whole numbers"),
            ("steered:weights=0/0", "to no worker: at least one weight"),
            ("shared:fast=yes", "'shared' has no options"),
        ):
            with pytest.raises(BadSetting, match=re.escape(sentence)):
                load_policy(text)
        with pytest.raises(UnknownPlugin, match="no policy named 'steerd'"):
            load_policy("steerd:by=cpu")


class ModelTests(SynchronousTestCase):
    """
    Where the kernel chooses, `choose` is a model of it.
    """

    def test_shared_goes_to_a_worker_that_waits(self) -> None:
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
    names = ("shared", "reuseport", "roundrobin", "leastbusy", "gated", "steered")
    found = {name: load(IPolicyDeclaration, name) for name in names}

    assert found.keys() <= declared(IPolicyDeclaration).keys()
    assert isinstance(found["shared"], Shared)
    assert isinstance(found["reuseport"], ReusePort)
    assert isinstance(found["roundrobin"], RoundRobin)
    assert isinstance(found["leastbusy"], LeastBusy)
