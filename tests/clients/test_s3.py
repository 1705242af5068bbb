"""
botocore, the library of boto3 and aws-cli, against the true daemon. ``make
test-clients`` runs these, rclone, s3cmd and pyarrow.
"""

from __future__ import annotations

import os
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.session import Session
from tomlkit import TOMLDocument

from kvd.access.editing import add_key, change, set_user
from kvd.access.tokens import make_key
from tests.integration.twistd import Twistd

pytestmark = pytest.mark.integration

PART_BYTES = 5 * 1024 * 1024


def test_botocore_speaks_to_a_folder(tmp_path: Path) -> None:
    """
    With two workers that take its connections in turn, so that no worker sees all parts
    of an object.
    """
    key = make_key()
    rights = {"/": ["read", "write", "delete", "list"]}

    def edit(document: TOMLDocument) -> None:
        set_user(document, "ci", None, rights)
        add_key(document, "ci", key, "", None)

    change(str(tmp_path / "users"), edit)
    options = [
        *["--dialect=/=s3", f"--users={tmp_path}/users", "--procs=2"],
        *[f"--store=file:{tmp_path}/values", "--policy=roundrobin"],
        *["--durability=process", "--control=off"],
    ]
    session = Session()
    with Twistd(options, tmp_path) as daemon:

        def client(secret: str = key[1]) -> Any:
            return session.create_client(
                "s3",
                endpoint_url=f"http://127.0.0.1:{daemon.port}",
                region_name="us-east-1",
                aws_access_key_id=key[0],
                aws_secret_access_key=secret,
                config=Config(signature_version="s3v4", retries={"max_attempts": 0}),
            )

        first, second = client(), client()
        name = {"Bucket": "b", "Key": "sp ace +é/k"}
        upload = first.create_multipart_upload(**name, Metadata={"a": "1"})
        named = {**name, "UploadId": upload["UploadId"]}
        bodies = {2: os.urandom(1000), 1: os.urandom(PART_BYTES)}
        tags = {
            number: each.upload_part(PartNumber=number, Body=body, **named)["ETag"]
            for each, (number, body) in zip(
                (first, second), bodies.items(), strict=True
            )
        }
        parts = [{"PartNumber": n, "ETag": tags[n]} for n in (1, 2)]
        second.complete_multipart_upload(MultipartUpload={"Parts": parts}, **named)
        got = first.get_object(**name)
        assert bodies[1] + bodies[2] == got["Body"].read()
        assert {"a": "1"} == got["Metadata"]
        stored = tmp_path / "values" / "b" / "sp ace +é"
        assert ["k"] == [path.name for path in stored.iterdir()]
        listed = second.list_objects_v2(Bucket="b", Delimiter="/")
        assert [{"Prefix": "sp ace +é/"}] == listed["CommonPrefixes"]
        url = first.generate_presigned_url("get_object", Params=name)
        with urllib.request.urlopen(url) as reply:
            assert bodies[1] + bodies[2] == reply.read()
        with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
            client(key[1] + "x").delete_object(**name)
        first.delete_object(**name)
        with pytest.raises(ClientError, match="NoSuchKey"):
            second.get_object(**name)
        daemon.stop()
