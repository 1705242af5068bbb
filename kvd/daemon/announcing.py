"""
What the log says when serving begins: where kvd can be reached, and by whom.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.logger import Logger

from kvd.http.fast_path import is_compiled
from kvd.net.credentials import warn_of_dates
from kvd.net.listening import ListenerGroup, is_public
from kvd.settings import TLS, Address, Settings, TCPAddress
from kvd.workers.loading import promise_of

_log = Logger()


def announce(settings: Settings, groups: Sequence[ListenerGroup]) -> None:
    """
    Log the addresses, whether kvd is slower than it could be, and a warning if other
    machines can reach it.
    """
    if settings.fast_path and not is_compiled():
        _log.info(
            "there is no fast path, because kvd was installed without a C compiler:"
            " small requests take more CPU time"
        )
    _log.info(
        "kvd serves {addresses} from {store}, durability {durability}, policy"
        " {policy}, {procs} processes",
        addresses=", ".join(str(group.address) for group in groups),
        store=str(settings.store),
        durability=promise_of(settings),
        policy=settings.policy,
        procs=settings.procs,
    )
    if settings.credentials:
        warn_of_dates(settings.credentials)
    if settings.users is None:
        public = [
            str(group.address)
            for group in groups
            if is_public(group.address) and not _asks_for_certificates(group.address)
        ]
    else:
        public = [
            str(group.address)
            for group in groups
            if is_public(group.address) and _tls_of(group.address) is None
        ]
    if public and settings.users is None:
        _log.warn(
            "{addresses} can be reached from other machines, and any client that"
            " reaches it may read, write and delete: no authorisation is configured"
            " (--users)",
            addresses=", ".join(public),
        )
    elif public:
        _log.warn(
            "{addresses} can be reached from other machines, and passwords and tokens"
            " go there unencrypted: anybody on the way can read them",
            addresses=", ".join(public),
        )


def _tls_of(address: Address) -> TLS | None:
    return address.tls if isinstance(address, TCPAddress) else None


def _asks_for_certificates(address: Address) -> bool:
    tls = _tls_of(address)
    return tls is not None and tls.ca is not None and tls.clients == "required"


def announce_status(group: ListenerGroup) -> None:
    """
    Log the address of the status site, and a warning if other machines can read it.
    """
    _log.info("the status site is at {address}", address=str(group.address))
    if is_public(group.address):
        _log.warn(
            "the status site at {address} can be reached from other machines:"
            " anybody there may read how kvd is set up and what its workers do",
            address=str(group.address),
        )
