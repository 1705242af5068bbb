"""
Brings what the fast path has served to the access log and the record of connections.

The fast path calls no Python for each request, so a log hears of many at once: when it
writes its entries, before it takes one from somebody else, and when there are many.
"""

from __future__ import annotations

from kvd.http.access_log import NOBODY, Entry
from kvd.http.context import IRequestLog
from kvd.http.fast_path import FastPath, Report
from kvd.http.recorder import Ended, Recorder
from kvd.net.sockets import name_of


def bring_reports(
    fast_path: FastPath, log: IRequestLog | None, recorder: Recorder | None
) -> None:
    """
    Let the logs of a process collect what its fast path reports.

    Args:
        fast_path: Serves requests.
        log: Gets an entry for each of them; None: there is no access log.
        recorder: Records each connection that ends; None: nothing is recorded.
    """

    def bring() -> None:
        requests, connections = fast_path.take_reports()
        if log is not None and requests:
            log.note_all([entry_of(report) for report in requests])
        if recorder is not None and connections:
            recorder.note_ends([Ended(*fields) for fields in connections])

    def come(are_many: bool) -> None:
        if are_many:
            bring()
            return
        for each in (log, recorder):
            if each is not None:
                each.expect()

    for each in (log, recorder):
        if each is not None:
            each.collect = bring
    fast_path.report_to(log is not None, recorder is not None, come)


def entry_of(report: Report) -> Entry:
    """
    A request that was served, for the access log.
    """
    sender = report.sender or NOBODY
    if sender.user is None and report.certified is not None:
        sender = sender._replace(user=report.certified)
    return Entry(
        ended=report.ended,
        peer=name_of(report.peer),
        sender=sender,
        method=report.method,
        key=report.target,
        status=report.status,
        body_bytes=report.body_bytes,
        seconds=report.seconds,
        proxy=report.proxy,
    )
