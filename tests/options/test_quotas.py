"""
The tests of `kvd.options.quotas`, and of the limits in the settings.
"""

from __future__ import annotations

import pytest

from kvd.errors import BadSetting
from kvd.options.choosing import Given, make_settings
from kvd.options.quotas import read_full, read_quota
from kvd.settings import Bounds, Quota, QuotaChoice, Settings


def settings(**given: str | list[str]) -> Settings:
    """
    The settings of a command line.
    """
    return make_settings(
        {
            name.replace("_", "-"): [
                Given(text, f"--{name.replace('_', '-')}")
                for text in ([texts] if isinstance(texts, str) else texts)
            ]
            for name, texts in given.items()
        }
    )


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("/ci/=10GiB", QuotaChoice("/ci/", 10 << 30, None, None)),
        ("/a/b%20c/=1k:ttl=30d", QuotaChoice("/a/b%20c/", 1024, None, 30 * 86400)),
        ("/tmp/=ttl=1h", QuotaChoice("/tmp/", None, None, 3600)),
        ("/a=b/=full=evict:1k", QuotaChoice("/a=b/", 1024, "evict", None)),
        ("/a/=max-size=5:full=refuse", QuotaChoice("/a/", 5, "refuse", None)),
    ],
)
def test_quota_is_read(text: str, read: QuotaChoice) -> None:
    """
    Its parts may stand in any order; a prefix may contain an equals sign.
    """
    assert read == read_quota(text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is not of the form PREFIX=SIZE"),
        ("10GiB", "is not of the form PREFIX=SIZE"),
        ("/ci/", "is not of the form PREFIX=SIZE"),
        ("/ci/=", "is not of the form PREFIX=SIZE"),
        ("/ci=1k", "is not of the form PREFIX=SIZE"),
        ("ci/=1k", "'ci/' is not a prefix of keys"),
        ("/a/../=1k", "is not a prefix of keys"),
        ("/=1k", "is for all keys: give --max-size"),
        ("/ci/=1k:2k", "'2k' in '/ci/=1k:2k' is not of the form"),
        ("/ci/=1k:tll=1d", "'tll=1d' in"),
        ("/ci/=0", "out of bounds"),
        ("/ci/=many", "'many' is not a size"),
        ("/ci/=1k:ttl=ever", "'ever' is not a valid time"),
        ("/ci/=1k:full=evicts", "Did you mean 'evict'"),
    ],
)
def test_what_is_no_quota_is_refused(text: str, sentence: str) -> None:
    """
    The sentence says what would be one.
    """
    with pytest.raises(BadSetting, match=sentence.replace("(", r"\(")):
        read_quota(text)


def test_full_is_one_of_two_words() -> None:
    """
    Another one is answered with both.
    """
    assert ["refuse", "evict"] == [read_full("refuse"), read_full("evict")]
    with pytest.raises(BadSetting, match=r"give refuse .* or evict"):
        read_full("drop")


def test_store_without_limits_has_no_bounds() -> None:
    """
    ``--full`` alone is no limit.
    """
    assert settings().bounds is None
    assert settings(full="evict").bounds is None


def test_prefixes_take_over_what_they_do_not_say() -> None:
    """
    From the whole store.
    """
    bounds = settings(
        max_size="1GiB",
        min_free="5GiB",
        ttl="10s",
        full="evict",
        quota=["/ci/=1MiB:full=refuse", "/b%20/=ttl=1s"],
    ).bounds

    assert bounds == Bounds(
        (
            Quota(b"", 1 << 30, True, 10.0),
            Quota(b"ci/", 1 << 20, False, 10.0),
            Quota(b"b /", None, True, 1.0),
        ),
        5 << 30,
    )


def test_prefixes_may_not_overlap() -> None:
    """
    Otherwise a key had two quotas; the sentence names both.
    """
    for one, other in (("/ci/", "/ci/a/"), ("/ci/", "/%63i/")):
        with pytest.raises(BadSetting, match=r"overlap.*give each key one"):
            settings(quota=[f"{one}=1k", f"{other}=1k"])
    assert 3 == len(settings(quota=["/ci/=1k", "/cia/=1k"]).bounds.quotas)  # type: ignore[union-attr]
