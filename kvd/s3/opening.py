"""
Opening a bucket in a process that runs a reactor.
"""

from __future__ import annotations

import os
from random import Random
from typing import Any

from botocore.session import Session

from kvd.client.connecting import ClientTLS
from kvd.s3.connections import Connections
from kvd.s3.endpoints import Endpoints
from kvd.s3.engine import Engine
from kvd.s3.location import Location
from kvd.s3.signing import Identity, Signer, read_authorities, region_of
from kvd.s3.store import ObjectStore
from kvd.store.waiting import in_threads_of


def endpoints_of(location: Location) -> tuple[str, ...]:
    """
    The endpoints of a location: those that it names, or that of the environment, as
    every S3 tool reads it, or that of AWS.
    """
    if location.endpoints:
        return location.endpoints
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if os.environ.get(name):
            return (os.environ[name].rstrip("/"),)
    region = location.region or region_of(Session())
    return (f"https://s3.{region}.amazonaws.com",)


def open_location(
    location: Location, identity: Identity | None = None, reactor: Any = None
) -> ObjectStore:
    """
    Open a bucket.

    Args:
        location: Where it is.
        identity: Who kvd is for it; None: it is found when it is needed.
        reactor: None: that of this process.

    Raises:
        StoreFault: The authorities cannot be read.
        ValueError: They are none.
    """
    if reactor is None:
        # Not at the top: importing the reactor installs one.
        from twisted.internet import reactor as installed

        reactor = installed
    if identity is None:
        authorities = read_authorities(Session())
    else:
        authorities = identity.authorities
    tls = None if authorities is None else ClientTLS(authorities)
    random = Random()
    engine = Engine(
        location.bucket,
        Endpoints(endpoints_of(location), reactor, random),
        Signer(in_threads_of(reactor), location.region, identity),
        Connections(reactor, tls),
        reactor,
        random,
    )
    store = ObjectStore(engine, location.prefix)
    store.start()
    return store
