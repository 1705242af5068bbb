"""
Measurements that nobody made.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvd.lab.bench.article import Mode, Plan
from kvd.lab.bench.load import Report
from kvd.lab.bench.run import Run
from kvd.lab.bench.sampling import Sample, Work

PLAN = Plan(
    requests=8, body_bytes=4_000_000, clients=2, workers=2, policies=["one", "two"],
    ceiling=True,
)  # fmt: skip


def a_report(
    latencies: Sequence[float] = (0.5,) * 8, failures: dict[str, int] | None = None
) -> Report:
    """
    Of a load that took four seconds.
    """
    return Report(
        began=10.0, ended=14.0, latencies=list(latencies), failures=failures or {},
        cpu_seconds=0.25,
    )  # fmt: skip


def a_run(
    policy: str = "one",
    report: Report | None = None,
    requests: Sequence[int] = (6, 2),
) -> Run:
    """
    Of two workers, the second of which is busy for a quarter of the time.
    """
    samples = [
        Sample(10.0, (1, 1), (1, 1)),
        Sample(11.0, (1, 0), (1, 0)),
        Sample(13.0, (0, 0), (0, 0)),
        Sample(14.5, (0, 0), (0, 0)),
    ]
    return Run(policy, report or a_report(), Work(samples, requests, 1.5, 0.125))


def modes() -> list[Mode]:
    """
    Both, of two policies.
    """
    return [
        Mode(keep_alive, [a_run("one"), a_run("two")], a_report())
        for keep_alive in (False, True)
    ]
