"""
Checks which of several endpoints of an engine answer.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.web.client import (
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseFailed,
)

from kvd.client.asking import reason_of
from kvd.client.receiving import discard
from kvd.client.timeouts import Silence, Timeout
from kvd.s3.connections import Connections
from kvd.s3.endpoints import Endpoint, Endpoints
from kvd.s3.failures import SERVER_ERROR

CHECK_SECONDS: Final = 5.0
CHECK_TIMEOUT_SECONDS: Final = 3.0
"""
How often each of several endpoints is asked whether it answers, and how soon it has to.
"""

_UNREACHABLE: Final = (
    ConnectError,
    DNSLookupError,
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseFailed,
    ValueError,
)


class HealthChecks:
    """
    Asks each endpoint every few seconds whether it answers.
    """

    _log = Logger()

    def __init__(
        self, endpoints: Endpoints, connections: Connections, clock: IReactorTime
    ) -> None:
        self._endpoints = endpoints
        self._connections = connections
        self._clock = clock
        self._calls = LoopingCall(self._check_all)
        self._calls.clock = clock

    def start(self) -> None:
        """
        Start asking.
        """
        self._calls.start(CHECK_SECONDS)

    def stop(self) -> None:
        """
        Stop asking, if that has not happened yet.
        """
        if self._calls.running:
            self._calls.stop()

    def _check_all(self) -> None:
        for endpoint in self._endpoints.all:
            Deferred.fromCoroutine(self._check(endpoint))

    async def _check(self, endpoint: Endpoint) -> None:
        """
        Ask an endpoint whether it answers. Nothing is signed: any answer will do. On a
        new connection: a balancer before several gateways would leave a kept one at the
        gateway that fails.
        """
        timeout = Timeout(self._clock, CHECK_TIMEOUT_SECONDS)
        was_down = endpoint.failures > 0
        reason = ""
        try:
            url = f"{endpoint.url}/"
            asked = self._connections.request("GET", url, fresh=True)
            response = await timeout.wait_for(asked, late=discard)
            # Not drained: it may come byte by byte, and never end.
            discard(response)
            answers = response.code < SERVER_ERROR
            if not answers:
                reason = f": it answers {response.code}"
        except Silence:
            answers, reason = False, f": not within {CHECK_TIMEOUT_SECONDS:g} s"
        except _UNREACHABLE as error:
            answers, reason = False, f": {reason_of(error)}"
        except Exception:
            # A mistake of kvd's own, which must not end the checks.
            answers = False
            if not was_down:
                self._log.failure(
                    "the engine at {url} cannot be asked", url=endpoint.url
                )
        if answers:
            self._endpoints.worked(endpoint)
        else:
            self._endpoints.failed(endpoint)
        if answers == was_down:
            self._log.info(
                "the engine at {url} {answers}",
                url=endpoint.url,
                answers="answers again" if answers else f"does not answer{reason}",
            )
