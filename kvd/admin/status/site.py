"""
The resources of the status site.

The site is read-only: requests change nothing, their bodies are skipped, and error
replies contain no details.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger, globalLogPublisher
from twisted.python.failure import Failure
from twisted.web.http import (
    NOT_ALLOWED,
    NOT_FOUND,
    OK,
    RESPONSES,
)
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from kvd import __version__
from kvd.admin.answering import Answering, BoundedRequest, QuietSite
from kvd.admin.status.disk import Disk
from kvd.admin.status.events import Events
from kvd.admin.status.history import (
    BALANCE_SAMPLES,
    INTERVAL_SECONDS,
    KEPT_SAMPLES,
    KEPT_STEPS,
    STEP_SAMPLES,
    History,
)
from kvd.admin.status.ledger import Ledger
from kvd.admin.status.metrics import Snapshot, render
from kvd.admin.status.page import PAGE, PAGE_POLICY
from kvd.admin.status.processes import Processes
from kvd.admin.status.readiness import readiness
from kvd.ipc.counts import Sums
from kvd.net.listening import ListenerGroup
from kvd.store.space import Space

Describe = Callable[[], dict[str, Any]]
InThread = Callable[[Callable[[], Any]], Deferred[Any]]

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


class SiteResource(Resource):
    """
    A resource of the site; paths below it are unknown unless added.
    """

    def getChild(self, path: bytes, request: Request) -> Resource:
        # Twisted's own resource for unknown names is deprecated.
        return Report(TEXT, lambda: (NOT_FOUND, "There is nothing of this name.\n"))


class Report(SiteResource):
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


class Page(SiteResource):
    """
    The status page for browsers.
    """

    def render_GET(self, request: Request) -> bytes:
        request.setHeader("Content-Type", "text/html; charset=utf-8")
        request.setHeader("Content-Security-Policy", PAGE_POLICY)
        return PAGE


class Later(SiteResource):
    """
    Replies with what has to be found out first.
    """

    _log = Logger()

    def find(self, accept: str) -> Deferred[tuple[int, str, bytes]]:
        """
        Find it out.

        Args:
            accept: The ``Accept`` field of the request.

        Returns:
            The status, the content type and the body.
        """
        raise NotImplementedError

    def render_GET(self, request: Request) -> Any:
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)

        def answer(result: tuple[int, str, bytes]) -> None:
            if not gone:
                status, content_type, body = result
                request.setResponseCode(status)
                request.setHeader("Content-Type", content_type)
                request.setHeader("Content-Length", str(len(body)))
                request.write(body)
                request.finish()

        def fail(failure: Failure) -> None:
            if gone:
                self._log.failure("a part of the status is unknown", failure=failure)
            else:
                # That logs it.
                request.processingFailed(failure)

        found = self.find(request.getHeader("accept") or "")
        found.addCallback(answer).addErrback(fail)
        return NOT_DONE_YET


class Metrics(Later):
    """
    ``/metrics``.
    """

    def __init__(
        self, take: Callable[[], Snapshot], disk: Disk, in_thread: InThread
    ) -> None:
        """
        Args:
            take: Takes a snapshot of the metrics.
            disk: That of the store.
            in_thread: Renders the snapshot in a thread.
        """
        super().__init__()
        self._take = take
        self._disk = disk
        self._in_thread = in_thread
        self._processes = Processes()

    def find(self, accept: str) -> Deferred[tuple[int, str, bytes]]:
        """
        See `Later.find`.
        """

        def render_it(space: Space | None) -> Deferred[tuple[int, str, bytes]]:
            snapshot = self._take()
            return self._in_thread(lambda: self._render(snapshot, space, accept))

        return self._disk.look().addCallback(render_it)

    def _render(
        self, snapshot: Snapshot, space: Space | None, accept: str
    ) -> tuple[int, str, bytes]:
        workers = snapshot.status["workers"]
        used, cpu_seconds = self._processes.read(
            (row["worker"], row["pid"]) for row in workers if row["pid"]
        )
        whole = replace(snapshot, space=space, used=used, cpu_seconds=cpu_seconds)
        body, content_type = render(whole, accept)
        return OK, content_type, body


class Ready(Later):
    """
    ``/ready``.
    """

    def __init__(self, describe: Describe, disk: Disk) -> None:
        super().__init__()
        self._describe = describe
        self._disk = disk

    def find(self, accept: str) -> Deferred[tuple[int, str, bytes]]:
        """
        See `Later.find`.
        """

        def judge(space: Space | None) -> tuple[int, str, bytes]:
            status, text = readiness(self._describe(), space)
            return status, TEXT, text.encode("utf-8")

        return self._disk.look().addCallback(judge)


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
        look_at_disk: Callable[[], Space] | None = None,
        in_thread: InThread | None = None,
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
            look_at_disk: Looks at the disk of the store, and blocks meanwhile; None:
                the store has none that is known.
            in_thread: Runs a function in a thread; None: of the reactor's pool.
        """
        if in_thread is None:
            in_thread = partial(deferToThreadPool, reactor, reactor.getThreadPool())
        self._disk = Disk(look_at_disk, in_thread, reactor)
        self._events = Events(globalLogPublisher)
        self._describe = describe
        self._read = sums
        self._policy = policy
        self._ledger = Ledger()
        self._history = History(lambda: self._sums()[: workers()], reactor)
        root = Page()
        root.putChild(b"", root)
        root.putChild(b"health", Report(TEXT, lambda: (OK, "ok\n")))
        root.putChild(b"ready", Ready(describe, self._disk))
        root.putChild(b"status.json", Report(JSON, self._status))
        root.putChild(b"history.json", Report(JSON, self._past))
        root.putChild(b"metrics", Metrics(self._snapshot, self._disk, in_thread))

        class RequestHere(ReadingRequest):
            is_known = staticmethod(knows)

        site = QuietSite(root, requestFactory=RequestHere, reactor=reactor)
        self.answering = Answering(group.members[0].dup(), site, reactor)
        self._history.start()

    def _sums(self) -> Sequence[Sums]:
        sums = self._read()
        self._ledger.enter(self._policy(), sums)
        return sums

    def _status(self) -> tuple[int, str]:
        newest = self._history.newest
        status = self._describe()
        status["last_second"] = None if newest is None else newest.summary()
        # Known when somebody asks again.
        self._disk.look()
        space = self._disk.newest
        status["disk"] = None if space is None else asdict(space)
        status["ready"], status["readiness"] = _said(readiness(status, space))
        status["events"] = list(self._events.kept)
        return OK, json.dumps(status) + "\n"

    def _past(self) -> tuple[int, str]:
        past = {
            "interval_seconds": INTERVAL_SECONDS,
            "kept_samples": KEPT_SAMPLES,
            "balance_seconds": BALANCE_SAMPLES * INTERVAL_SECONDS,
            "samples": [sample.as_remembered() for sample in self._history.samples],
            "step_seconds": STEP_SAMPLES * INTERVAL_SECONDS,
            "kept_steps": KEPT_STEPS,
            "steps": [step.as_remembered() for step in self._history.steps],
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
        self._disk.close()
        self._events.close()
        self.answering.close()


def _said(answer: tuple[int, str]) -> tuple[bool, str]:
    status, sentence = answer
    return status == OK, sentence.rstrip("\n")
