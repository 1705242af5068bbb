"""
Where the parts are put together: what ``twistd kvd`` runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from kvd.errors import OperatorError
from kvd.interfaces import IDispatchPolicy, IStoreMaker
from kvd.listening import ListenerGroup, is_public, open_group
from kvd.options import Options
from kvd.plugins import IPolicyDeclaration, IStoreDeclaration, load
from kvd.serving import Serving
from kvd.settings import Settings
from kvd.workers.child import raise_descriptor_limit
from kvd.workers.pool import Pool
from kvd.workers.process import ForkServerProcess

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
    try:
        policy: IDispatchPolicy = load(IPolicyDeclaration, settings.policy)
        maker: IStoreMaker = load(IStoreDeclaration, settings.store.scheme)
        maker.prepare(settings.store.path)
        groups = open_groups(settings, policy)
    except OperatorError as error:
        raise SystemExit(f"kvd: {error.sentence}") from error
    if settings.procs:
        return WorkersService(settings, policy, groups)
    return OwnService(settings, groups)


def open_groups(settings: Settings, policy: IDispatchPolicy) -> list[ListenerGroup]:
    """
    Listen on every address; on none, if one of them fails.
    """
    size = policy.group_size(settings.procs) if settings.procs else 1
    groups: list[ListenerGroup] = []
    try:
        for address in settings.listen:
            groups.append(open_group(address, size))
    except BaseException:
        for group in groups:
            group.close()
        raise
    return groups


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


class WorkersService(Service):
    """
    Serves through worker processes.
    """

    def __init__(
        self,
        settings: Settings,
        policy: IDispatchPolicy,
        groups: Sequence[ListenerGroup],
    ) -> None:
        self._settings = settings
        self._policy = policy
        self._groups = groups

    def startService(self) -> None:
        # Not at the top: importing the reactor installs one.
        from twisted.internet import reactor

        super().startService()
        self._forks = ForkServerProcess(self._settings, reactor)
        self._pool = Pool(
            self._settings,
            self._policy,
            self._groups,
            self._forks,
            reactor,
            lambda: announce(self._settings, self._groups),
        )
        self._forks.start(self._pool)
        self._pool.start()

    def stopService(self) -> Deferred[None]:
        super().stopService()
        stopped = self._pool.stop()
        return stopped.addCallback(lambda _: self._forks.stop())


class OwnService(Service):
    """
    Serves in this very process (``--procs 0``).
    """

    def __init__(self, settings: Settings, groups: Sequence[ListenerGroup]) -> None:
        self._settings = settings
        self._groups = groups

    def startService(self) -> None:
        from twisted.internet import reactor

        super().startService()
        raise_descriptor_limit()
        self._serving = Serving(self._settings, 0, reactor)
        self._serving.start()
        for number, group in enumerate(self._groups):
            self._serving.listen(f"{number}/0", group.members[0].dup())
        announce(self._settings, self._groups)

    def stopService(self) -> Deferred[None]:
        super().stopService()
        for group in self._groups:
            group.close()
        drained: Deferred[Any] = self._serving.drain(self._settings.drain_seconds)
        return drained.addCallback(lambda _: self._serving.stop())
