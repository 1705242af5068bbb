"""
A subcommand's work in a reactor, and the report of its failures.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from ipaddress import ip_address
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import click
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    eventAsText,
    globalLogBeginner,
)
from twisted.python.failure import Failure
from zope.interface import provider

from kvd.cli.errors import ABSENT, FAILED, NO_ANSWER, NOT_EXPECTED, UNREAD, LocalError
from kvd.cli.main import complain
from kvd.cli.quantity import quantity
from kvd.client import (
    Absent,
    BrokenOff,
    Client,
    ClientError,
    ClientTLS,
    ConditionFailed,
    Credentials,
    CredentialsUnusable,
    NotKvd,
    TimedOut,
    Unreachable,
)
from kvd.client.client import checked_url
from kvd.client.credentials import read_netrc, read_token_file
from kvd.client.resuming import PAUSES_SECONDS
from kvd.model.quantities import Seconds
from kvd.system.clock import measure_monotonically

T = TypeVar("T")

ENDING: Final = (signal.SIGINT, signal.SIGTERM)
"""
The signals that ask a command to end.
"""

jobs_option = click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    help="How many values are moved at once.",
)


def connect(url: str) -> Client:
    """
    A client for a URL, with the timeout and the credentials of the options before the
    command.

    Raises:
        click.UsageError: The URL is not valid, or a certificate.
        LocalError: The credentials, or a file, cannot be used.
    """
    try:
        return Client(
            url,
            credentials=_credentials(url),
            timeout_seconds=_timeout_seconds(),
            tls=_tls(),
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    except CredentialsUnusable as error:
        raise LocalError(error.sentence) from error


def _credentials(url: str) -> Credentials | None:
    host = urlsplit(checked_url(url)).hostname or ""
    given = click.get_current_context().find_root().params
    found: Credentials | None = None
    if given["token_file"] is not None:
        found = read_token_file(given["token_file"])
    elif given["netrc"] is not None:
        found = read_netrc(given["netrc"], host)
    elif os.path.exists(own := os.path.expanduser("~/.netrc")):
        found = read_netrc(own, host)
    if found is not None and url.startswith("http:") and not _is_this_machine(host):
        complain(
            f"the credentials go to {host} unencrypted, and anybody on the way can read"
            " them."
        )
    return found


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _tls() -> ClientTLS | None:
    """
    What ``--cacert``, ``--cert`` and ``--key`` say.
    """
    given = click.get_current_context().find_root().params
    if given["key"] is not None and given["cert"] is None:
        raise click.UsageError(
            "--key has the private key of a certificate: give that with --cert"
        )
    contents = [
        None if given[name] is None else _read(given[name])
        for name in ("cacert", "cert", "key")
    ]
    return None if contents == [None] * 3 else ClientTLS(*contents)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise LocalError(f"{path} cannot be read: {error.strerror}") from error


def _timeout_seconds() -> float:
    root = click.get_current_context().find_root()
    [option] = [option for option in root.command.params if option.name == "timeout"]
    seconds = quantity(Seconds(most=7 * 86400))(root, option, root.params["timeout"])
    assert seconds is not None, "it has a default"
    return seconds


async def each(
    things: Iterable[T],
    work: Callable[[T], Awaitable[object]],
    name: Callable[[T, Exception], str],
    jobs: int = 1,
) -> int:
    """
    Do the same work with each of several things, report each failure, and go on.

    Args:
        things: All of them.
        work: What is done with each.
        name: The subject of a failure.
        jobs: How many are worked on at once.

    Returns:
        The exit status: that of the first failure, or 0.
    """
    first = 0
    unanswered: list[Exception] = []
    rest = iter(things)

    async def work_off() -> None:
        nonlocal first
        # One that does not answer would not answer the next request either.
        while not unanswered:
            try:
                thing = next(rest)
            except StopIteration:
                return
            try:
                await work(thing)
            except (ClientError, LocalError) as error:
                subject = name(thing, error)
                # That nobody is there is said once.
                if not unanswered or not isinstance(error, Unreachable):
                    complain(f"{subject}: {error}")
                first = first or status_of(error)
                if isinstance(error, Unreachable | TimedOut):
                    unanswered.append(error)

    working = [work_off() for _ in range(jobs)]
    doing = [Deferred.fromCoroutine(one) for one in working]
    try:
        for one in doing:
            await one
    except BaseException:
        # Not Deferred.cancel, as in `run`.
        for coroutine, one in zip(working, doing, strict=True):
            coroutine.close()
            # What it waited for may still come, and resumes what is closed.
            one.addErrback(lambda _: None)
        raise
    return first


async def patiently(
    work: Callable[[], Awaitable[T]],
    retried: tuple[type[ClientError], ...] = (Unreachable, BrokenOff),
) -> T:
    """
    Do some work again, after longer and longer pauses, while the daemon is being
    restarted. A timeout is not retried.

    Args:
        work: What can be done twice.
        retried: The failures after which it can.
    """
    from twisted.internet import reactor as installed

    clock: Any = installed
    for seconds in PAUSES_SECONDS:
        try:
            return await work()
        except TimedOut:
            raise
        except retried:
            await deferLater(clock, seconds)
    return await work()


def status_of(error: Exception) -> int:
    """
    The exit status for a failure.
    """
    if isinstance(error, Absent):
        return ABSENT
    if isinstance(error, ConditionFailed):
        return NOT_EXPECTED
    if isinstance(error, Unreachable | BrokenOff | NotKvd):
        return NO_ANSWER
    return FAILED


def run(
    work: Callable[[], Coroutine[Deferred[Any], Any, int]],
    stop: Callable[[], None] | None = None,
) -> None:
    """
    Do the work of a subcommand and exit with the status that it returns.

    SIGINT and SIGTERM close it, so that it cleans up. The status is then 128 plus the
    signal's number, as a shell expects. A second signal, whichever of them it is, ends
    the process at once.

    Args:
        work: The work.
        stop: Called by the signal's handler instead of closing it, for work whose
            cleanup has to wait, or that may not wait for long: it ends by itself then.
    """
    # Imported here, because importing the reactor installs one.
    from twisted.internet import reactor as installed

    reactor: Any = installed
    measure_monotonically(reactor)
    outcome: list[int] = []

    def ended(result: int | Failure) -> None:
        if outcome and stop is None:
            return  # What it waited for has come, and resumed what was closed.
        status = _status(result) if isinstance(result, Failure) else result
        if not outcome:
            outcome.append(status)
        reactor.stop()

    working = work()

    def begin() -> None:
        Deferred.fromCoroutine(working).addBoth(ended)

    def interrupted(number: int, frame: object) -> None:
        # A write to a pipe that is not read blocks for ever: a second signal ends that.
        for either in ENDING:
            signal.signal(either, signal.SIG_DFL)
        if stop is None:
            reactor.callFromThread(end, 128 + number)
        elif not outcome:
            outcome.append(128 + number)
            stop()

    def end(status: int) -> None:
        if not outcome:
            # Not Deferred.cancel, which a name lookup in a thread ignores.
            working.close()
            outcome.append(status)
            reactor.stop()

    # Before any work that needs a cleanup.
    for number in ENDING:
        signal.signal(number, interrupted)

    globalLogBeginner.beginLoggingTo([_print_bugs], redirectStandardIO=False)
    reactor.callWhenRunning(begin)
    reactor.run(installSignalHandlers=False)
    click.get_current_context().exit(outcome[0])


@provider(ILogObserver)
def _print_bugs(event: LogEvent) -> None:
    """
    Print errors as Twisted does without an observer. A rejected certificate is not a
    bug, and is reported when the connection fails.
    """
    if (
        sys.stderr is not None
        and event["log_level"] is LogLevel.critical
        and event["log_namespace"] != "twisted.internet._sslverify"
    ):
        sys.stderr.write(f"{eventAsText(event, includeTimestamp=False)}\n")


def _status(failure: Failure) -> int:
    error = failure.value
    if isinstance(error, BrokenPipeError):
        return UNREAD
    if isinstance(error, click.ClickException):
        complain(error.format_message())
        return error.exit_code
    if isinstance(error, ClientError):
        complain(str(error))
        return status_of(error)
    complain(f"this is a bug in kvd: {failure.getTraceback()}")
    return FAILED
