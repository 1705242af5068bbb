"""
What the settings choose by name, imported and made once, before any process serves.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime

from kvd.access.rules import AccessRules
from kvd.errors import OperatorError
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
from kvd.store.space import Space

if TYPE_CHECKING:
    from ssl import SSLContext

    from kvd.access.counting import CountingMemory


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
    counting: CountingMemory | None = None
    """In which processes count what addresses and users do, if anybody needs it."""
    has_password: Callable[[str, str], bool] | None = None
    """Whether a hash is of a password, if there is a rights file; may block."""
    held: int | None = None
    """A descriptor of what the store is in, which the supervisor has opened; see
    `IHeldStoreMaker`."""
    contexts: Mapping[TLS, SSLContext] = field(default_factory=dict)
    """Made before the fork, workers share the keys of session tickets."""
    fallback: IStoreMaker | None = None
    """Of the store for what the first one does not have."""
    near: IStoreMaker | None = None
    """Of the near cache."""
    usage: int | None = None
    """A descriptor of the memory in which processes count what the store with limits
    takes; None: there is none."""

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
        if settings.fallback_store is None and settings.near is None:
            return store
        # Not at the top: only where they are needed. And not the reactor, which this
        # import installs.
        from twisted.internet import reactor

        clock = IReactorTime(reactor)
        if settings.fallback_store is not None:
            from kvd.moving.fallback import FallbackStore

            assert self.fallback is not None
            path = settings.fallback_store.path
            fallback = self.fallback.open_store(path, settings.durability)
            store = FallbackStore(store, fallback, clock)
        if settings.near is not None:
            from kvd.near.store import NearStore

            assert self.near is not None
            maker = self._bounded(self.near, settings, worker)
            # What is lost is read from the store again.
            cache = maker.open_store(settings.near.store.path, "process")
            near = settings.near
            store = NearStore(
                store, cache, near.fresh_seconds, clock, near.stale_seconds
            )
        return store

    def _open_store(self, settings: Settings, worker: int) -> IStore:
        path = settings.store.path
        maker = self.store
        if settings.near is None:
            maker = self._bounded(maker, settings, worker)
        if self.held is None:
            return maker.open_store(path, settings.durability)
        maker = IHeldStoreMaker(maker)
        return maker.open_held(path, settings.durability, self.held)

    def _bounded(
        self, maker: IStoreMaker, settings: Settings, worker: int
    ) -> IStoreMaker:
        if self.usage is None or settings.bounds is None:
            return maker
        row = row_of_worker(worker)
        return IBoundedStoreMaker(maker).bounded(settings.bounds, self.usage, row)


def row_of_worker(worker: int) -> int:
    """
    The row of a worker in the memory of `kvd.store.usage`. The first is the evictor's.
    """
    return worker + 1


def load_plugins(
    settings: Settings, counting: int | None = None, verifying: int | None = None
) -> LoadedPlugins:
    """
    Import the plugins that the settings choose, read the rights file, and make what TLS
    needs.

    Args:
        settings: All settings.
        counting: A descriptor of the memory of `kvd.access.counting`; None: this
            process counts alone.
        verifying: A descriptor of the socket to the process that verifies passwords;
            owned by the caller. None: there are none to verify.

    Raises:
        OperatorError: A plugin or a certificate cannot be used.
    """
    store = load_store(settings.store, settings.modes)
    dialects = Dialects(settings.dialects, settings.keep_fields)
    fallback, near = _load_fallback(settings), _load_near(settings)
    users, rules, has_password = settings.users, None, None
    contexts = _load_contexts(settings)
    # Each only where it is needed, so that no other worker pays for it; and all before
    # the fork, so that workers share it.
    if settings.cors:
        import kvd.http.cors
    if settings.guess_types:
        import kvd.http.guessing
    if settings.browser:
        import kvd.http.methods.browsing
    if users is not None:
        import kvd.access.throttle
        import kvd.http.authorization
        from kvd.access.rights_file import parse_rights

        rules = parse_rights(users.text, users.path)
        if verifying is not None:
            from kvd.access.verifying import Verifier

            requests = socket.socket(fileno=os.dup(verifying))
            has_password = Verifier(requests).has_password
    limits = settings.limits
    memory = None
    if limits.address_connections or limits.address_rate or rules is not None:
        import kvd.access.rates  # noqa: F401
        from kvd.access.counting import CountingMemory

        memory = CountingMemory(counting)
    return LoadedPlugins(
        store,
        dialects,
        rules,
        memory,
        has_password,
        contexts=contexts,
        fallback=fallback,
        near=near,
    )


def _load_fallback(settings: Settings) -> IStoreMaker | None:
    if settings.fallback_store is None:
        return None
    import kvd.moving.fallback  # noqa: F401 - before the fork

    return load_store(settings.fallback_store, settings.modes)


def _load_near(settings: Settings) -> IStoreMaker | None:
    if settings.near is None:
        return None
    # Before the fork.
    import kvd.http.hits
    import kvd.near.store  # noqa: F401

    return load_store(settings.near.store, settings.modes)


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


def promise_of(settings: Settings) -> str:
    """
    The durability that clients are promised (`kvd.interfaces.IStore.durability`).
    """
    return "engine" if is_engine(settings.store.scheme) else settings.durability


def look_at_engine(location: StoreLocation) -> Space:
    """
    Whether an engine can be used now. Blocks until it answers.
    """
    maker: IStoreMaker = load(IStoreDeclaration, location.scheme)
    try:
        maker.prepare(location.path)
    except OperatorError as error:
        return Space(f"{error.sentence[:1].upper()}{error.sentence[1:]}.")
    return Space("")


@cache
def is_engine(scheme: str) -> bool:
    """
    Whether the store of a scheme is an engine on other machines.
    """
    return bool(IEngineStoreMaker.providedBy(load(IStoreDeclaration, scheme)))
