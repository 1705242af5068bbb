"""
Coverage of the process that runs tests.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

REACHED_ELSEWHERE: Final = frozenset(
    (
        "tests/dispatch/test_dispatcher.py",
        "tests/dispatch/test_policies.py::GatedTests",
        "tests/dispatch/test_policies.py::LeastBusyTests",
        "tests/dispatch/test_policies.py::RoundRobinTests",
        "tests/dispatch/test_policies.py::SharedTests",
        "tests/dispatch/test_policies.py::SteeredByCpuTests",
        "tests/dispatch/test_policies.py::SteeredTests",
        "tests/dispatch/test_programs.py",
        "tests/http/fast_path/test_conditions.py",
        "tests/http/fast_path/test_gets.py",
        "tests/http/fast_path/test_idle.py",
        "tests/http/fast_path/test_puts.py",
        "tests/http/fast_path/test_recent.py",
        "tests/http/methods/test_listing.py",
        "tests/http/test_authorization.py",
        "tests/http/test_body_sender.py",
        "tests/http/test_connection.py",
        "tests/http/test_freed.py",
        "tests/http/test_moving.py",
        "tests/http/test_run_queue.py",
        "tests/http/test_tls.py::ColdGetTests",
        "tests/http/test_tls.py::ConnectionTests",
        "tests/http/test_tls.py::DrainTests",
        "tests/http/test_tls.py::GetTests",
        "tests/http/test_tls.py::LogTests",
        "tests/http/test_tls.py::PutTests",
        "tests/http/test_tls.py::SmallLimitsTests",
        "tests/http/test_tls.py::TimeTests",
        "tests/http/wire/test_fields.py",
        "tests/http/wire/test_fuzz.py",
        "tests/integration/test_docs.py",
        "tests/lab/bench/test_article.py",
        "tests/lab/bench/test_comparisons.py",
        "tests/lab/bench/test_ratios.py",
        "tests/lab/simulate/test_balancing.py",
        "tests/lab/simulate/test_figures.py",
        "tests/lab/simulate/test_load.py",
        "tests/log/test_messages.py",
        "tests/moving/test_fallback.py::FallbackStoreTests",
        "tests/moving/test_fallback.py::LaterFallbackStoreTests",
        "tests/near/test_store.py::LaterNearStoreTests",
        "tests/near/test_store.py::NearStoreTests",
        "tests/s3/test_faults.py::ConditionTests",
        "tests/s3/test_http.py::ConnectionTests",
        "tests/s3/test_http.py::CorsTests",
        "tests/s3/test_http.py::DrainTests",
        "tests/s3/test_http.py::GetTests",
        "tests/s3/test_http.py::PrefixRulesTests",
        "tests/s3/test_http.py::PutTests",
        "tests/s3/test_http.py::RandomTests",
        "tests/s3/test_http.py::RefusalTests",
        "tests/s3/test_http.py::TLSGetTests",
        "tests/s3/test_http.py::TLSPutTests",
        "tests/s3/test_http.py::TimeTests",
        "tests/store/test_admission.py::BoundedContractTests",
        "tests/store/test_dates.py",
        "tests/store/test_epochs.py",
        "tests/store/test_file.py::DiskContractTests",
        "tests/store/test_file.py::ExchangingContractTests",
        "tests/store/test_file.py::SidecarDiskContractTests",
        "tests/store/test_file.py::SidecarProcessContractTests",
        "tests/store/test_memory.py",
        "tests/store/test_other_hands.py",
        "tests/store/test_writeback.py::ExchangingContractTests",
        "tests/store/test_writeback.py::KeepingContractTests",
    )
)
"""
Files and classes of tests that compute much and reach next to nothing of kvd that
others do not reach: together 0.5 % of its lines and branches. While they run, nothing
is measured: in Python 3.11, that takes as long again, whatever they run.
"""


def measured() -> Any:
    """
    What measures this process, if anything does.
    """
    coverage: Any = sys.modules.get("coverage")
    return coverage and coverage.Coverage.current()


class Tracing:
    """
    The function that traces this process for coverage, which is on only while code of
    kvd may run: what pytest does between takes twice as long with it.

    It is switched with `sys.settrace`: coverage's own ``stop`` and ``start`` take a
    thousand times as long.
    """

    def __init__(self) -> None:
        self._kept: tuple[Any, Any] | None = None

    def pause(self) -> None:
        """
        Switch it off, if something measures this process.
        """
        if measured() and sys.gettrace():
            self._kept = sys.gettrace(), threading.gettrace()
            sys.settrace(None)
            # Of threads that start from now on.
            threading.settrace(None)

    @contextmanager
    def resumed(self) -> Iterator[None]:
        """
        Have it on in a ``with``, if it was switched off. One in another changes
        nothing.
        """
        if self._kept is None or sys.gettrace():
            yield
            return
        here, threads = self._kept
        threading.settrace(threads)
        sys.settrace(here)
        try:
            yield
        finally:
            sys.settrace(None)
            threading.settrace(None)


tracing: Final = Tracing()
"""
Of this process.
"""


def is_traced(item: pytest.Item) -> bool:
    """
    Whether coverage is measured while a test computes.
    """
    file, *names = item.nodeid.split("::")
    return (
        REACHED_ELSEWHERE.isdisjoint((file, f"{file}::{names[0]}"))
        and item.get_closest_marker("untraced") is None
    )


def measure_this_process_alone() -> None:
    """
    Leave out the processes that it starts, unless they are measured too (`make
    coverage`): each of them would load all that measures, and write a file.
    """
    coverage = measured()
    if coverage and "fork" not in coverage.get_option("run:patch"):
        os.environ.pop("COVERAGE_PROCESS_CONFIG", None)
        os.register_at_fork(after_in_child=_measure_no_more)
    # Where forks are measured, each has another function that traces it.
    tracing.pause()


def save() -> None:
    """
    Keep what was measured, in a file of this process.
    """
    coverage = measured()
    if coverage:
        coverage.stop()
        coverage.save()


def _measure_no_more() -> None:
    coverage = measured()
    if coverage:
        coverage.stop()
        # Nor when it is terminated.
        coverage._auto_save = False
