"""
What runs in the environment of S3's clients, which has none of kvd's packages:
``python s3_scripts.py NAME FILE``. FILE has the settings of the documents, in Python.
"""

from __future__ import annotations

import hashlib
import io
import os
import runpy
import sys
import urllib.error
import urllib.request
from base64 import b64encode
from typing import Any

LARGE_BYTES = 40_000_000


def refused(code: str, call: Any, **arguments: Any) -> None:
    """
    A call is refused.
    """
    from botocore.exceptions import ClientError

    found = None
    try:
        call(**arguments)
    except ClientError as error:
        found = error.response["Error"]["Code"]
    assert found == code, found


def status_of(url: str) -> int:
    """
    What GET is answered.
    """
    try:
        with urllib.request.urlopen(url) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code


def boto3(s3: Any) -> str:
    """
    Objects, small and large.
    """
    from boto3.s3.transfer import (  # type: ignore[import-not-found]  # not here
        TransferConfig,
    )

    s3.create_bucket(Bucket="boto")
    small = {"Bucket": "boto", "Key": "sp ace +é/small"}
    put = s3.put_object(Body=b"value", Metadata={"note": "one"}, **small)
    got = s3.get_object(**small)
    assert (got["Body"].read(), got["Metadata"]) == (b"value", {"note": "one"})
    part = s3.get_object(Range="bytes=1-2", **small)
    assert part["Body"].read() == b"al"
    refused("PreconditionFailed", s3.put_object, Body=b"x", IfNoneMatch="*", **small)
    refused("304", s3.get_object, IfNoneMatch=put["ETag"], **small)
    refused("NoSuchKey", s3.get_object, Bucket="boto", Key="none")
    refused("BadDigest", s3.put_object, Body=b"x", ContentMD5="A" * 22 + "==", **small)
    for algorithm in ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"):
        s3.put_object(Body=b"value", ChecksumAlgorithm=algorithm, **small)
        right = hashlib.sha256(algorithm.encode()).digest()
        size = {"CRC64NVME": 8, "SHA1": 20, "SHA256": 32}.get(algorithm, 4)
        wrong = {f"Checksum{algorithm}": b64encode(right[:size]).decode()}
        refused("BadDigest", s3.put_object, Body=b"damaged", **wrong, **small)
    assert s3.get_object(**small)["Body"].read() == b"value"
    large = os.urandom(LARGE_BYTES)
    for algorithm in ("CRC32C", "CRC64NVME"):
        s3.upload_fileobj(
            io.BytesIO(large), "boto", "large", {"ChecksumAlgorithm": algorithm}
        )
    refused(
        "BadDigest",
        s3.upload_fileobj,
        Fileobj=io.BytesIO(b"v" + large),
        Bucket="boto",
        Key="large",
        ExtraArgs={"ChecksumCRC64NVME": "AAAAAAAAAAA="},
    )
    s3.upload_fileobj(io.BytesIO(large), "boto", "large")
    assert s3.list_multipart_uploads(Bucket="boto").get("Uploads") is None
    back = io.BytesIO()
    parts = TransferConfig(multipart_chunksize=8_000_000)
    s3.download_fileobj("boto", "large", back, Config=parts)
    assert back.getvalue() == large
    url = s3.generate_presigned_url(
        "get_object", Params={"Bucket": "boto", "Key": "large"}, ExpiresIn=60
    )
    with urllib.request.urlopen(url) as reply:
        assert reply.read() == large
    assert status_of(url.replace("large", "small")) == 403
    s3.copy_object(Bucket="boto", Key="copy", CopySource="boto/large")
    upload = s3.create_multipart_upload(Bucket="boto", Key="parts")["UploadId"]
    named = {"Bucket": "boto", "Key": "parts", "UploadId": upload}
    tags = {}
    for number in (3, 1, 2):
        body = bytes([number]) * (5 * 1024 * 1024)
        sent = s3.upload_part(Body=body, PartNumber=number, **named)
        tags[number] = {"PartNumber": number, "ETag": sent["ETag"]}
    for code, chosen in (
        ("InvalidPartOrder", [tags[2], tags[1]]),
        ("InvalidPart", [tags[1], tags[2] | {"ETag": '"other"'}]),
    ):
        refused(
            code,
            s3.complete_multipart_upload,
            MultipartUpload={"Parts": chosen},
            **named,
        )
    whole = {"Parts": [tags[1], tags[2], tags[3]]}
    s3.complete_multipart_upload(MultipartUpload=whole, **named)
    head = s3.head_object(Bucket="boto", Key="parts")
    assert head["ContentLength"] == 15 * 1024 * 1024
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket="boto", MaxKeys=2)
    keys = [each["Key"] for page in pages for each in page["Contents"]]
    assert keys == ["copy", "large", "parts", small["Key"]], keys
    some = [{"Key": key} for key in keys[1:]]
    s3.delete_objects(Bucket="boto", Delete={"Objects": some})
    refused("404", s3.head_object, Bucket="boto", Key="large")
    s3.delete_object(Bucket="boto", Key="copy")
    s3.delete_bucket(Bucket="boto")
    return f"{LARGE_BYTES} bytes in parts and back, {len(keys)} objects listed"


def arrow(file_system: Any) -> str:
    """
    A table, read by ranges.
    """
    import pyarrow  # type: ignore[import-not-found]  # not here
    import pyarrow.parquet  # type: ignore[import-not-found]  # not here
    from pyarrow import dataset

    count = 500_000
    file_system.create_dir("arrow/table")
    table = pyarrow.table({"n": range(count), "s": map(str, range(count))})
    pyarrow.parquet.write_table(
        table, "arrow/table/one", filesystem=file_system, row_group_size=50_000
    )
    found = dataset.dataset("arrow/table", filesystem=file_system)
    last = found.to_table(filter=dataset.field("n") == count - 1)
    assert last.to_pylist() == [{"n": count - 1, "s": str(count - 1)}]
    with file_system.open_output_stream("arrow/large") as stream:
        for number in range(40):
            stream.write(bytes([number]) * 1_000_000)
    with file_system.open_input_file("arrow/large") as file:
        file.seek(39_000_000)
        assert file.read() == bytes([39]) * 1_000_000
    file_system.delete_dir_contents("arrow")
    return f"a table of {count} rows by ranges, 40 MB in chunks"


if __name__ == "__main__":
    name, path = sys.argv[1:]
    shown = runpy.run_path(path)
    clients = {"boto3": (boto3, "s3"), "arrow": (arrow, "arrow")}
    test, variable = clients[name]
    print(test(shown[variable]))
