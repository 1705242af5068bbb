"""
Tests for `kvd.log.formats`.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import Logger, LogLevel, textFileLogObserver
from twisted.python.failure import Failure

from kvd.log import formats
from kvd.log.formats import as_json, set_format, with_priorities

NASTY = 'a "key"\r\n2026-01-01T00:00:00+0000 [kvd#critical] forged \x1b[2J \xe9 \udcff'


def test_json_has_time_level_origin_and_text() -> None:
    """
    In one line, with a time that sorts.
    """
    line = as_json(
        {
            "log_time": 1700000000.25,
            "log_level": LogLevel.warn,
            "log_namespace": "kvd.here",
            "log_format": "{count} of {name}",
            "count": 3,
            "name": "three",
            "worker": 7,
        }
    )

    assert line is not None
    assert {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "warn",
        "logger": "kvd.here",
        "message": "3 of three",
        "worker": 7,
    } == json.loads(line)


def test_json_of_a_failure_has_its_traceback() -> None:
    """
    Beside the message, so that the message stays what it is elsewhere.
    """
    try:
        raise ValueError("odd")
    except ValueError:
        failure = Failure()
    line = as_json(
        {
            "log_level": LogLevel.critical,
            "log_format": "a request failed",
            "log_failure": failure,
        }
    )

    assert line is not None
    read = json.loads(line)
    assert "a request failed" == read["message"]
    assert "critical" == read["level"]
    assert read["traceback"].endswith("ValueError: odd")


@pytest.mark.parametrize("log_format", ["plain", "json"])
def test_no_text_begins_a_line_of_its_own(log_format: Any) -> None:
    """
    A key, or whatever else a client chooses, cannot look like another event.
    """
    file = io.StringIO()
    observer = textFileLogObserver(file)
    set_format(observer, log_format)
    Logger("kvd.here", observer=observer).warn("about {key}", key=NASTY)

    first, *others = file.getvalue().rstrip("\n").split("\n")
    if log_format == "json":
        assert [] == others
        assert f"about {NASTY}" == json.loads(first)["message"]
    else:
        assert "[kvd.here#warn] about a" in first
        assert all(line.startswith("\t") for line in others)


def test_an_event_without_text_is_not_written() -> None:
    """
    As in Twisted's own format.
    """
    assert as_json({"log_format": ""}) is None
    assert with_priorities(as_json)({"log_format": ""}) is None


def test_journald_learns_the_priority_of_each_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    If it reads standard output, and only then.
    """
    with open(tmp_path / "journal", "w") as journal:
        status = os.fstat(journal.fileno())
        monkeypatch.setattr(formats, "STDOUT", journal.fileno())
        for stream, prefix in [
            (f"{status.st_dev}:{status.st_ino}", "<4>"),
            (f"{status.st_dev}:{status.st_ino + 1}", ""),
            ("", ""),
        ]:
            monkeypatch.setenv("JOURNAL_STREAM", stream)
            file = io.StringIO()
            observer = textFileLogObserver(file, None)
            set_format(observer, "plain")
            Logger("kvd.here", observer=observer).warn("one\ntwo")

            assert f"{prefix}- [kvd.here#warn] one\n{prefix}\ttwo\n" == file.getvalue()
