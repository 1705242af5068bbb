"""
What the status site answers.

It is there to be read: nothing can be changed through it, bodies of requests are
read past, and whatever is wrong is answered without details.
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
from kvd.admin.status.metrics import Gathered, spell
from kvd.admin.status.page import PAGE, PAGE_POLICY
from kvd.dispatch.scoreboard import Sums
from kvd.net.listening import ListenerGroup

Describe = Callable[[], dict[str, Any]]

_FIELDS: Final = {
    "Server": f"kvd/{__version__}",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    # The page has its own.
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
"""
Of every answer.
"""

# RFC 9110 section 15.5.20; Twisted has neither a name nor a phrase for it.
MISDIRECTED: Final = 421
RESPONSES.setdefault(MISDIRECTED, b"Misdirected Request")

JSON: Final = "application/json"
TEXT: Final = "text/plain; charset=utf-8"


class ReadingRequest(BoundedRequest):
    """
    A request that may only read.
    """

    is_known: Callable[[bytes | None], bool]

    def keep(self, data: bytes) -> None:
        """
        Read past it.
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
    Something at the site; nothing is below it unless it was put there.
    """

    def getChild(self, path: bytes, request: Request) -> Resource:
        # Twisted's own answer to a name that is not there is deprecated.
        return Told(TEXT, lambda: (NOT_FOUND, "There is nothing of this name.\n"))


class Told(Place):
    """
    Answers with what a function tells at that moment.
    """

    def __init__(self, kind: str, tell: Callable[[], tuple[int, str]]) -> None:
        """
        Args:
            kind: The content type.
            tell: The status and the text.
        """
        super().__init__()
        self._kind = kind
        self._tell = tell

    def render_GET(self, request: Request) -> bytes:
        status, text = self._tell()
        request.setResponseCode(status)
        request.setHeader("Content-Type", self._kind)
        return text.encode("utf-8")


class Page(Place):
    """
    The page for people.
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

    def __init__(self, gather: Callable[[], Gathered], reactor: Any) -> None:
        """
        Args:
            gather: What is to be told.
            reactor: Has the threads in which it is spelled.
        """
        super().__init__()
        self._gather = gather
        self._reactor = reactor

    def render_GET(self, request: Request) -> Any:
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)
        accept = request.getHeader("accept") or ""
        spelled = self._spell(self._gather(), accept)

        def answer(result: tuple[bytes, str]) -> None:
            if not gone:
                body, content_type = result
                request.setHeader("Content-Type", content_type)
                request.setHeader("Content-Length", str(len(body)))
                request.write(body)
                request.finish()

        def fail(failure: Failure) -> None:
            self._log.failure("the metrics cannot be told", failure=failure)
            if not gone:
                request.processingFailed(failure)

        spelled.addCallback(answer).addErrback(fail)
        return NOT_DONE_YET

    def _spell(self, gathered: Gathered, accept: str) -> Deferred[tuple[bytes, str]]:
        return deferToThreadPool(
            self._reactor, self._reactor.getThreadPool(), spell, gathered, accept
        )


class StatusSite:
    """
    Answers at the address of the status site, and remembers what it saw.
    """

    def __init__(
        self,
        group: ListenerGroup,
        describe: Describe,
        sums: Callable[[], Sequence[Sums]],
        places: Callable[[], int],
        policy: Callable[[], str],
        knows: Callable[[bytes | None], bool],
        reactor: Any,
    ) -> None:
        """
        Args:
            group: Of one socket; stays the caller's.
            describe: The status.
            sums: What the scoreboard has summed up.
            places: How many of these are in use, and come first.
            policy: The one in force.
            knows: Whether the site may be asked by a name in ``Host``.
            reactor: Watches the socket and tells the time.
        """
        self._describe = describe
        self._read = sums
        self._policy = policy
        self._ledger = Ledger()
        self._history = History(lambda: self._sums()[: places()], reactor)
        root = Page()
        root.putChild(b"", root)
        root.putChild(b"health", Told(TEXT, lambda: (OK, "ok\n")))
        root.putChild(b"ready", Told(TEXT, lambda: readiness(describe())))
        root.putChild(b"status.json", Told(JSON, self._status))
        root.putChild(b"history.json", Told(JSON, self._past))
        root.putChild(b"metrics", Metrics(self._gather, reactor))

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
        told = self._describe()
        told["last_second"] = None if newest is None else newest.as_told()
        return OK, json.dumps(told) + "\n"

    def _past(self) -> tuple[int, str]:
        told = {
            "interval_seconds": INTERVAL_SECONDS,
            "kept_samples": KEPT_SAMPLES,
            "balance_seconds": BALANCE_SAMPLES * INTERVAL_SECONDS,
            "samples": [sample.as_remembered() for sample in self._history.samples],
        }
        return OK, json.dumps(told) + "\n"

    def _gather(self) -> Gathered:
        sums = self._sums()
        newest = self._history.newest
        return Gathered(
            self._describe(),
            sums,
            dict(self._ledger.accounts),
            None if newest is None else newest.supervisor_delay,
        )

    def close(self) -> None:
        """
        Answer nobody new.
        """
        self._history.stop()
        self._answering.close()


def readiness(status: Mapping[str, Any]) -> tuple[int, str]:
    """
    Whether connections should be brought here, as a status of HTTP and a sentence.

    One ready worker is enough: it also serves the sockets of those that are not, and
    a daemon that is left alone because one of its workers is being replaced would
    lose the others' work too.
    """
    if status["draining"]:
        return SERVICE_UNAVAILABLE, "kvd is draining.\n"
    ready = sum(row["state"] == "ready" for row in status["workers"])
    text = f"{ready} of {len(status['workers'])} workers are ready.\n"
    return (OK if ready else SERVICE_UNAVAILABLE), text
