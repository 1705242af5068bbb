"""
Where the parts are put together: what ``twistd kvd`` runs.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, execute, succeed
from twisted.logger import Logger

from kvd.control.places import control_path, make_control_folder
from kvd.control.status import WorkerState, describe
from kvd.dispatch.arranging import ChosenPolicy
from kvd.errors import AddressUnusable, BadSetting, ChangeImpossible, OperatorError
from kvd.interfaces import IStoreMaker
from kvd.listening import ListenerGroup, is_public, open_group
from kvd.options import Options
from kvd.plugins import IStoreDeclaration, load
from kvd.recording import check_record
from kvd.rereading import Rereading, has_terminal
from kvd.scoreboard import Scoreboard, create_scoreboard
from kvd.serving import Serving
from kvd.settings import Settings, SystemdAddress, TCPAddress, UNIXAddress
from kvd.systemd.notifying import Notifier, take_notifier
from kvd.systemd.sockets import Inherited, adopt, leave, take_inherited
from kvd.workers.changing import ROWS, Changing
from kvd.workers.child import raise_descriptor_limit
from kvd.workers.dispatching import (
    Dispatching,
    choose_policy,
    choose_shadow,
)
from kvd.workers.pool import Pool, State
from kvd.workers.process import ForkServerProcess
from kvd.workers.steering import Instead, Steering

if TYPE_CHECKING:
    from kvd.control.site import Change

__all__ = ["Options", "makeService"]

_log = Logger()


def makeService(options: Options) -> IService:
    """
    The service for the settings.

    Opens the listening sockets and prepares the store: twistd has not left its
    terminal yet, so whoever starts it reads what is wrong.

    Raises:
        SystemExit: With a sentence, where the settings ask for the impossible.
    """
    settings = options.settings
    notifier = take_notifier(os.environ)
    try:
        inherited = take_inherited(os.environ)
        chosen = choose_policy(settings.policy, max(1, settings.procs))
        shadow = choose_first_shadow(settings, chosen)
        maker: IStoreMaker = load(IStoreDeclaration, settings.store.scheme)
        maker.prepare(settings.store.path)
        if settings.record is not None:
            check_record(settings.record)
        # As many as any policy may want: later, this process may not be allowed to
        # make more.
        size = max(settings.procs, chosen.arrangement.group_size)
        sockets = open_sockets(settings, size if settings.procs else 1, inherited)
        leave(inherited)
    except OperatorError as error:
        raise SystemExit(f"kvd: {error.sentence}") from error
    memory = create_scoreboard(max(1, settings.procs), ROWS)
    if not settings.procs:
        return OwnService(settings, sockets, notifier, memory)
    steering = Steering(sockets.groups, memory)
    # Now: twistd --uid gives the privilege up that this may take.
    steering.prepare(chosen)
    return WorkersService(
        settings, sockets, notifier, memory, steering, chosen, shadow, options.read
    )


def choose_first_shadow(
    settings: Settings, chosen: ChosenPolicy
) -> ChosenPolicy | None:
    """
    The policy that looks on from the start, if there is to be one.

    Args:
        settings: The whole of them.
        chosen: The policy in force.

    Raises:
        OperatorError: It cannot be.
    """
    if settings.shadow is None:
        return None
    if not settings.procs:
        raise BadSetting(
            f"with --procs 0 there is nobody to choose among, and nothing to see for"
            f" the shadow {settings.shadow!r}"
        )
    return choose_shadow(settings.shadow, chosen)


@dataclass(frozen=True, slots=True)
class Sockets:
    """
    Everything that listens.
    """

    groups: Sequence[ListenerGroup]
    """For clients."""
    control: ListenerGroup | None
    status: ListenerGroup | None
    """Of the status site."""


def open_sockets(settings: Settings, size: int, inherited: list[Inherited]) -> Sockets:
    """
    Listen everywhere; nowhere, if one of them fails.

    Args:
        settings: The whole of them.
        size: How many sockets an address for clients has.
        inherited: From systemd; what is used is removed.
    """
    with ExitStack() as undo:
        groups = open_groups(settings, size, inherited)
        for group in groups:
            undo.callback(group.close)
        status = None
        if settings.status is not None:
            status = open_group(settings.status, 1)
            undo.callback(status.close)
        sockets = Sockets(groups, open_control(settings, groups), status)
        undo.pop_all()
        return sockets


def open_groups(
    settings: Settings, size: int, inherited: list[Inherited]
) -> list[ListenerGroup]:
    """
    Listen on every address; on none, if one of them fails.

    Args:
        settings: The whole of them.
        size: How many sockets an address has.
        inherited: From systemd; what is used is removed.
    """
    groups: list[ListenerGroup] = []
    try:
        for address in settings.listen:
            if isinstance(address, SystemdAddress):
                groups += adopt(address, inherited, size)
            else:
                groups.append(open_group(address, size))
    except BaseException:
        for group in groups:
            group.close()
        raise
    return groups


def announce_status(group: ListenerGroup) -> None:
    """
    Where the status site is, and a warning if strangers may read it.
    """
    _log.info("the status site is at {address}", address=str(group.address))
    if is_public(group.address):
        _log.warn(
            "the status site at {address} can be reached from other machines, and"
            " whoever reaches it may read how kvd is set up and what its workers do",
            address=str(group.address),
        )


def announce(settings: Settings, groups: Sequence[ListenerGroup]) -> None:
    """
    One line when serving begins, and a warning if strangers may come.
    """
    _log.info(
        "kvd serves {addresses} from {store}, durability {durability}, policy"
        " {policy}, {procs} processes",
        addresses=", ".join(str(group.address) for group in groups),
        store=str(settings.store),
        durability=settings.durability,
        policy=settings.policy,
        procs=settings.procs,
    )
    public = [str(group.address) for group in groups if is_public(group.address)]
    if public:
        _log.warn(
            "{addresses} can be reached from other machines, and whoever reaches it"
            " may read, write and delete: no authorisation is configured",
            addresses=", ".join(public),
        )


def open_control(
    settings: Settings, groups: Sequence[ListenerGroup]
) -> ListenerGroup | None:
    """
    The control socket, if there is to be one. Nobody chose the place of an
    automatic one: if it cannot be had, kvd serves without.
    """
    if settings.control is None:
        return None
    if settings.control != "auto":
        return open_group(UNIXAddress(settings.control, mode=0o600), 1)
    try:
        path = _automatic_control(groups)
        return open_group(UNIXAddress(path, mode=0o600), 1)
    except AddressUnusable as error:
        _log.warn("there is no control socket: {error}", error=error.sentence)
        return None


def _automatic_control(groups: Sequence[ListenerGroup]) -> str:
    addresses = [group.address for group in groups]
    ports = [address.port for address in addresses if isinstance(address, TCPAddress)]
    if ports:
        make_control_folder()
        return control_path(ports[0])
    paths = [address.path for address in addresses if isinstance(address, UNIXAddress)]
    if paths[0].startswith("@"):
        raise AddressUnusable(
            f"{addresses[0]} has no folder; name a place with --control"
        )
    return f"{paths[0]}.control"


class ServingService(Service):
    """
    What both services have: the sockets, and the answers to whoever asks how it is.
    """

    def __init__(
        self, settings: Settings, sockets: Sockets, notifier: Notifier, memory: int
    ) -> None:
        self._settings = settings
        self._notifier = notifier
        self._scoreboard_memory = memory
        self._groups = sockets.groups
        self._control = sockets.control
        self._status = sockets.status
        self._sites: list[Any] = []

    def startService(self) -> None:
        super().startService()
        raise_descriptor_limit()
        self._scoreboard = Scoreboard(self._scoreboard_memory)

    def _answer(self, reactor: Any) -> None:
        # Not at the top: workers are on their way before these are imported, and
        # not everybody wants a status site.
        began = reactor.seconds()

        def told() -> dict[str, Any]:
            return describe(
                self._present(),
                self._groups,
                self._workers(),
                self._scoreboard,
                reactor.seconds() - began,
                draining=not self.running,
                members=self._members(),
                shadow=self._shadow_counts,
                instead=self._instead(),
            )

        if self._control is not None:
            from kvd.control.site import ControlSite

            listener = self._control.members[0].dup()
            self._sites.append(ControlSite(listener, told, self._changes(), reactor))
        if self._status is not None:
            from kvd.admin.site import StatusSite

            self._sites.append(
                StatusSite(
                    self._status,
                    told,
                    self._scoreboard.sums,
                    lambda: self._present().policy,
                    reactor,
                )
            )
            announce_status(self._status)

    def _read_again_on_hangup(self, reactor: Any) -> None:
        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        at_terminal = has_terminal() and not ignored

        def read_again() -> None:
            self._notifier.reloading()
            self._read_again().addCallback(lambda _: self._tell_ready(reactor))

        def hung_up(number: int, frame: object) -> None:
            if at_terminal and not has_terminal():
                # The signal's first meaning: who started this has left.
                reactor.callFromThread(reactor.stop)
            else:
                reactor.callFromThread(read_again)

        signal.signal(signal.SIGHUP, hung_up)

    def _read_again(self) -> Deferred[None]:
        """
        Go by the settings as they are now; the Deferred never fails.
        """
        raise NotImplementedError

    def _serves(self, reactor: Any) -> None:
        """
        Whoever connects is served from now on.
        """
        announce(self._settings, self._groups)
        self._tell_ready(reactor)

    def _tell_ready(self, reactor: Any) -> None:
        if self.running:
            addresses = ", ".join(str(group.address) for group in self._groups)
            self._notifier.ready(f"serves {addresses}", reactor)

    def stopService(self) -> Deferred[None] | None:
        self._notifier.stopping()
        super().stopService()
        return None

    def _workers(self) -> list[WorkerState]:
        raise NotImplementedError

    def _members(self) -> Sequence[Collection[int]]:
        """
        For each worker, the sockets of each address that it accepts from.
        """
        return [{0}]

    def _present(self) -> Settings:
        """
        The settings, with what has been changed since the start.
        """
        return self._settings

    def _shadow_counts(self, workers: Sequence[int]) -> dict[str, Any] | None:
        return None

    def _instead(self) -> Sequence[Instead]:
        return ()

    def _changes(self) -> Mapping[str, Change]:
        return {}

    def _answer_no_more(self) -> None:
        self._notifier.close()
        for site in self._sites:
            site.close()
        for group in (self._control, self._status):
            if group is not None:
                group.close()


class WorkersService(ServingService):
    """
    Serves through worker processes.
    """

    def __init__(
        self,
        settings: Settings,
        sockets: Sockets,
        notifier: Notifier,
        memory: int,
        steering: Steering,
        chosen: ChosenPolicy,
        shadow: ChosenPolicy | None,
        read: Callable[[], Settings],
    ) -> None:
        super().__init__(settings, sockets, notifier, memory)
        self._steering = steering
        self._chosen = chosen
        self._read = read
        self._shadow = shadow

    def startService(self) -> None:
        # Not at the top: importing the reactor installs one.
        from twisted.internet import reactor

        super().startService()
        settings = self._settings
        self._forks = ForkServerProcess(settings, self._scoreboard_memory, reactor)
        self._distribution = Dispatching(
            self._chosen,
            self._groups,
            self._steering,
            self._scoreboard,
            settings.limits.connections,
            reactor,
            self._shadow,
        )
        self._pool = Pool(
            settings,
            self._distribution,
            self._forks,
            reactor,
            lambda: self._serves(reactor),
        )
        self._changing = Changing(
            self._pool,
            self._distribution,
            self._scoreboard,
            reactor,
            settings,
            self._load,
        )
        self._rereading = Rereading(settings, self._read, self._changing)
        self._forks.start(self._pool)
        self._pool.start()
        self._read_again_on_hangup(reactor)
        self._answer(reactor)

    def _load(self, settings: Settings) -> None:
        self._settings = settings
        self._forks.load(settings)
        self._pool.drain_seconds = settings.drain_seconds
        self._distribution.limit(settings.limits.connections)

    def _read_again(self) -> Deferred[None]:
        return self._rereading.read_again()

    def _workers(self) -> list[WorkerState]:
        return [
            WorkerState(
                slot.number,
                slot.pid,
                slot.state.value,
                self._distribution.handing_over(slot.number),
            )
            for slot in self._pool.slots
            if slot.wanted or slot.state is not State.ENDED
        ]

    def _members(self) -> Sequence[Collection[int]]:
        arrangement = self._distribution.chosen.arrangement
        return arrangement.members if arrangement.kernel_chooses else ()

    def _present(self) -> Settings:
        shadow = self._distribution.shadow
        return replace(
            self._settings,
            policy=self._distribution.chosen.name,
            procs=self._changing.procs,
            shadow=None if shadow is None else shadow.name,
        )

    def _shadow_counts(self, workers: Sequence[int]) -> dict[str, Any] | None:
        return self._distribution.shadow_counts(workers)

    def _instead(self) -> Sequence[Instead]:
        return self._distribution.instead

    def _changes(self) -> Mapping[str, Change]:
        changing = self._changing
        return {
            "policy": lambda said: execute(changing.policy, _said(said, "policy", str)),
            "shadow": lambda said: execute(
                changing.shadow, _or_off(_said(said, "shadow", str))
            ),
            "procs": lambda said: changing.resize(_said(said, "procs", int)),
            "drain": lambda said: changing.drain(_said(said, "worker", int)),
            "restart": lambda said: changing.restart(),
        }

    def stopService(self) -> Deferred[None]:
        super().stopService()
        stopped = self._pool.stop()

        def end(_: None) -> None:
            self._forks.stop()
            self._answer_no_more()

        return stopped.addCallback(end)


class OwnService(ServingService):
    """
    Serves in this very process (``--procs 0``).
    """

    def startService(self) -> None:
        from twisted.internet import reactor

        super().startService()
        self._serving = Serving(self._settings, 0, reactor, self._scoreboard.own_row(0))
        self._serving.start()
        for number, group in enumerate(self._groups):
            self._serving.listen(f"{number}/0", group.members[0].dup())
        self._answer(reactor)
        self._read_again_on_hangup(reactor)
        self._serves(reactor)

    def _read_again(self) -> Deferred[None]:
        _log.warn("without workers, settings cannot change while kvd runs")
        return succeed(None)

    def _workers(self) -> list[WorkerState]:
        return [WorkerState(0, os.getpid(), "ready", 0)]

    def stopService(self) -> Deferred[None]:
        super().stopService()
        for group in self._groups:
            group.close()
        drained: Deferred[Any] = self._serving.drain(self._settings.drain_seconds)

        def end(_: None) -> Deferred[None]:
            self._answer_no_more()
            return self._serving.stop()

        return drained.addCallback(end)


T = TypeVar("T")


def _said(said: Mapping[str, Any], name: str, kind: type[T]) -> T:
    value = said.get(name)
    if type(value) is not kind:
        raise ChangeImpossible(
            f"{name} is {value!r}, and has to be of the type {kind.__name__}"
        )
    return value


def _or_off(name: str) -> str | None:
    return None if name == "off" else name
