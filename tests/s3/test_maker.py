"""
The tests of `kvd.s3.maker`.
"""

from __future__ import annotations

import subprocess
import sys
from unittest import mock

import pytest
from zope.interface.verify import verifyObject

from kvd.errors import BadSetting, StoreUnusable
from kvd.interfaces import IEngineStoreMaker
from kvd.plugins import IStoreDeclaration, load
from kvd.s3.maker import maker
from kvd.settings import StoreLocation
from kvd.store.space import Space
from kvd.workers.loading import look_at_engine
from tests.s3.memory_engine import ACCESS_KEY, SECRET_KEY

_IMPORTED = """
import sys
from kvd.options.locations import read_store
read_store("s3://bucket/prefix")
print([name for name in ("botocore", "treq", "tenacity") if name in sys.modules])
"""


def test_maker_is_declared() -> None:
    """
    The scheme is ``s3``.
    """
    assert maker is load(IStoreDeclaration, "s3")
    assert verifyObject(IEngineStoreMaker, maker)


def test_location_is_read_without_botocore() -> None:
    """
    Only a process that opens the store pays for it.
    """
    ran = subprocess.run(
        [sys.executable, "-c", _IMPORTED], capture_output=True, text=True, check=True
    )

    assert "[]" == ran.stdout.strip()


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    As other extras are.
    """

    def find(name: str) -> str | None:
        return None if name == "tenacity" else name

    monkeypatch.setattr("kvd.s3.maker.find_spec", find)

    with pytest.raises(BadSetting, match=r"needs tenacity: run pip install '\.\[s3\]'"):
        maker.resolve("//bucket")


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (404, "answers 404, as it has no bucket 'bucket': create it"),
        (403, "see that the credentials are right"),
        (503, "answers 503"),
    ],
)
def test_engine_that_refuses_the_bucket(
    monkeypatch: pytest.MonkeyPatch, status: int, said: str
) -> None:
    """
    A sentence for each endpoint says what to do; one that has the bucket is enough.
    """
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    statuses = {"http://one/bucket": status, "http://two/bucket": status}

    def send(_: object, request: object) -> mock.Mock:
        url = str(getattr(request, "url", "")).partition("?")[0]
        return mock.Mock(status_code=statuses[url])

    monkeypatch.setattr("kvd.s3.preparing.URLLib3Session.send", send)
    path = "//bucket?endpoint=http://one,http://two"
    with pytest.raises(StoreUnusable) as caught:
        maker.prepare(path)
    assert 2 == caught.value.sentence.count(said)

    statuses["http://two/bucket"] = 200
    maker.prepare(path)


def test_whether_an_engine_can_be_used_is_known_while_kvd_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    The endpoint that has answered is asked before the others, which may take long.
    """
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    statuses = {"http://left/bucket": 503, "http://right/bucket": 200}
    asked = []

    def send(_: object, request: object) -> mock.Mock:
        url = str(getattr(request, "url", "")).partition("?")[0]
        asked.append(url)
        return mock.Mock(status_code=statuses[url])

    monkeypatch.setattr("kvd.s3.preparing.URLLib3Session.send", send)
    location = StoreLocation("s3", "//bucket?endpoint=http://left,http://right")
    assert Space("") == look_at_engine(location)
    assert ["http://left/bucket", "http://right/bucket"] == asked
    assert Space("") == look_at_engine(location)
    assert "http://right/bucket" == asked.pop()
    assert 2 == len(asked)

    statuses["http://right/bucket"] = 500
    said = "http://right answers 500; http://left answers 503."
    assert Space(f"The S3 store cannot be used: {said}") == look_at_engine(location)
