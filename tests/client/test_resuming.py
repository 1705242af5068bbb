"""
Tests for `kvd.client.resuming`: a PUT that goes on where its connection broke.
"""

from __future__ import annotations

from unittest import mock

from kvd.client import BrokenOff, ConditionFailed, Refused, Stored
from kvd.client.resuming import PAUSES_SECONDS
from kvd.client.sources import BytesSource
from tests.client.test_client import Answer, ClientCase, answer, hang_up, problem

VALUE = b"0123456789"
RESUMES = answer(204, Accept_Patch="application/partial-upload")
LOCATION = "/k?upload=00ff"
BEGUN = answer(201, Location=LOCATION)
STORED = answer(201, ETag='"e"', Kvd_Durability="disk", Upload_Complete="?1")


def state(offset: int, *, complete: bool = False) -> Answer:
    """
    What HEAD of an upload says.
    """
    said = f"?{int(complete)}"
    return answer(204, Upload_Offset=str(offset), Upload_Complete=said)


class ResumingTests(ClientCase):
    """
    A value counts as large.
    """

    def setUp(self) -> None:
        super().setUp()
        small = mock.patch("kvd.client.client.LEAST_BYTES", 1)
        small.start()
        self.addCleanup(small.stop)

    def methods(self) -> list[str]:
        """
        Of the requests.
        """
        return [method for method, _ in self.server.asked]

    def test_it_begins_without_a_byte(self) -> None:
        """
        What the value is stored with comes with the first request.
        """
        self.server.answers = [RESUMES, BEGUN, STORED]
        stored = self.result(
            self.client.put("k", VALUE, create=True, content_type="text/x")
        )

        assert Stored("e", True, "disk") == stored
        asked = [("OPTIONS", "/k"), ("PUT", "/k"), ("PATCH", LOCATION)]
        assert asked == self.server.asked
        assert [b"", b"", VALUE] == self.server.bodies
        begun, sent = self.server.fields[1:]
        assert ("?0", "10", "*", "text/x") == tuple(
            begun[name]
            for name in (
                "upload-complete",
                "upload-length",
                "if-none-match",
                "content-type",
            )
        )
        assert ("?1", "0", "10", "application/partial-upload") == tuple(
            sent[name]
            for name in (
                "upload-complete",
                "upload-offset",
                "content-length",
                "content-type",
            )
        )

    def test_it_goes_on_where_it_broke(self) -> None:
        """
        Again and again, as long as something gets through; what the server does not
        have is sent again.
        """
        self.server.answers = [RESUMES, BEGUN]
        for offset in (4, 8):
            self.server.answers += [hang_up, state(offset)]
        more = problem(409, "it has more", Upload_Offset="9")
        self.server.answers += [more, state(9), STORED]
        putting = self.started(self.client.put("k", VALUE))
        for _ in range(20):
            self.pause(PAUSES_SECONDS[0])

        assert "e" == self.successResultOf(putting).etag
        assert [VALUE, VALUE[4:], VALUE[8:], VALUE[9:]] == [
            body
            for method, body in zip(self.methods(), self.server.bodies, strict=True)
            if method == "PATCH"
        ]

    def test_a_lost_reply_is_found_again(self) -> None:
        """
        The upload says that it is done.
        """
        described = answer(200, ETag='"e"', Content_Length="10")
        self.server.answers = [RESUMES, BEGUN, hang_up, state(10, complete=True)]
        self.server.answers.append(described)
        putting = self.started(self.client.put("k", VALUE))
        self.pause(PAUSES_SECONDS[0])
        assert "e" == self.successResultOf(putting).etag
        assert ("HEAD", "/k") == self.server.asked[-1]

    def test_in_the_end_it_has_broken_off(self) -> None:
        """
        If nothing gets through any more; the upload stays.
        """
        self.server.answers = [RESUMES, BEGUN, hang_up]
        self.server.answers += [state(0), hang_up] * len(PAUSES_SECONDS)
        putting = self.started(self.client.put("k", VALUE))
        for pause in PAUSES_SECONDS:
            self.pause(pause)
        assert isinstance(self.failureResultOf(putting).value, BrokenOff)
        assert [] == self.server.answers
        assert "DELETE" not in self.methods()

    def test_what_is_refused_is_cancelled(self) -> None:
        """
        It would take room for a day.
        """
        for refused, kind in (
            (problem(412, "other"), ConditionFailed),
            (problem(507, "full"), Refused),
        ):
            self.server.answers = [RESUMES, BEGUN, refused, answer(204)]
            assert isinstance(self.error(self.client.put("k", VALUE)), kind)
            assert ("DELETE", LOCATION) == self.server.asked[-1]

    def test_where_nothing_is_resumed(self) -> None:
        """
        The value is put as a whole.
        """
        for answers in (
            [answer(204, Allow="GET, PUT")],
            [problem(405, "no")],
            [RESUMES, problem(501, "not here")],
        ):
            self.server.answers = [*answers, answer(201, ETag='"e"')]
            assert "e" == self.result(self.client.put("k", BytesSource(VALUE))).etag
            assert ("PUT", VALUE) == (self.methods()[-1], self.server.bodies[-1])
