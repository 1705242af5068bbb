"""
The daemon without workers: the process that twistd starts serves (``--procs 0``).
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from kvd.admin.control.status import WorkerState
from kvd.daemon.base import ServingService
from kvd.system.signals import end_once
from kvd.workers.http_server import HttpServer
from kvd.workers.loading import load_plugins

_log = Logger()


class SingleProcessService(ServingService):
    """
    Serves in this process.
    """

    def startService(self) -> None:
        from twisted.internet import reactor

        super().startService()
        settings = self._for_serving(self._settings)
        parts = load_plugins(settings, verifying=self._verifier.asking.fileno())
        parts = replace(parts, usage=self._usage)
        row = self._scoreboard.own_row(0)
        self._server = HttpServer(settings, 0, reactor, row, parts)
        self._server.start()
        reactor.serve_readable = self._server.serve_idle()  # type: ignore[attr-defined]  # see install_adoption
        for number, group in enumerate(self._groups):
            for member, sock in enumerate(group.members):
                self._server.listen(f"{number}/{member}", sock)
        self._open_sites(reactor)
        end_once(reactor)
        self._reload_on_hangup(reactor)
        self._serves(reactor)

    def _reload(self) -> Deferred[None]:
        _log.warn(
            "without workers (--procs 0) settings cannot be reloaded: restart kvd"
        )
        return succeed(None)

    def _workers(self) -> list[WorkerState]:
        return [WorkerState(0, os.getpid(), "ready", 0)]

    def stopService(self) -> Deferred[None]:
        super().stopService()
        for number, group in enumerate(self._groups):
            for member in range(group.given):
                self._server.unlisten(f"{number}/{member}")
            group.close()
        drained: Deferred[Any] = self._server.drain(self._settings.drain_seconds)

        def end(_: None) -> Deferred[None]:
            self._close_sites()
            return self._server.stop().addBoth(stopped)

        def stopped(result: Any) -> Any:
            self._end_others()
            return result

        return drained.addCallback(end)
