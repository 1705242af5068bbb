"""
Runs the tests in several processes: ``pytest -p tests.parallel --processes=2``.

Tests are collected once, and each process is forked with all of them: to collect
them costs as much as hundreds of them. Each process has a range of the tests, and when
that is empty, it takes half of the longest that is left: most tests of a file run in
one process and share its fixtures. Each reports to the first process, which runs none.
"""

from __future__ import annotations

import atexit
import faulthandler
import fcntl
import mmap
import os
import pickle
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest

from tests import measuring

_INTEGER: Final = 4
NOTHING: Final = -1


HUNG_SECONDS: Final = 600
"""
Longer than pytest-timeout waits, whose failure is raised in the test; that may wait for
a process then, for ever.
"""

_shared: list[Path] = []
"""
In a process that was forked: the temporary folder of the first.
"""


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """
    A temporary folder that all processes of a run share.
    """
    return _shared[0] if _shared else factory.getbasetemp()


def pytest_addoption(parser: pytest.Parser) -> None:
    """
    Tell pytest of the option.
    """
    parser.addoption(
        "--processes",
        type=int,
        default=0,
        help="how many processes run the tests; 0 is this one alone",
    )
    parser.addoption(
        "--hung-seconds",
        type=int,
        default=HUNG_SECONDS,
        help="how long a test goes on at most before its process is ended",
    )


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """
    Take part only where there are processes.
    """
    if config.option.processes and not config.option.collectonly:
        config.pluginmanager.register(Parallel(config), "parallel")


class Ranges:
    """
    Which tests each process has still to run, in memory that they share.
    """

    def __init__(self, tests: int, processes: int) -> None:
        size = 3 * processes * _INTEGER
        # Locks of a file are a process's own, and gone when it has ended.
        self._file = os.memfd_create("ranges")
        os.ftruncate(self._file, size)
        self._numbers = memoryview(mmap.mmap(self._file, size)).cast("i")
        self._processes = processes
        for place in range(processes):
            self._set(
                place, tests * place // processes, tests * (place + 1) // processes
            )
            self._numbers[3 * place + 2] = NOTHING

    def take(self, place: int) -> int:
        """
        The next test of a process, which is then running; `NOTHING` if none is left.
        """
        with self._locked():
            begin, end = self._get(place)
            if begin >= end:
                begin, end = self._steal()
            running = NOTHING if begin >= end else begin
            self._set(place, min(begin + 1, end), end)
            self._numbers[3 * place + 2] = running
            return running

    def peek(self, place: int) -> int:
        """
        What `take` gives next, unless another process takes it first.
        """
        begin, end = self._get(place)
        return begin if begin < end else NOTHING

    def running(self, place: int) -> int:
        """
        What a process has taken last.
        """
        return self._numbers[3 * place + 2]

    def clear(self) -> None:
        """
        Leave nothing to be taken.
        """
        with self._locked():
            for place in range(self._processes):
                self._set(place, 0, 0)

    def close(self) -> None:
        """
        Free its descriptor.
        """
        os.close(self._file)

    def _steal(self) -> tuple[int, int]:
        longest = max(range(self._processes), key=self._length)
        begin, end = self._get(longest)
        middle = (begin + end) // 2
        self._set(longest, begin, middle)
        return middle, end

    def _length(self, place: int) -> int:
        begin, end = self._get(place)
        return end - begin

    def _get(self, place: int) -> tuple[int, int]:
        return self._numbers[3 * place], self._numbers[3 * place + 1]

    def _set(self, place: int, begin: int, end: int) -> None:
        self._numbers[3 * place], self._numbers[3 * place + 1] = begin, end

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)


