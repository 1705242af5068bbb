"""
The files that a daemon adds to while it serves: whether it can, before it has to.
"""

from __future__ import annotations

from kvd.access_log import check_access_log
from kvd.recording import check_record
from kvd.settings import Settings


def check_written_files(settings: Settings) -> None:
    """
    See that the access log and the record can be written, if there are to be any.

    Raises:
        OperatorError: One cannot.
    """
    if settings.access_log is not None:
        check_access_log(settings.access_log)
    if settings.record is not None:
        check_record(settings.record)
