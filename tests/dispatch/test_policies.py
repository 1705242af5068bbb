"""
Tests for the policies in `kvd.dispatch`.
"""

from twisted.trial.unittest import SynchronousTestCase

from kvd.dispatch.reuseport import ReusePort
from kvd.dispatch.shared import Shared
from kvd.interfaces import IDispatchPolicy
from kvd.plugins import IPolicyDeclaration, declared, load
from kvd.testing import PolicyContract


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


def test_both_are_found_by_name() -> None:
    """
    As an operator names them.
    """
    found = {name: load(IPolicyDeclaration, name) for name in ("shared", "reuseport")}

    assert found.keys() <= declared(IPolicyDeclaration).keys()
    assert isinstance(found["shared"], Shared)
    assert isinstance(found["reuseport"], ReusePort)
