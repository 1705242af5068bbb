"""
Tests for `kvd.http.dialects.git_lfs`: the exchanges of the batch API.
"""

from __future__ import annotations

import json
from hashlib import sha256

from kvd.settings import DialectChoice
from tests.http.dialects.cases import DialectCase
from tests.http.test_connection import body, field, status

OID = sha256(b"object").hexdigest()
PATH = f"/lfs/my/repo/objects/{OID}"
KIND = b"application/vnd.git-lfs+json"


class GitLFSTests(DialectCase):
    """
    Each request of its client.
    """

    dialects = (DialectChoice("/lfs/", "git-lfs"),)

    def batch(
        self, operation: str, fields: str = "", size: int = 6
    ) -> dict[str, object]:
        """
        What the batch API says about the one object.
        """
        asked = {
            "operation": operation,
            "transfers": ["lfs-standalone-file", "basic"],
            "objects": [{"oid": OID, "size": 6}],
            "hash_algo": "sha256",
        }
        content = json.dumps(asked).encode()
        reply = self.request("POST /lfs/my/repo/objects/batch", fields, content)
        assert (200, KIND) == (status(reply), field(reply, b"Content-Type"))
        answer = json.loads(body(reply))
        assert "basic" == answer["transfer"]
        (found,) = answer["objects"]
        assert OID == found.pop("oid")
        assert isinstance(found, dict)
        return found

    def test_objects_are_pushed_and_fetched(self) -> None:
        """
        By the URLs that kvd has given; what is there is not pushed again.
        """
        missing = self.batch("download")
        assert "404" in str(missing["error"])
        upload = {"upload": {"href": f"http://kvd{PATH}"}}
        assert {"size": 6, "actions": upload} == self.batch("upload")
        self.statuses(
            (f"PUT {PATH}", "", b"0bject", 400),
            (f"PUT {PATH}", "", b"object", 200),
            (f"PUT {PATH}", "", b"object", 200),
            (f"GET {PATH}", "", None, 200),
        )
        assert {"size": 6} == self.batch("upload")
        download = {"download": {"href": f"http://kvd{PATH}"}}
        assert {"size": 6, "actions": download} == self.batch("download")
        secure = self.batch("download", "X-Forwarded-Proto: https\r\n")
        assert f"https://kvd{PATH}" in str(secure)

    def test_refusals_are_in_its_format(self) -> None:
        """
        Whatever was wrong.
        """
        batch = "POST /lfs/my/repo/objects/batch"
        for line, content in (
            (batch, b"{"),
            (batch, b'{"operation": "steal", "objects": []}'),
            (batch, b'{"operation": "upload", "objects": [{"oid": "../../x"}]}'),
            (batch, b'{"operation": "upload", "objects": [], "transfers": ["tus"]}'),
            (batch, b'{"operation": "upload", "objects": [], "hash_algo": "md5"}'),
            ("GET /lfs/my/repo/objects/short", None),
        ):
            reply = self.request(line, "", content)
            assert (line, 400, KIND) == (
                line,
                status(reply),
                field(reply, b"Content-Type"),
            )
            assert json.loads(body(reply))["message"]
        reply = self.request("POST /lfs/my/repo/locks/verify", "", b"{}")
        assert (404, KIND) == (status(reply), field(reply, b"Content-Type"))
        assert [] == self.keys()
