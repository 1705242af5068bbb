"""
The tests of `kvd.s3.opening`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kvd.errors import StoreFault
from kvd.s3.location import read_location
from kvd.s3.opening import endpoints_of

BUCKET = read_location("//bucket")

PROFILES = """
[profile plain]
region = eu-1
[profile both]
endpoint_url = http://all:1
services = mine
[profile all]
endpoint_url = http://all:1
[profile wrong]
endpoint_url = all
[services mine]
s3 =
  endpoint_url = http://s3:2/
"""


@pytest.fixture(autouse=True)
def profiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    An environment with these profiles and no variables.
    """
    for name in ("REGION", "DEFAULT_REGION", "ENDPOINT_URL", "ENDPOINT_URL_S3"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    (tmp_path / "config").write_text(PROFILES)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "plain")


def test_location_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Whatever the environment says.
    """
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://other")
    location = read_location("//bucket?endpoint=http://one,http://two")

    assert ("http://one", "http://two") == endpoints_of(location)


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What is meant for S3 comes before what is meant for all services.
    """
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://all/")
    assert ("http://all",) == endpoints_of(BUCKET)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://s3:8333")
    assert ("http://s3:8333",) == endpoints_of(BUCKET)
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
    assert ("https://s3.eu-1.amazonaws.com",) == endpoints_of(BUCKET)


@pytest.mark.parametrize(
    ("profile", "endpoint"),
    [
        ("plain", "https://s3.eu-1.amazonaws.com"),
        ("both", "http://s3:2"),
        ("all", "http://all:1"),
    ],
)
def test_profile(monkeypatch: pytest.MonkeyPatch, profile: str, endpoint: str) -> None:
    """
    It may have an endpoint for S3, or for all services.
    """
    monkeypatch.setenv("AWS_PROFILE", profile)

    assert (endpoint,) == endpoints_of(BUCKET)


def test_region_in_china(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    AWS has another domain there.
    """
    monkeypatch.setenv("AWS_REGION", "cn-north-1")

    assert ("https://s3.cn-north-1.amazonaws.com.cn",) == endpoints_of(BUCKET)


@pytest.mark.parametrize("url", ["one:80", "http://one/path", "http://me:secret@one"])
def test_what_is_no_endpoint(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """
    A sentence says where it stands; a secret is not repeated.
    """
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    with pytest.raises(StoreFault, match=r"^AWS_ENDPOINT_URL: ") as caught:
        endpoints_of(BUCKET)
    assert "secret@" not in caught.value.sentence

    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_PROFILE", "wrong")
    with pytest.raises(StoreFault, match=r"^endpoint_url: 'all' is not an endpoint"):
        endpoints_of(BUCKET)
    monkeypatch.setenv("AWS_PROFILE", "absent")
    with pytest.raises(StoreFault, match="absent"):
        endpoints_of(BUCKET)
