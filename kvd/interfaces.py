"""
Every contract that others may provide.

An *answer* (`Answer`) is a result, or a Deferred of it: a store on a local
disk answers directly where it does not wait, a remote one with a Deferred.
An exception may come either way too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, TypeVar

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from kvd.model.conditions import Conditions
from kvd.model.keys import Key
from kvd.model.operations import Operation
from kvd.model.programs import ClassicProgram, LoadedProgram
from kvd.model.requests import Request
from kvd.model.values import NO_METADATA, Metadata, Published, ValueInfo
from kvd.model.view import View
from kvd.settings import Durability, Modes, User

T = TypeVar("T")
Answer: TypeAlias = T | Deferred[T]


# -- stores -------------------------------------------------------------------


class IValue(Interface):
    """
    A value, opened. Everything it says and gives describes the value as it
    was when opened, whatever happens to its key meanwhile.
    """

    info: ValueInfo = Attribute("What is known of the value.")

    def fileno() -> int | None:
        """
        A descriptor of a regular file that holds exactly the value's bytes
        from offset 0, or None where the store has none. It belongs to the
        value and is not to be seeked or closed.
        """

    def read(offset: int, count: int) -> Answer[bytes]:
        """
        Bytes of the value.

        Args:
            offset: Where to begin, below the value's size.
            count: How many at most; at least one comes.

        Raises:
            StoreFault: They cannot be read.
        """

    def close() -> None:
        """
        Let go of whatever is held. Further calls do nothing.
        """


class IUpload(Interface):
    """
    A value that is being written. Nobody sees it before `commit`.

    Ends with exactly one `commit` or `discard`; a commit that fails has
    discarded it.
    """

    def write(chunk: bytes) -> Answer[None]:
        """
        Append a chunk. Nothing of it is held in memory afterwards; a Deferred
        asks the caller to wait before the next one.

        Raises:
            StoreFull: No room; the upload is good for nothing but `discard`.
            StoreFault: It could not be written; likewise.
        """

    def fileno() -> int | None:
        """
        A descriptor to which the rest of the value may be spliced or written
        instead, or None where the store has none. It stands at the end of
        what was written and is not to be closed.
        """

    def commit(conditions: Conditions) -> Answer[Published]:
        """
        Publish the value under its key, if the conditions hold at that very
        moment. Decided and done at once: of several commits of one key, in
        whatever process, each sees the whole of another or nothing of it.

        When the answer comes, what the store's durability promises holds.

        Raises:
            PreconditionFailed: A condition does not hold.
            KeyConflict: The key has become a folder, or leads through a value.
            StoreFull: No room for the name.
            StoreBusy: Somebody else keeps the key locked.
            SyncFailed: The disk did not confirm.
            StoreFault: Anything else. The old value stays in all these cases,
                except that after a `SyncFailed` either may be found.
        """

    def discard() -> None:
        """
        Throw the upload away: nothing of it is left behind. Further calls do
        nothing.
        """


class IListing(Interface):
    """
    A walk over stored values.
    """

    def next_slice() -> Answer[Sequence[ValueInfo]]:
        """
        Some more values; an empty sequence at the end. Takes a bounded time
        and bounded memory, and keeps the reactor free meanwhile. One call at a
        time. A value published or removed during the walk may or may not be
        in it; one that stays is in it exactly once.

        Raises:
            StoreFault: The walk cannot go on.
        """

    def close() -> None:
        """
        End the walk early. Further calls do nothing.
        """


class IStore(Interface):
    """
    Keeps values under keys.
    """

    durability: str = Attribute(
        "What `IUpload.commit` and `remove` promise: ``disk``, ``process``, or"
        " ``none`` for a store that keeps nothing."
    )

    def begin(
        key: Key, length: int | None, metadata: Metadata = NO_METADATA
    ) -> Answer[IUpload]:
        """
        Begin to write a value.

        Args:
            key: Where it will be.
            length: How many bytes it will have, None when not yet known.
                `IUpload.commit` after more or fewer is a mistake of the
                caller.
            metadata: What to keep with it; at most `MAX_METADATA_BYTES`.

        Raises:
            KeyConflict: The key is a folder of other keys, or leads through
                another key's value.
            StoreFull: The length is more than there is room for.
            StoreFault: The upload cannot be opened.
        """

    def open(key: Key) -> Answer[IValue]:
        """
        Open a value for reading.

        Raises:
            KeyAbsent: There is none.
            StoreFault: It cannot be read.
        """

    def stat(key: Key) -> Answer[ValueInfo]:
        """
        What is known of a value. Raises as `open` does.
        """

    def remove(key: Key, conditions: Conditions) -> Answer[None]:
        """
        Remove a value, if the conditions hold at that very moment. Who reads
        it goes on reading. When the answer comes, what the durability
        promises holds.

        Raises:
            KeyAbsent: There is none, whatever the conditions (RFC 9110
                section 13.2.1).
            PreconditionFailed: A condition does not hold.
            StoreBusy: Somebody else keeps the key locked.
            SyncFailed: The disk did not confirm; the value may be gone.
            StoreFault: Anything else.
        """

    def list(prefix: bytes, after: bytes, limit: int | None) -> IListing:
        """
        Walk over the values whose keys begin with a prefix.

        Args:
            prefix: Empty, or ending with ``/``. One that no key has lists
                nothing.
            after: With a limit: only keys greater than this, compared as
                bytes; may be empty.
            limit: None: all values in no order, in constant memory, slice by
                slice. Else the first so many in the order of their keys'
                bytes, in one slice, in the memory of one page.
        """

    def close() -> Answer[None]:
        """
        Let go of everything held; called once, after the last upload ended.
        """


class IStoreMaker(Interface):
    """
    What a store plugin names: checks a location and opens the store there.
    """

    def resolve(path: str) -> str:
        """
        The setting's part behind the colon in a form that does not depend on
        the current folder. Touches nothing.

        Raises:
            BadSetting: The text cannot be a location of this store.
        """

    def prepare(path: str) -> None:
        """
        Called once in the supervisor, before any worker: make what is
        missing and find out whether the store will work.

        Raises:
            StoreUnusable: It will not; the sentence says why.
        """

    def open_store(path: str, durability: Durability) -> IStore:
        """
        Open the store in this process, which has a running or soon running
        reactor.

        Raises:
            StoreUnusable: It cannot be opened.
        """


class IHeldStoreMaker(IStoreMaker):
    """
    A store plugin whose stores are in something that has a name, which may lead to
    something else one day: a folder that was moved away and made anew. The supervisor
    holds what it found at the start, and all workers open the store in that.
    """

    def hold(path: str) -> int:
        """
        Open what the store is in. Called once in the supervisor, after `prepare`.

        Returns:
            A descriptor.

        Raises:
            StoreUnusable: It cannot be opened.
        """

    def open_held(path: str, durability: Durability, held: int) -> IStore:
        """
        The same as `open_store`, wherever the path leads by now.

        Args:
            path: For what is told; that it leads elsewhere is worth a warning.
            durability: What the store promises.
            held: A copy of what `hold` returned; stays the caller's.

        Raises:
            StoreUnusable: It cannot be opened.
        """


class IFileStoreMaker(IStoreMaker):
    """
    An `IStoreMaker` whose store makes files.
    """

    def making(modes: Modes, user: User | None) -> IStoreMaker:
        """
        The same, for a store in which everything is made so.

        Args:
            modes: The permissions of files and folders, whatever the umask.
            user: Whom this process will be when it opens the store: what `prepare`
                makes is that user's, and is tried as that user. None: as it is.
        """


# -- dispatch -----------------------------------------------------------------


class IDispatchPolicy(Interface):
    """
    Decides which worker gets the next connection.

    The supervisor holds, for each TCP address, a group of listening sockets
    made with ``SO_REUSEPORT``; the kernel spreads new connections over the
    group's members. Either workers accept from those members, and so the
    kernel chooses among them; or the supervisor accepts, asks the policy, and
    hands the connection over.

    A provider keeps no state: what a decision needs is in the view, so that
    the same view always gets the same answer, be it in the supervisor, in a
    simulation or in a test.

    `choose` is asked for each connection. All else is asked at the start, and
    an exception there, or an answer by which some socket would be nobody's, is
    a sentence for whoever starts kvd, which ends that.
    """

    kernel_chooses: bool = Attribute(
        """
        Whether workers accept for themselves. Then nobody asks `choose` while
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
        The members of the group that a worker takes connections from: none
        where the supervisor accepts. Elsewhere every member is some worker's;
        members of a worker that is not ready are served by another meanwhile.

        Args:
            worker: Its number, from 0 up.
            workers: How many there are.
        """

    def choose(view: View) -> int:
        """
        Pick the worker for one connection.

        Called in the supervisor's reactor, for each connection: it may not
        wait, and microseconds matter. An answer that is no ready worker, an
        exception and an answer that takes too long are logged, and the
        connection goes to whoever's turn it is.

        Where several workers are equally good, the policy says which: let them
        take turns, by ``view.turn``. Loads lag behind, so that connections
        that come at once often meet a tie.

        Args:
            view: The workers that can take it, and how busy each is; its
                docstring says what is counted, by whom, and when.

        Returns:
            The number of a ready worker.
        """


class IProgramPolicy(IDispatchPolicy):
    """
    A policy in which the kernel chooses, by a program.
    """

    def program(members: Sequence[int]) -> ClassicProgram:
        """
        The program that chooses (`kvd.net.reuseport`).

        Args:
            members: Of the group, those whose workers are ready; ascending, never
                empty. No other may be chosen.
        """


class ILoadedProgram(Interface):
    """
    A program of extended BPF that the kernel has taken, and the memory by which it
    is told which sockets are meant. The latter takes no privilege.
    """

    needs_own_sockets: bool = Attribute(
        """
        Whether it is of no use to an address with fewer sockets than the policy
        wants (`IDispatchPolicy.group_size`).
        """
    )
    look_seconds: float | None = Attribute("How often it wants `look`; None: never.")

    def program(group: int) -> LoadedProgram:
        """
        What is to be attached.

        Args:
            group: The number of the address.
        """

    def admit(group: int, sockets: Mapping[int, int]) -> None:
        """
        Let only these sockets be chosen from now on.

        Args:
            group: The number of the address.
            sockets: Of the ready workers, the socket of each; never empty.
        """

    def look(waiting: Callable[[], Sequence[Sequence[int]]]) -> None:
        """
        Compare what was counted with what is.

        Args:
            waiting: Asks, for each address where it chooses, how many connections
                wait at each socket.
        """

    def close() -> None:
        """
        Let go of it; where it is attached it goes on.
        """


class IExtendedPolicy(IProgramPolicy):
    """
    A policy in which a program of extended BPF chooses, which can know more than a
    packet tells. Where it cannot be had, `program` is used.
    """

    fallback: str = Attribute(
        "What `program` makes of it: a policy, as an operator would write it."
    )

    def load(groups: int, scoreboard: int) -> ILoadedProgram:
        """
        Have the kernel take the program.

        Args:
            groups: How many addresses there are.
            scoreboard: The descriptor of its memory (`kvd.dispatch.scoreboard`), which
                the kernel may read if it lets this process have such programs.

        Raises:
            OSError: It does not.
        """


class IGatedPolicy(IDispatchPolicy):
    """
    A policy in which workers accept from a common socket, unless they had better
    leave a connection to others.
    """

    def accepts(worker: int, view: View) -> bool:
        """
        Whether a worker may take one of the connections that wait (``view.waiting``).
        Called in the worker; kept waiting for long by all of them, a connection is
        taken by anybody.

        With one that waits, it is a matter of who takes it. With many, each worker
        should take its share at once: who waits in a long queue while a gate is closed
        waits for ever longer turns of those who are in.

        Args:
            worker: The number of the one that asks.
            view: All workers that take connections and are there to take one soon,
                itself included.
        """


class IConfigurablePolicy(Interface):
    """
    A policy with options.
    """

    def with_options(options: Mapping[str, str]) -> IDispatchPolicy:
        """
        A policy like this one that goes by options.

        Args:
            options: As the operator wrote them; not empty.

        Raises:
            BadSetting: There are no such options, or they have no such values.
        """


# -- dialects -----------------------------------------------------------------


class IDialect(Interface):
    """
    How the requests of one kind of client are understood, and how the replies
    are spelled. A provider keeps no state.
    """

    def understand(request: Request, prefix: bytes) -> Operation:
        """
        What the request asks for. Looks at nothing but the arguments.

        Args:
            request: Its path begins with the prefix.
            prefix: Of the keys that this dialect was chosen for: empty for all, or
                percent-decoded and ending with a slash. It is a part of each key.

        Raises:
            PeerError: It asks for nothing that can be done.
        """

    def spell(status: int, operation: Operation | None, writing: bool) -> int:
        """
        The status that this kind of client expects.

        Args:
            status: What RFC 9110 would have it be.
            operation: What was asked for; None when that was not understood.
            writing: The failure came while the body was written, not before.
        """
