"""
Tests for `kvd.http.dialects.turborepo`: the exchanges of the Remote Cache API, as it is
documented. The program is in no registry that the tests can reach.
"""

from __future__ import annotations

import json

from kvd.settings import DialectChoice
from tests.http.dialects.cases import DialectCase
from tests.http.test_connection import body, field, status

ARTIFACT = "/turbo/v8/artifacts/0a1b2c?slug=web"
FIELDS = (
    "x-artifact-duration: 1200\r\nx-artifact-tag: Tc0BmHvJYMIYJ62/zx87YqO0Flxk+5Ov\r\n"
    "x-artifact-client-ci: VERCEL\r\nContent-Type: application/octet-stream\r\n"
)


class TurborepoTests(DialectCase):
    """
    Each request of its client.
    """

    dialects = (DialectChoice("/turbo/", "turborepo"),)

    def test_artifacts_come_back_with_what_was_said(self) -> None:
        """
        The duration and the tag; each team has its own.
        """
        reply = self.request(f"PUT {ARTIFACT}", FIELDS, b"artifact")
        assert 202 == status(reply)
        assert {"urls": ["/turbo/v8/artifacts/0a1b2c"]} == json.loads(body(reply))
        assert [b"turbo/v8/artifacts/web/0a1b2c"] == self.keys()

        reply = self.request(f"GET {ARTIFACT}")
        assert (200, b"artifact") == (status(reply), body(reply))
        assert b"1200" == field(reply, b"X-Artifact-Duration")
        assert b"Tc0BmHvJYMIYJ62/zx87YqO0Flxk+5Ov" == field(reply, b"X-Artifact-Tag")
        self.statuses(
            (f"HEAD {ARTIFACT}", "", None, 200),
            (f"GET {ARTIFACT.replace('web', 'docs')}", "", None, 404),
            (f"PUT {ARTIFACT}", FIELDS, b"another", 202),
            ("PUT /turbo/v8/artifacts/0?teamId=team_1", "", b"x", 202),
            ("GET /turbo/v8/artifacts/0?teamId=..", "", None, 400),
            ("GET /turbo/v8/artifacts/0?slug=a%2Fb", "", None, 400),
        )
        assert b"turbo/v8/artifacts/team_1/0" in self.keys()

    def test_a_miss_is_told_in_its_format(self) -> None:
        """
        As are all refusals.
        """
        reply = self.request(f"GET {ARTIFACT}")
        assert 404 == status(reply)
        assert "not_found" == json.loads(body(reply))["error"]["code"]
        assert b"application/json" == field(reply, b"Content-Type")
        reply = self.request("DELETE /turbo/v8/artifacts/0")
        assert 405 == status(reply)
        assert b"GET, HEAD, PUT, POST" == field(reply, b"Allow")

    def test_status_events_and_questions(self) -> None:
        """
        Whether there is a cache, what was used, and what is known of artifacts.
        """
        reply = self.request("GET /turbo/v8/artifacts/status?slug=web")
        assert {"status": "enabled"} == json.loads(body(reply))
        event = b'[{"sessionId":"1","source":"REMOTE","event":"HIT","hash":"0"}]'
        self.statuses(("POST /turbo/v8/artifacts/events?slug=web", "", event, 200))
        self.request(f"PUT {ARTIFACT}", FIELDS, b"artifact")
        reply = self.request(
            "POST /turbo/v8/artifacts?slug=web", "", b'{"hashes": ["0a1b2c", "no"]}'
        )
        described = {
            "size": 8,
            "taskDurationMs": 1200,
            "tag": "Tc0BmHvJYMIYJ62/zx87YqO0Flxk+5Ov",
        }
        assert {"0a1b2c": described, "no": None} == json.loads(body(reply))
        self.statuses(
            ("POST /turbo/v8/artifacts", "", b'{"hashes": 1}', 400),
            ("POST /turbo/v8/artifacts", "", b"[" * 100_000, 400),
            ("POST /turbo/v8/artifacts", "", b'{"hashes": ["../x"]}', 400),
            ("PUT /turbo/v8/artifacts", "", b"x", 400),
            ("PUT /turbo/v7/artifacts/0", "", b"x", 400),
        )
