"""
Tests for `kvd.http.dialects.restic`: the exchanges of the REST backend.
"""

from __future__ import annotations

import json
from hashlib import sha256

from kvd.settings import DialectChoice
from tests.http.dialects.cases import DialectCase, joined
from tests.http.test_connection import body, detail, field, status

V2 = "Accept: application/vnd.x.restic.rest.v2\r\n"
NAME = sha256(b"blob").hexdigest()
BLOB = f"/restic/my/repo/data/{NAME}"


class ResticTests(DialectCase):
    """
    Each request of its client.
    """

    dialects = (
        DialectChoice("/restic/", "restic"),
        DialectChoice("/append/", "restic-append-only"),
    )

    def test_a_repository_is_made_and_filled(self) -> None:
        """
        All replies are exactly 200; what is there can be read in parts.
        """
        self.statuses(
            ("POST /restic/my/repo/?create=true", "", b"", 200),
            ("HEAD /restic/my/repo/config", "", None, 404),
            ("POST /restic/my/repo/config", "", b"config", 200),
            ("HEAD /restic/my/repo/config", "", None, 200),
            (f"HEAD {BLOB}", "", None, 404),
            (f"POST {BLOB}", "", b"blob", 200),
            (f"HEAD {BLOB}", "", None, 200),
            (f"DELETE {BLOB[:-1]}0", "", None, 404),
        )
        reply = self.request(f"GET {BLOB}", "Range: bytes=1-2\r\n")
        assert (206, b"lo") == (status(reply), body(reply))
        self.statuses((f"DELETE {BLOB}", "", None, 200))

    def test_folders_are_listed_in_both_versions(self) -> None:
        """
        Names alone, or with sizes; what is no file of restic's is not among them.
        """
        for accept in ("", V2):
            reply = self.request("GET /restic/my/repo/data/", accept)
            assert [] == json.loads(joined(reply))
        names = []
        for number in range(25):
            content = b"x" * number
            names.append(sha256(content).hexdigest())
            line = f"POST /restic/my/repo/data/{names[-1]}"
            assert 200 == status(self.request(line, "", content))
        self.put(b"restic/my/repo/data/other", b"value")

        reply = self.request("GET /restic/my/repo/data/")
        assert sorted(names) == sorted(json.loads(joined(reply)))
        reply = self.request("GET /restic/my/repo/data/", V2)
        assert V2.strip().partition(" ")[2].encode() == field(reply, b"Content-Type")
        sizes = {each["name"]: each["size"] for each in json.loads(joined(reply))}
        assert {name: size for size, name in enumerate(names)} == sizes

    def test_damaged_files_are_refused(self) -> None:
        """
        And a file that is there is not replaced, while the same one is stored again.
        """
        reply = self.request(f"POST {BLOB}", "", b"bl0b")
        assert 400 == status(reply)
        assert "nothing is stored" in detail(reply)
        self.statuses(
            ("POST /restic/my/repo/config", "", b"config", 200),
            ("POST /restic/my/repo/config", "", b"other1", 409),
            (f"POST {BLOB}", "", b"blob", 200),
            (f"POST {BLOB}", "", b"blob", 200),
        )

    def test_other_requests_are_refused(self) -> None:
        """
        In words.
        """
        self.statuses(
            ("POST /restic/my/repo/data/short", "", b"x", 400),
            (f"POST /restic/my/repo/{NAME}", "", b"x", 400),
            ("POST /restic/my/repo/", "", b"x", 400),
            ("POST /restic/my/repo/data/", "", b"x", 405),
            ("DELETE /restic/my/repo/", "", None, 400),
            (f"PUT {BLOB}", "", b"blob", 405),
        )
        assert [] == self.keys()

    def test_where_only_appending_is_allowed_nothing_is_lost(self) -> None:
        """
        Nothing but locks is removed.
        """
        for folder, expected in (("data", 403), ("snapshots", 403), ("locks", 200)):
            path = f"/append/repo/{folder}/{NAME}"
            self.statuses(
                (f"POST {path}", "", b"blob", 200),
                (f"DELETE {path}", "", None, expected),
            )
        self.statuses(
            ("POST /append/repo/config", "", b"config", 200),
            ("DELETE /append/repo/config", "", None, 403),
        )
