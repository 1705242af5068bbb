"""
The check of a bucket, in the supervisor: before anything starts, and in a thread when
somebody asks whether kvd is ready.
"""

from __future__ import annotations

from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError
from botocore.httpsession import URLLib3Session
from botocore.session import Session

from kvd.client.connecting import ClientTLS, WideEndpoints
from kvd.errors import StoreFault, StoreUnusable
from kvd.s3.connections import CONNECT_SECONDS
from kvd.s3.location import Location
from kvd.s3.opening import endpoints_of
from kvd.s3.signing import FAULTS, bundle_of, find_identity, signed

_ANSWER_SECONDS = 20.0


def check(location: Location, first: str = "") -> str:
    """
    Ask the endpoints for the bucket, until one answers.

    Args:
        location: Where the bucket is.
        first: The endpoint to ask before the others, if it is one of them.

    Returns:
        The endpoint that has answered.

    Raises:
        StoreUnusable: There are no credentials, or no endpoint has the bucket for them.
    """
    try:
        identity = find_identity()
        endpoints = endpoints_of(location)
    except StoreFault as fault:
        raise StoreUnusable(fault.sentence) from fault
    try:
        WideEndpoints(None, tls=ClientTLS(identity.authorities))
    except ValueError as error:
        raise StoreUnusable(f"AWS_CA_BUNDLE, for the S3 store: {error}") from error
    session = URLLib3Session(
        verify=bundle_of(Session()) or True,
        timeout=(CONNECT_SECONDS, _ANSWER_SECONDS),
    )
    region = location.region or identity.region
    problems = []
    try:
        frozen = identity.credentials.get_frozen_credentials()
    except FAULTS as error:
        raise StoreUnusable(f"the credentials of the S3 store: {error}") from error
    for endpoint in sorted(endpoints, key=lambda each: each != first):
        query = "?list-type=2&max-keys=1"
        request = AWSRequest("GET", f"{endpoint}/{location.bucket}{query}")
        signed(request, frozen, region)
        try:
            status = session.send(request.prepare()).status_code
        except BotoCoreError as error:
            problems.append(f"{endpoint} cannot be reached: {error}")
            continue
        if status < 300:
            return endpoint
        problems.append(f"{endpoint} answers {_meaning(status, location.bucket)}")
    raise StoreUnusable(f"the S3 store cannot be used: {'; '.join(problems)}")


def _meaning(status: int, bucket: str) -> str:
    if status == 404:
        return f"{status}, as it has no bucket {bucket!r}: create it"
    if status in (401, 403):
        return (
            f"{status}: see that the credentials are right and may list the bucket"
            f" {bucket!r}, and that the clocks agree"
        )
    return f"{status}"
