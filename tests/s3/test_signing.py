"""
The tests of `kvd.s3.signing`.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest import mock
from urllib.parse import quote

import pytest
from botocore import auth
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials, ReadOnlyCredentials
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kvd.errors import StoreFault
from kvd.s3.location import read_endpoint
from kvd.s3.signing import Identity, Signer, find_identity
from tests.chance import new_seed
from tests.s3.cases import at_once

URL = "http://engine.example:8333/values/one"


class Renewing:
    """
    Credentials of a role, which have to be renewed now and then.
    """

    def __init__(self) -> None:
        self.due = True
        self.renewals = 0

    def refresh_needed(self) -> bool:
        """
        See `botocore.credentials.RefreshableCredentials`.
        """
        return self.due

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """
        The same.
        """
        self.renewals += self.due
        self.due = False
        return ReadOnlyCredentials("key", "secret", f"token-{self.renewals}")


@contextmanager
def botocore_at(now: datetime) -> Iterator[None]:
    """
    Have botocore sign at a given time.
    """
    clock = SimpleNamespace(utcnow=lambda: now)
    with (
        mock.patch.object(auth, "get_current_datetime", return_value=now, create=True),
        # botocore 1.37 has no such function.
        mock.patch.object(auth, "datetime", SimpleNamespace(datetime=clock)),
    ):
        yield


def _any_credentials(random: Random) -> ReadOnlyCredentials:
    token = random.choice([None, "token", "another"])
    return ReadOnlyCredentials("key", f"secret-{random.randrange(3)}", token)


def _any_request(random: Random) -> tuple[str, str, dict[str, str], bytes | None]:
    server = random.choice(
        ["http://engine", "https://engine.example", "http://[::1]", "http://127.0.0.1"]
    )
    server = read_endpoint(server + random.choice(["", ":80", ":443", ":8333"]))
    name = quote(random.randbytes(random.randrange(1, 30)), safe="/~")
    queries = ["", "uploads", "partNumber=2&uploadId=b%2Fa", "list-type=2&prefix=a%20b"]
    query = random.choice(queries)
    url = f"{server}/values/{name}" + (f"?{query}" if query else "")
    every = {
        "range": "bytes=0-65535",
        "if-none-match": "*",
        "content-type": "text/plain;  charset=utf-8",
        "x-amz-meta-kvd-metadata": "e30=",
    }
    some = random.sample(sorted(every), random.randrange(len(every) + 1))
    body = random.choice([b"", random.randbytes(40), None])
    method = random.choice(["GET", "HEAD", "PUT", "POST", "DELETE"])
    return method, url, {name: every[name] for name in some}, body


class SignerTests(SynchronousTestCase):
    """
    Requests carry a signature.
    """

    def sign(self, signer: Signer, body: bytes | None = b"") -> dict[str, str]:
        """
        The fields of a signed request.
        """
        signed = signer.sign("PUT", URL, {"x-amz-meta-a": "b"}, body)
        return self.successResultOf(Deferred.fromCoroutine(signed))

    def test_all_that_is_known_is_signed(self) -> None:
        """
        The fields, the time, and the body if there is one yet.
        """
        identity = Identity(Credentials("key", "secret"), "eu-1")
        signer = Signer(at_once, find=lambda: identity)
        fields = self.sign(signer, b"body")

        assert "Credential=key/" in fields["Authorization"]
        assert "/eu-1/s3/aws4_request" in fields["Authorization"]
        assert (
            "host;x-amz-content-sha256;x-amz-date;x-amz-meta-a"
            in (fields["Authorization"])
        )
        assert 64 == len(fields["X-Amz-Content-SHA256"])
        unknown = self.sign(signer, None)
        assert "UNSIGNED-PAYLOAD" == unknown["X-Amz-Content-SHA256"]

    def test_each_is_the_one_that_botocore_makes(self) -> None:
        """
        Of any request, at any time, whoever signs: what is kept from one to the next
        belongs to it.
        """
        random = Random(new_seed())
        frozen = _any_credentials(random)
        changing = SimpleNamespace(get_frozen_credentials=lambda: frozen)
        signer = Signer(at_once, find=lambda: Identity(changing, "eu-1"))
        now = datetime(2026, 11, 30, 23, 59, 0)
        for _ in range(300):
            now += timedelta(seconds=random.choice([0, 1, 40, 90_000, -90_000]))
            if not random.randrange(5):
                frozen = _any_credentials(random)
            method, url, fields, body = _any_request(random)
            with botocore_at(now):
                signed = self.successResultOf(
                    Deferred.fromCoroutine(signer.sign(method, url, fields, body))
                )
                request = AWSRequest(method, url, headers=fields, data=body)
                config = {"payload_signing_enabled": body is not None}
                request.context["client_config"] = SimpleNamespace(s3=config)
                S3SigV4Auth(frozen, "s3", "eu-1").add_auth(request)
            del signed["Host"]
            assert dict(request.headers.items()) == signed

    def test_credentials_are_renewed_in_a_thread(self) -> None:
        """
        The network is asked for them, which takes time; those of a moment ago are used
        again.
        """
        renewing: Any = Renewing()
        works: list[object] = []

        def off_reactor(work: Any, /) -> Deferred[Any]:
            works.append(work)
            return at_once(work)

        identity = Identity(renewing, "us-east-1")
        signer = Signer(off_reactor, "eu-2", find=lambda: identity)
        for _ in range(2):
            assert "token-1" == self.sign(signer)["X-Amz-Security-Token"]
        assert 2 == len(works)
        renewing.due = True

        assert "token-2" == self.sign(signer)["X-Amz-Security-Token"]
        assert 3 == len(works)

    def test_credentials_that_cannot_be_renewed(self) -> None:
        """
        A sentence says why, whatever botocore raises.
        """
        errors = (
            RuntimeError("Credentials were refreshed, but are still expired."),
            FileNotFoundError(2, "No such file or directory", "/bin/credentials"),
            json.JSONDecodeError("Expecting value", "?", 0),
        )
        for error in errors:
            renewing: Any = Renewing()
            renewing.get_frozen_credentials = mock.Mock(side_effect=error)
            signer = Signer(at_once, identity=Identity(renewing, "us-east-1"))
            signed = Deferred.fromCoroutine(signer.sign("GET", URL, {}, b""))

            fault = self.failureResultOf(signed, StoreFault).value
            assert str(error) in str(fault)


class IdentityTests(SynchronousTestCase):
    """
    Credentials come from where every S3 tool finds them.
    """

    def find(self, **variables: str) -> Identity:
        """
        The identity in an environment with no others.
        """
        nowhere = {
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/nonexistent",
            "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
            "HOME": "/nonexistent",
        }
        with mock.patch.dict(os.environ, nowhere | variables, clear=True):
            return find_identity()

    def test_environment(self) -> None:
        """
        The variables of AWS.
        """
        found = self.find(
            AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="s", AWS_DEFAULT_REGION="r-1"
        )

        assert "r-1" == found.region
        found = self.find(
            AWS_ACCESS_KEY_ID="key",
            AWS_SECRET_ACCESS_KEY="s",
            AWS_DEFAULT_REGION="r-1",
            AWS_REGION="r-2",
        )
        assert "r-2" == found.region
        assert "key" == found.credentials.get_frozen_credentials().access_key

    def test_profile(self) -> None:
        """
        A file with several.
        """
        with tempfile.NamedTemporaryFile("w") as file:
            file.write("[one]\naws_access_key_id=1\naws_secret_access_key=2\n")
            file.flush()
            found = self.find(AWS_SHARED_CREDENTIALS_FILE=file.name, AWS_PROFILE="one")

        assert "us-east-1" == found.region
        assert "1" == found.credentials.get_frozen_credentials().access_key

    def test_none(self) -> None:
        """
        A sentence says what to set.
        """
        with pytest.raises(StoreFault) as caught:
            self.find()
        assert "set AWS_ACCESS_KEY_ID" in caught.value.sentence
        with pytest.raises(StoreFault) as caught:
            self.find(AWS_ACCESS_KEY_ID="key")
        assert "AWS_SECRET_ACCESS_KEY" in caught.value.sentence
        with tempfile.NamedTemporaryFile("w") as file:
            file.write("[profile one]\ncredential_process = echo nothing\n")
            file.flush()
            with pytest.raises(StoreFault, match="Expecting value"):
                self.find(AWS_CONFIG_FILE=file.name, AWS_PROFILE="one")
        with pytest.raises(StoreFault) as caught:
            self.find(AWS_PROFILE="absent")
        assert "absent" in caught.value.sentence