class Parallel:
    """
    The first process: forks the others, and passes on what they report.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._pids: dict[int, tuple[int, int, Connection]] = {}
        """
        By the descriptor that shows its end: place, process number and connection.
        """

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """
        Run all tests that were collected.
        """
        if session.testsfailed or not session.items:
            # pytest's own loop says so.
            return None
        reporter: Any = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter:
            # Tests of many files end by turns.
            reporter.showfspath = False
        # Made before they are forked, which use folders in it.
        self._config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
        count = min(self._config.option.processes, len(session.items))
        ranges = Ranges(len(session.items), count)
        try:
            for place in range(count):
                self._fork(session, ranges, place)
            while self._pids:
                self._wait(session, ranges)
        finally:
            for ended, (_, pid, connection) in self._pids.items():
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                os.close(ended)
                connection.close()
            ranges.close()
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        return True

    def _fork(self, session: pytest.Session, ranges: Ranges, place: int) -> None:
        ours, theirs = Pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            for ended, (_, _, connection) in self._pids.items():
                os.close(ended)
                connection.close()
            ours.close()
            Runner(session, ranges, place, theirs).run()
        theirs.close()
        # An end of the connection would not show it: children of tests have it too.
        self._pids[os.pidfd_open(pid)] = place, pid, ours

    def _wait(self, session: pytest.Session, ranges: Ranges) -> None:
        ready = wait([*self._pids, *(one for _, _, one in self._pids.values())])
        for ended, (place, pid, connection) in list(self._pids.items()):
            # Whatever it said before it ended is there.
            self._pass_on(connection)
            if ended in ready:
                del self._pids[ended]
                os.close(ended)
                connection.close()
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                if status:
                    self._crashed(session, ranges.running(place), status)
                    self._fork(session, ranges, place)
        if session.shouldfail or session.shouldstop:
            ranges.clear()

    def _pass_on(self, connection: Connection) -> None:
        hook = self._config.hook
        with suppress(EOFError):
            while connection.poll():
                kind, given = connection.recv()
                if kind == "warning":
                    hook.pytest_warning_recorded.call_historic(kwargs=_warning(*given))
                    continue
                reports = [
                    hook.pytest_report_from_serializable(config=self._config, data=data)
                    for data in given
                ]
                nodeid, location = reports[0].nodeid, reports[0].location
                hook.pytest_runtest_logstart(nodeid=nodeid, location=location)
                for report in reports:
                    hook.pytest_runtest_logreport(report=report)
                hook.pytest_runtest_logfinish(nodeid=nodeid, location=location)

    def _crashed(self, session: pytest.Session, running: int, status: int) -> None:
        seconds = self._config.option.hung_seconds
        how = f"status {status}, as it does after {seconds} s of one test"
        if status < 0:
            how = signal.Signals(-status).name
        if running == NOTHING:
            raise RuntimeError(
                f"a process that runs tests ended with {how}, and ran none"
            )
        item = session.items[running]
        report = pytest.TestReport(
            item.nodeid,
            item.location,
            {},
            "failed",
            f"the process that ran this test ended with {how}",
            "call",
        )
        self._config.hook.pytest_runtest_logreport(report=report)


class Runner:
    """
    A process that runs tests.
    """

    def __init__(
        self, session: pytest.Session, ranges: Ranges, place: int, reports: Connection
    ) -> None:
        self._session = session
        self._config = session.config
        self._ranges = ranges
        self._place = place
        self._connection = reports
        self._reports: list[Any] = []
        self._running = False

    def run(self) -> NoReturn:
        """
        Run what there is, and end.
        """
        status = 1
        try:
            self._become_another()
            self._run()
            self._config._ensure_unconfigure()
            atexit._run_exitfuncs()
            status = 0
        except BaseException as error:
            sys.excepthook(type(error), error, error.__traceback__)
        finally:
            measuring.save()
            with suppress(OSError, ValueError):
                sys.stderr.flush()
            os._exit(status)

    def _become_another(self) -> None:
        # What the first process will do at its end.
        atexit._clear()
        measuring.measure_this_process_alone()
        # Its files are open in all of them, with one position.
        capture: Any = self._config.pluginmanager.get_plugin("capturemanager")
        capture.stop_global_capturing()
        capture.start_global_capturing()
        capture.suspend_global_capture(in_=True)
        # Its epoll(7) is one for all of them; whoever needs a reactor gets another.
        if sys.modules.pop("twisted.internet.reactor", None):
            del sys.modules["twisted.internet"].reactor
        folders: Any = self._config._tmp_path_factory  # type: ignore[attr-defined]
        _shared.append(folders._basetemp)
        folders._basetemp /= f"process-{self._place}"
        folders._basetemp.mkdir(mode=0o700, exist_ok=True)
        reporter: Any = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter:
            # Others still ask for its writer.
            self._config.pluginmanager.unregister(reporter)
            self._config.pluginmanager.register(_Writer(reporter), "terminalreporter")
        self._config.pluginmanager.register(self)

    def _run(self) -> None:
        self._running = True
        items, hung_seconds = self._session.items, self._config.option.hung_seconds
        number = self._ranges.take(self._place)
        while number != NOTHING:
            item = items[number]
            expected = self._ranges.peek(self._place)
            faulthandler.dump_traceback_later(hung_seconds, exit=True)
            item.ihook.pytest_runtest_protocol(
                item=item, nextitem=None if expected == NOTHING else items[expected]
            )
            if self._session.shouldstop or self._session.shouldfail:
                self._ranges.clear()
            number = self._ranges.take(self._place)
            if expected not in (number, NOTHING):
                # Taken by another process: fixtures were kept for it.
                self._tear_down(item, None if number == NOTHING else items[number])
            faulthandler.cancel_dump_traceback_later()
            self._send()

    def _tear_down(self, item: pytest.Item, following: pytest.Item | None) -> None:
        teardown = self._session._setupstate.teardown_exact
        call = pytest.CallInfo.from_call(lambda: teardown(following), "teardown")
        if call.excinfo:
            report = pytest.TestReport.from_item_and_call(item, call)
            self.pytest_runtest_logreport(report)

    def _send(self) -> None:
        self._connection.send(("reports", self._reports))
        self._reports = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """
        Keep it until its test has ended.
        """
        self._reports.append(
            self._config.hook.pytest_report_to_serializable(
                config=self._config, report=report
            )
        )

    def pytest_warning_recorded(
        self, warning_message: Any, when: str, nodeid: str, location: Any
    ) -> None:
        """
        Pass it on, unless it is told again of what came before.
        """
        if not self._running:
            return
        category = warning_message.category
        try:
            pickle.dumps(category)
        except (pickle.PicklingError, AttributeError):
            category = UserWarning
        text, file = str(warning_message.message), warning_message.filename
        given = text, category, file, warning_message.lineno, when, nodeid, location
        self._connection.send(("warning", given))


class _Writer:
    """
    What is asked of pytest's reporter by those who write themselves.
    """

    def __init__(self, reporter: Any) -> None:
        self._tw = reporter._tw


def _warning(
    text: str, category: type[Warning], file: str, line: int, *rest: Any
) -> dict[str, Any]:
    message = warnings.WarningMessage(text, category, file, line)
    return dict(zip(("when", "nodeid", "location"), rest, strict=True)) | {
        "warning_message": message
    }
