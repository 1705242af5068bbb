"""
What the settings choose by name, imported and made once, before any process serves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime

from kvd.access.rules import AccessRules
from kvd.http.dialects.choice import Dialects
from kvd.interfaces import (
    IBoundedStoreMaker,
    IEngineStoreMaker,
    IFileStoreMaker,
    IHeldStoreMaker,
    IStore,
    IStoreMaker,
)
from kvd.plugins import IStoreDeclaration, load
from kvd.settings import TLS, Modes, Settings, StoreLocation, User

if TYPE_CHECKING:
    from ssl import SSLContext

    from kvd.access.rates import Rates


@dataclass(frozen=True)
class LoadedPlugins:
    """
    The plugins that the settings choose by name, imported; the rights of users, and
    what connections over TLS share.

    Looking up a name searches all installed plugins, and writes to memory that forks
    share: one MiB for each worker, if each does it.
    """

    store: IStoreMaker
    dialects: Dialects
    rules: AccessRules | None = None
    """What the rights file says."""
    rates: Rates | None = None
    """Counts requests, if somebody may send only so many; shared by all forks."""
    held: int | None = None
    """A descriptor of what the store is in, which the supervisor has opened; see
    `IHeldStoreMaker`."""
    contexts: Mapping[TLS, SSLContext] = field(default_factory=dict)
    """Made before the fork, workers share the keys of session tickets."""
    fallback: IStoreMaker | None = None
    """Of the store for what the first one does not have."""
    usage: int | None = None
    """A descriptor of the memory in which processes count what the store takes; None:
    it has no limits."""

    def open_store(self, settings: Settings, worker: int) -> IStore:
        """
        Open the store of this process.

        Args:
            settings: All settings.
            worker: The number of this worker.

        Raises:
            StoreUnusable: It cannot be opened.
        """
        store = self._open_store(settings, worker)
        if self.fallback is None or settings.fallback_store is None:
            return store
        # Not at the top: only where there is one. And not the reactor, which this
        # import installs.
        from twisted.internet import reactor

        from kvd.moving.fallback import FallbackStore

        path = settings.fallback_store.path
        fallback = self.fallback.open_store(path, settings.durability)
        return FallbackStore(store, fallback, IReactorTime(reactor))

    def _open_store(self, settings: Settings, worker: int) -> IStore:
        path = settings.store.path
        maker = self.store
        if self.usage is not None and settings.bounds is not None:
            row = row_of_worker(worker)
            maker = IBoundedStoreMaker(maker).bounded(settings.bounds, self.usage, row)
        if self.held is None:
            return maker.open_store(path, settings.durability)
        maker = IHeldStoreMaker(maker)
        return maker.open_held(path, settings.durability, self.held)


def row_of_worker(worker: int) -> int:
    """
    The row of a worker in the memory of `kvd.store.usage`. The first is the evictor's.
    """
    return worker + 1


def load_plugins(settings: Settings) -> LoadedPlugins:
    """
    Import the plugins that the settings choose, read the rights file, and make what TLS
    needs.

    Raises:
        OperatorError: A plugin or a certificate cannot be used.
    """
    store = load_store(settings.store, settings.modes)
    dialects = Dialects(settings.dialects)
    fallback = _load_fallback(settings)
    users, rules = settings.users, None
    contexts = _load_contexts(settings)
    # Each only where it is needed, so that no other worker pays for it; and all before
    # the fork, so that workers share it.
    if settings.cors:
        import kvd.http.cors
    if users is not None:
        import kvd.access.throttle
        import kvd.http.authorization  # noqa: F401
        from kvd.access.rights_file import parse_rights

        rules = parse_rights(users.text, users.path)
    if settings.limits.address_rate is None and not (rules and rules.has_rates):
        return LoadedPlugins(
            store, dialects, rules, contexts=contexts, fallback=fallback
        )
    from kvd.access.rates import Rates

    return LoadedPlugins(
        store, dialects, rules, Rates(), contexts=contexts, fallback=fallback
    )


def _load_fallback(settings: Settings) -> IStoreMaker | None:
    if settings.fallback_store is None:
        return None
    import kvd.moving.fallback  # noqa: F401 - before the fork

    return load_store(settings.fallback_store, settings.modes)


def _load_contexts(settings: Settings) -> Mapping[TLS, SSLContext]:
    if not settings.credentials:
        return {}
    # Only where there is TLS, so that no other worker pays for it.
    import kvd.net.tls_transport  # noqa: F401 - before the fork
    from kvd.net.tls import make_context

    return {each.tls: make_context(each) for each in settings.credentials}


def load_store(
    location: StoreLocation, modes: Modes, user: User | None = None
) -> IStoreMaker:
    """
    Import a store.

    Args:
        location: Its scheme.
        modes: The permissions of the files that it creates.
        user: The user that this process will switch to before it opens the store.

    Raises:
        OperatorError: The store cannot be used.
    """
    maker: IStoreMaker = load(IStoreDeclaration, location.scheme)
    if IEngineStoreMaker.providedBy(maker):
        IEngineStoreMaker(maker).load()
    if IFileStoreMaker.providedBy(maker):
        return IFileStoreMaker(maker).making(modes, user)
    return maker
