"""
The resources of the status site.

The site is read-only: requests change nothing, their bodies are skipped, and error
replies contain no details.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import (
    NOT_ALLOWED,
    NOT_FOUND,
    OK,
    RESPONSES,
    SERVICE_UNAVAILABLE,
)
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from kvd import __version__
from kvd.admin.answering import Answering, BoundedRequest, QuietSite
from kvd.admin.status.history import (
    BALANCE_SAMPLES,
    INTERVAL_SECONDS,
    KEPT_SAMPLES,
    History,
)
from kvd.admin.status.ledger import Ledger
from kvd.admin.status.metrics import Snapshot, render
from kvd.admin.status.page import PAGE, PAGE_POLICY
from kvd.ipc.counts import Sums
from kvd.net.listening import ListenerGroup

Describe = Callable[[], dict[str, Any]]

_FIELDS: Final = {
    "Server": f"kvd/{__version__}",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    # The page has a policy of its own.
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
"""
The fields of every reply.
"""

# RFC 9110 section 15.5.20; Twisted has neither a name nor a phrase for it.
MISDIRECTED: Final = 421
RESPONSES.setdefault(MISDIRECTED, b"Misdirected Request")

JSON: Final = "application/json"
TEXT: Final = "text/plain; charset=utf-8"


class ReadingRequest(BoundedRequest):
    """
    A request that can only read.
    """

    is_known: Callable[[bytes | None], bool]

    def keep(self, data: bytes) -> None:
        """
        Skip a chunk of the body.
        """

    def process(self) -> None:
        """
        See `Request.process`.
        """
        if not self.is_known(self.getHeader(b"host")):
            self._refuse(MISDIRECTED, "This is the status site of another name.\n")
        elif self.method not in (b"GET", b"HEAD"):
            self.setHeader("Allow", "GET, HEAD")
            self._refuse(NOT_ALLOWED, "This can only be read.\n")
        else:
            super().process()

    def _refuse(self, status: int, sentence: str) -> None:
        self._set_fields()
        self.setResponseCode(status)
        self.setHeader("Content-Type", TEXT)
        self.setHeader("Content-Length", str(len(sentence)))
        self.write(sentence.encode("ascii"))
        self.finish()

    def render(self, resrc: Any) -> None:
        """
        See `Request.render`.
        """
        self._set_fields()
        super().render(resrc)

    def _set_fields(self) -> None:
        for name, value in _FIELDS.items():
            self.setHeader(name, value)


class Place(Resource):
    """
    A resource of the site; paths below it are unknown unless added.
    """

    def getChild(self, path: bytes, request: Request) -> Resource:
        # Twisted's own resource for unknown names is deprecated.
        return Report(TEXT, lambda: (NOT_FOUND, "There is nothing of this name.\n"))


class Report(Place):
    """
    Replies with what a function returns at that moment.
    """

    def __init__(self, kind: str, report: Callable[[], tuple[int, str]]) -> None:
        """
        Args:
            kind: The content type.
            report: Returns the status and the text.
        """
        super().__init__()
        self._kind = kind
        self._report = report

    def render_GET(self, request: Request) -> bytes:
        status, text = self._report()
        request.setResponseCode(status)
        request.setHeader("Content-Type", self._kind)
        return text.encode("utf-8")


class Page(Place):
    """
    The status page for browsers.
    """

    def render_GET(self, request: Request) -> bytes:
        request.setHeader("Content-Type", "text/html; charset=utf-8")
        request.setHeader("Content-Security-Policy", PAGE_POLICY)
        return PAGE


class Metrics(Place):
    """
    ``/metrics``.
    """

    _log = Logger()

    def __init__(self, take: Callable[[], Snapshot], reactor: Any) -> None:
        """
        Args:
            take: Takes a snapshot of the metrics.
            reactor: Renders it in its thread pool.
        """
        super().__init__()
        self._take = take
        self._reactor = reactor

    def render_GET(self, request: Request) -> Any:
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)
        accept = request.getHeader("accept") or ""
        rendered = self._render(self._take(), accept)

        def answer(result: tuple[bytes, str]) -> None:
            if not gone:
                body, content_type = result
                request.setHeader("Content-Type", content_type)
                request.setHeader("Content-Length", str(len(body)))
                request.write(body)
                request.finish()

        def fail(failure: Failure) -> None:
            self._log.failure("the metrics cannot be rendered", failure=failure)
            if not gone:
                request.processingFailed(failure)

        rendered.addCallback(answer).addErrback(fail)
        return NOT_DONE_YET

    def _render(self, snapshot: Snapshot, accept: str) -> Deferred[tuple[bytes, str]]:
        return deferToThreadPool(
            self._reactor, self._reactor.getThreadPool(), render, snapshot, accept
        )


class StatusSite:
    """
    Serves the status site, and keeps the history and the accounts of policies.
    """

    def __init__(
        self,
        group: ListenerGroup,
        describe: Describe,
        sums: Callable[[], Sequence[Sums]],
        workers: Callable[[], int],
        policy: Callable[[], str],
        knows: Callable[[bytes | None], bool],
        reactor: Any,
    ) -> None:
        """
        Args:
            group: A group of one socket; the caller closes it.
            describe: Returns the status.
            sums: Returns the sums of the scoreboard.
            workers: Returns how many workers there are; their sums come first.
            policy: Returns the policy in force.
            knows: Whether the site serves the host in ``Host``.
            reactor: Serves the socket and schedules the samples.
        """
        self._describe = describe
        self._read = sums
        self._policy = policy
        self._ledger = Ledger()
        self._history = History(lambda: self._sums()[: workers()], reactor)
        root = Page()
        root.putChild(b"", root)
        root.putChild(b"health", Report(TEXT, lambda: (OK, "ok\n")))
        root.putChild(b"ready", Report(TEXT, lambda: readiness(describe())))
        root.putChild(b"status.json", Report(JSON, self._status))
        root.putChild(b"history.json", Report(JSON, self._past))
        root.putChild(b"metrics", Metrics(self._snapshot, reactor))

        class RequestHere(ReadingRequest):
            is_known = staticmethod(knows)

        site = QuietSite(root, requestFactory=RequestHere, reactor=reactor)
        self._answering = Answering(group.members[0].dup(), site, reactor)
        self._history.start()

    def _sums(self) -> Sequence[Sums]:
        sums = self._read()
        self._ledger.enter(self._policy(), sums)
        return sums

    def _status(self) -> tuple[int, str]:
        newest = self._history.newest
        status = self._describe()
        status["last_second"] = None if newest is None else newest.summary()
        return OK, json.dumps(status) + "\n"

    def _past(self) -> tuple[int, str]:
        past = {
            "interval_seconds": INTERVAL_SECONDS,
            "kept_samples": KEPT_SAMPLES,
            "balance_seconds": BALANCE_SAMPLES * INTERVAL_SECONDS,
            "samples": [sample.as_remembered() for sample in self._history.samples],
        }
        return OK, json.dumps(past) + "\n"

    def _snapshot(self) -> Snapshot:
        sums = self._sums()
        newest = self._history.newest
        return Snapshot(
            self._describe(),
            sums,
            dict(self._ledger.accounts),
            None if newest is None else newest.supervisor_delay,
        )

    def close(self) -> None:
        """
        Accept no further connection.
        """
        self._history.stop()
        self._answering.close()


def readiness(status: Mapping[str, Any]) -> tuple[int, str]:
    """
    Whether a load balancer should send connections here, as an HTTP status and a
    sentence.

    One ready worker is enough: it also serves the sockets of workers that are not
    ready. If a balancer avoided a daemon while one of its workers is replaced, the
    other workers would be idle.
    """
    if status["draining"]:
        return SERVICE_UNAVAILABLE, "kvd is draining.\n"
    ready = sum(row["state"] == "ready" for row in status["workers"])
    text = f"{ready} of {len(status['workers'])} workers are ready.\n"
    return (OK if ready else SERVICE_UNAVAILABLE), text
