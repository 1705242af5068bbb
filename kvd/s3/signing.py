"""
Credentials and signatures, both botocore's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from hmac import digest
from pathlib import Path
from typing import Any, Final

from botocore.auth import UNSIGNED_PAYLOAD, S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError
from botocore.session import Session

from kvd.errors import NoThread, StoreFault
from kvd.store.waiting import OffReactor

DEFAULT_REGION: Final = "us-east-1"

FAULTS: Final = (BotoCoreError, LookupError, OSError, RuntimeError, ValueError)
"""
What botocore raises where credentials cannot be found or renewed: programs and servers
that it asks for them may fail, or answer with anything.
"""


@dataclass(frozen=True)
class Identity:
    """
    Who kvd is for the engine.
    """

    credentials: Any
    """Of `botocore.credentials`; some renew themselves."""
    region: str
    authorities: bytes | None = None
    """Those that sign the engine's certificates, in PEM; None: the system's."""


def region_of(session: Session) -> str:
    """
    The region that the environment or the profile names.
    """
    # botocore leaves AWS_REGION to other tools.
    return (
        os.environ.get("AWS_REGION")
        or session.get_config_variable("region")
        or DEFAULT_REGION
    )


def bundle_of(session: Session) -> str | None:
    """
    The file of authorities that ``AWS_CA_BUNDLE`` or the profile names.
    """
    path: str | None = session.get_config_variable("ca_bundle")
    return path


def read_authorities(session: Session) -> bytes | None:
    """
    The authorities that ``AWS_CA_BUNDLE`` or the profile names.

    Raises:
        StoreFault: They cannot be read.
    """
    path = bundle_of(session)
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise StoreFault(
            f"{path}, the authorities of the S3 store (AWS_CA_BUNDLE), cannot be read:"
            f" {error.strerror}."
        ) from error


def find_identity() -> Identity:
    """
    Find credentials as every S3 tool does: in the environment, in the files of a
    profile, and from the role of the machine, which may take seconds.

    Raises:
        StoreFault: There are none, or they are incomplete, or the authorities cannot be
            read.
    """
    try:
        session = Session()
        found = session.get_credentials()
        region = region_of(session)
        authorities = read_authorities(session)
    except FAULTS as error:
        raise StoreFault(f"The credentials of the S3 store: {error}") from error
    if found is None:
        raise StoreFault(
            "There are no credentials for the S3 store: set AWS_ACCESS_KEY_ID and"
            " AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, in kvd's environment."
        )
    return Identity(found, region, authorities)


class _Fields(dict[str, str]):
    """
    The fields that are signed, for botocore: no name comes twice.
    """

    def get_all(self, name: str) -> tuple[str, ...]:
        """
        All values of a name.
        """
        return (self[name],)


class _Request:
    """
    A request, for botocore. `AWSRequest` keeps its fields in a message of `email`, and
    prepares a body anew each time: two thirds of what a signature took.
    """

    params: Final = ()
    """The query is in the URL."""

    def __init__(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None
    ) -> None:
        self.method = method
        self.url = url
        self.headers = headers
        self.body = body
        self.context: dict[str, Any] = {}
        self.signed: _Fields | None = None


class _Auth(S3SigV4Auth):  # type: ignore[misc]
    """
    The signer of botocore, for requests of kvd: none of their fields is one that
    others change on the way.
    """

    def __init__(self, credentials: Any, region: str) -> None:
        super().__init__(credentials, "s3", region)
        self.region = region
        self._day = ""
        self._key = b""

    def headers_to_sign(self, request: _Request) -> _Fields:
        """
        botocore asks twice for each request; no field changes in between.
        """
        if request.signed is None:
            request.signed = _Fields(
                {name.lower(): value for name, value in request.headers.items()}
            )
        return request.signed

    def payload(self, request: _Request) -> str:
        """
        The bytes of a body that is sent as it comes are unknown when its head is
        signed.
        """
        if request.body is None:
            unsigned: str = UNSIGNED_PAYLOAD
            return unsigned
        return sha256(request.body).hexdigest()

    def signature(self, string_to_sign: str, request: _Request) -> str:
        """
        The signature, with a key that is made once a day.
        """
        day = request.context["timestamp"][:8]
        if day != self._day:
            key = f"AWS4{self.credentials.secret_key}".encode()
            for part in (day, self.region, "s3", "aws4_request"):
                key = digest(key, part.encode(), "sha256")
            self._day, self._key = day, key
        return digest(self._key, string_to_sign.encode(), "sha256").hex()


class Signer:
    """
    Signs requests.
    """

    def __init__(
        self,
        off_reactor: OffReactor,
        region: str | None = None,
        identity: Identity | None = None,
        find: Callable[[], Identity] = find_identity,
    ) -> None:
        """
        Args:
            off_reactor: Runs what may ask the network for credentials.
            region: None: that of the identity.
            identity: None: it is found before the first signature.
            find: Finds the identity.
        """
        self._off_reactor = off_reactor
        self._region = region
        self._find = find
        self._identity = identity
        self._auth: _Auth | None = None

    async def sign(
        self, method: str, url: str, fields: Mapping[str, str], body: bytes | None
    ) -> dict[str, str]:
        """
        The fields of a request, with its signature.

        Args:
            method: That of the request.
            url: The whole URL, percent-encoded; see `kvd.s3.location.read_endpoint`.
            fields: Those that the request has anyway.
            body: All of it; None: it is not known yet, and not signed.

        Raises:
            StoreFault: There are no credentials.
        """
        if self._identity is None:
            self._identity = await self._off_reactor(self._find)
        identity = self._identity
        found = identity.credentials
        renews = getattr(found, "refresh_needed", None)
        try:
            if renews is not None and renews():
                frozen = await self._off_reactor(found.get_frozen_credentials)
            else:
                frozen = found.get_frozen_credentials()
        except NoThread:
            raise
        except FAULTS as error:
            raise StoreFault(f"The credentials of the S3 store: {error}") from error
        # As the agent would add it; then it is signed.
        request = _Request(method, url, {"Host": url.split("/", 3)[2], **fields}, body)
        auth = self._auth
        if auth is None or auth.credentials != frozen:
            auth = self._auth = _Auth(frozen, self._region or identity.region)
        auth.add_auth(request)
        return request.headers


def signed(request: AWSRequest, credentials: Any, region: str) -> None:
    """
    Sign a request of botocore.

    Args:
        request: Gets further fields.
        credentials: Frozen.
        region: Where the engine says that it is.
    """
    S3SigV4Auth(credentials, "s3", region).add_auth(request)
