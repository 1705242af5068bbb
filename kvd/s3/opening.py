"""
Opening a bucket in a process that runs a reactor.
"""

from __future__ import annotations

import os
from random import Random
from typing import Any

from botocore.exceptions import BotoCoreError
from botocore.session import Session

from kvd.client.connecting import ClientTLS
from kvd.errors import BadSetting, StoreFault
from kvd.s3.connections import Connections
from kvd.s3.endpoints import Endpoints
from kvd.s3.engine import Engine
from kvd.s3.location import Location, read_endpoint
from kvd.s3.signing import Identity, Signer, read_authorities, region_of
from kvd.s3.store import ObjectStore
from kvd.store.waiting import in_threads_of


def endpoints_of(location: Location) -> tuple[str, ...]:
    """
    The endpoints of a location: those that it names, or that of the environment or the
    profile, as every S3 tool reads it, or that of AWS.

    Raises:
        StoreFault: What the environment or the profile has is none.
    """
    if location.endpoints:
        return location.endpoints
    session = Session()
    try:
        found = _configured_endpoint(session)
        region = location.region or region_of(session)
    except BotoCoreError as error:
        raise StoreFault(f"The endpoint of the S3 store: {error}") from error
    if found is not None:
        name, url = found
        try:
            return (read_endpoint(url),)
        except BadSetting as error:
            raise StoreFault(f"{name}: {error.sentence}.") from error
    domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return (f"https://s3.{region}.{domain}",)


def _configured_endpoint(session: Session) -> tuple[str, str] | None:
    """
    The endpoint that the environment or the profile has, and where it stands. botocore
    finds it only for clients of its own.
    """
    if session.get_config_variable("ignore_configured_endpoint_urls"):
        return None
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if os.environ.get(name):
            return name, os.environ[name]
    profile = session.get_scoped_config()
    services = session.full_config.get("services", {})
    of_s3 = services.get(profile.get("services"), {}).get("s3", {})
    for place in (of_s3, profile):
        if isinstance(place, dict) and place.get("endpoint_url"):
            return "endpoint_url", place["endpoint_url"]
    return None


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
