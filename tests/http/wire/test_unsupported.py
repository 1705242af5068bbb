"""
Tests for `kvd.http.wire.unsupported`.
"""

from __future__ import annotations

import pytest

from kvd.errors import CodingUnsupported, OperationUnsupported
from kvd.http.wire.unsupported import refuse_unsupported
from kvd.model.requests import Request


def put(fields: dict[bytes, bytes]) -> Request:
    """
    One with some fields.
    """
    return Request("PUT", b"/k", 1, fields, 3, False, True, False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"content-encoding", b"aws-chunked"),
        (b"content-encoding", b"AWS-Chunked"),
        (b"content-encoding", b"aws-chunked,gzip"),
        (b"content-encoding", b"gzip, aws-chunked"),
        (b"x-amz-content-sha256", b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
        (b"x-amz-content-sha256", b"STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
    ],
)
def test_a_body_that_is_wrapped_is_refused(name: bytes, value: bytes) -> None:
    """
    The wrapping would become a part of the value.
    """
    with pytest.raises(CodingUnsupported, match="aws-chunked"):
        refuse_unsupported(put({name: value}), {})


@pytest.mark.parametrize(
    "name",
    [
        *("x-amz-copy-source", "x-goog-copy-source", "x-ms-copy-source"),
        *("x-oss-copy-source", "x-copy-from", "destination", "x-ms-rename-source"),
    ],
)
def test_a_copy_is_refused(name: str) -> None:
    """
    The empty body of its request would replace the value.
    """
    with pytest.raises(OperationUnsupported, match=r"(?i)" + name):
        refuse_unsupported(put({name.encode(): b"/bucket/key"}), {})


@pytest.mark.parametrize("name", ["acl", "comp", "partNumber", "tagging", "uploadId"])
def test_what_is_not_about_a_whole_value_is_refused(name: str) -> None:
    """
    The body would replace the value.
    """
    with pytest.raises(OperationUnsupported, match=name):
        refuse_unsupported(put({}), {"x": b"", name: b""})


def test_all_other_fields_are_nobodys() -> None:
    """
    Those of the same clients that send the value as it is, too.
    """
    fields = {
        b"content-encoding": b"gzip, br",
        b"x-amz-content-sha256": b"UNSIGNED-PAYLOAD",
        b"x-amz-meta-copy-source-of": b"x",
        b"x-amz-date": b"x",
        b"destination-of": b"x",
        b"origin": b"x",
    }
    refuse_unsupported(put(fields), {"teamId": b"x", "x-id": b"PutObject", "slug": b""})
