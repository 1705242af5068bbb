"""
What dispatch policies provide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from zope.interface import Attribute, Interface

from kvd.model.programs import ClassicProgram, LoadedProgram
from kvd.model.view import View


class IDispatchPolicy(Interface):
    """
    Decides which worker gets the next connection.

    For each TCP address the supervisor holds a group of listening sockets with
    ``SO_REUSEPORT``; the kernel spreads new connections over the members of the group.
    Either workers accept from those members, so the kernel chooses the worker; or the
    supervisor accepts, asks the policy, and hands the connection over.

    A provider keeps no state: everything that a decision needs is in the view, so that
    the same view always gets the same answer, in the supervisor, in a simulation and in
    a test.

    `choose` is called for each connection. Everything else is called at the start. If
    it raises an exception, or if its answer leaves a socket without a worker, the start
    ends with a sentence for the operator.
    """

    kernel_chooses: bool = Attribute(
        """
        Whether workers accept connections themselves. Then `choose` is not called while
        serving: it is a model of what the kernel does, for simulations.
        """
    )

    def group_size(workers: int) -> int:
        """
        How many listening sockets a TCP address has: 1 or more.

        Args:
            workers: How many workers there are; at least 1.
        """

    def members_of(worker: int, workers: int) -> Sequence[int]:
        """
        The members of the group from which a worker accepts connections: none if the
        supervisor accepts. Otherwise every member belongs to a worker; while a worker
        is not ready, another one serves its members.

        Args:
            worker: The number of the worker, from 0 up.
            workers: How many workers there are.
        """

    def choose(view: View) -> int:
        """
        Pick the worker for one connection.

        Called in the supervisor's reactor for each connection: it must not wait, and
        microseconds matter. If it raises an exception, takes too long, or returns a
        number that is not a ready worker's, that is logged, and the connection goes to
        the worker whose turn it is.

        If several workers are equally good, the policy decides among them: let them
        take turns, by ``view.turn``. Loads lag behind, so connections that arrive at
        the same time often meet a tie.

        Args:
            view: The workers that can take the connection, and the load of each; see
                `View` for what is counted, where, and when.

        Returns:
            The number of a ready worker.
        """


class IProgramPolicy(IDispatchPolicy):
    """
    A policy in which the kernel chooses the worker, by a program.
    """

    def program(members: Sequence[int]) -> ClassicProgram:
        """
        The program that chooses the socket (`kvd.net.reuseport`).

        Args:
            members: The members of the group whose workers are ready; ascending, never
                empty. The program must choose no other.
        """


class ILoadedProgram(Interface):
    """
    An extended BPF program that the kernel has loaded, and the memory that says
    which sockets it may choose. To write that memory needs no privilege.
    """

    needs_own_sockets: bool = Attribute(
        """
        Whether the program is useless for an address with fewer sockets than the policy
        asks for (`IDispatchPolicy.group_size`).
        """
    )
    look_seconds: float | None = Attribute("How often to call `look`; None: never.")

    def program(group: int) -> LoadedProgram:
        """
        The program to attach.

        Args:
            group: The number of the address.
        """

    def admit(group: int, sockets: Mapping[int, int]) -> None:
        """
        Let the program choose only these sockets from now on.

        Args:
            group: The number of the address.
            sockets: The socket of each ready worker; never empty.
        """

    def look(waiting: Callable[[], Sequence[Sequence[int]]]) -> None:
        """
        Compare the program's counts with what the sockets report.

        Args:
            waiting: Returns, for each address where the program chooses, how many
                connections wait at each socket.
        """

    def close() -> None:
        """
        Close the program; where it is attached, it stays in effect.
        """


class IExtendedPolicy(IProgramPolicy):
    """
    A policy in which an extended BPF program chooses, which can use more than a packet
    contains. If the kernel does not load it, `program` is used.
    """

    fallback: str = Attribute(
        "The policy that `program` makes of it, as an operator would write it."
    )

    def load(groups: int, scoreboard: int) -> ILoadedProgram:
        """
        Load the program into the kernel.

        Args:
            groups: The number of addresses.
            scoreboard: The descriptor of the scoreboard's memory
                (`kvd.ipc.scoreboard`), which the kernel can read if it permits
                this process such programs.

        Raises:
            OSError: The kernel does not load it.
        """


class IGatedPolicy(IDispatchPolicy):
    """
    A policy in which workers accept from a shared socket, and leave a connection to
    others if those are less busy.
    """

    def accepts(worker: int, view: View) -> bool:
        """
        Whether a worker may take one of the connections that wait (``view.waiting``).
        Called in the worker. If all workers leave a connection waiting for long, any of
        them takes it.

        If one connection waits, the question is which worker takes it. If many wait,
        each worker should take its share at once: while gates are closed, the
        connections in a long queue wait for ever longer turns of those that were
        accepted.

        Args:
            worker: The number of the worker that asks.
            view: All workers that accept connections and are able to take one soon, the
                asking worker included.
        """


class IConfigurablePolicy(Interface):
    """
    A policy with options.
    """

    def with_options(options: Mapping[str, str]) -> IDispatchPolicy:
        """
        Return a policy like this one, with options.

        Args:
            options: The options as the operator wrote them; not empty.

        Raises:
            BadSetting: An option is unknown, or its value is invalid.
        """
