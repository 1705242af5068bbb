"""
Tests for `kvd.http.wire.kept`.
"""

import pytest

from kvd.errors import BadRequest, MetadataTooLarge
from kvd.http.wire.kept import KeptFields, client_time, is_kept
from kvd.model.keys import Key
from kvd.model.operations import Put
from kvd.model.values import MAX_METADATA_BYTES
from tests.http.wire.test_fields import with_fields

OPERATION = Put(Key(b"k"), metadata={"content-type": "text/plain"})


def kept(names: list[str], **fields: bytes) -> dict[str, str]:
    """
    What is stored of a request beside its type.
    """
    operation = KeptFields(names).add(OPERATION, with_fields(**fields))
    metadata = dict(operation.metadata)
    assert "text/plain" == metadata.pop("content-type")
    return metadata


def test_fields_that_are_named_are_kept() -> None:
    """
    By their whole name or its beginning; empty ones say nothing.
    """
    assert {"x-one": "1", "x-amz-meta-a": "\xe9", "x-amz-meta-b": "b, c"} == kept(
        ["x-one", "x-two", "x-three", "x-amz-meta-*"],
        x_one=b"1",
        x_two=b"",
        x_other=b"2",
        x_amz_meta_b=b"b, c",
        x_amz_meta_a=b"\xe9",
        x_amz_meta_c=b"",
    )
    assert {} == kept(["x-one"], x_other=b"2")


def test_fields_for_the_next_hop_are_not_kept() -> None:
    """
    They are not about the value (RFC 9110 section 7.6.1).
    """
    assert {"x-two": "2"} == kept(
        ["x-*"], connection=b"close, X-One", x_one=b"1", x_two=b"2"
    )


def test_fields_with_a_meaning_of_their_own_are_not_kept() -> None:
    """
    Whoever stores a value must not choose what proxies and browsers do for others.
    """
    for name in (
        b"x-accel-redirect",
        b"x-sendfile",
        b"x-content-type-options",
        b"x-forwarded-for",
        b"x-amz-date",
    ):
        assert not is_kept(name)
        assert {} == kept(["x-*"], **{name.decode().replace("-", "_"): b"1"})
    for name in (b"x-oc-mtime", b"x-amz-meta-mtime", b"x-artifact-tag"):
        assert is_kept(name)


def test_too_much_is_refused() -> None:
    """
    Counted together with the fields that are always stored.
    """
    room = MAX_METADATA_BYTES - len("content-typetext/plainx-a")

    assert {"x-a": "v" * room} == kept(["x-a"], x_a=b"v" * room)
    with pytest.raises(MetadataTooLarge, match=str(MAX_METADATA_BYTES)):
        kept(["x-a"], x_a=b"v" * (room + 1))


def test_the_time_of_a_clients_file_is_a_number() -> None:
    """
    Of seconds; anything else is refused, so that no client believes it is kept.
    """
    for text, seconds in (
        (b"1795890600", 1795890600.0),
        (b"1795890600.5", 1795890600.5),
        (b"-1", -1.0),
    ):
        metadata = kept(["x-oc-mtime"], x_oc_mtime=text)
        assert seconds == client_time(metadata)
    assert client_time({}) is None
    for text in (b"yesterday", b"1e9", b"1" * 12, b"0x1", b"+1", b"1 2"):
        with pytest.raises(BadRequest, match="in X-OC-Mtime is not a time"):
            kept(["x-oc-mtime"], x_oc_mtime=text)
