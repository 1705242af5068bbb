"""
What ``kvd bench`` measured, as JSON for another program.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from kvd.lab.bench import article, dispatch, small
from kvd.lab.bench.run import Rounds, Run
from kvd.lab.bench.timeline import busy_shares
from kvd.lab.measuring.targets import Target

COLUMNS: Final = 200


def article_record(
    plan: article.Plan, modes: Sequence[article.Mode], machine: Mapping[str, str]
) -> dict[str, Any]:
    """
    The article's load.
    """
    return {
        "machine": machine,
        "plan": plan,
        "modes": [
            {
                "keep_alive": mode.keep_alive,
                "ceiling_requests_per_second": mode.ceiling and mode.ceiling.rate,
                "runs": [_run(run) | _busy(run) for run in mode.runs],
            }
            for mode in modes
        ],
    }


def dispatch_record(
    outcome: dispatch.Outcome, targets: Sequence[Target], machine: Mapping[str, str]
) -> dict[str, Any]:
    """
    All rounds of all policies.
    """
    return {
        "machine": machine,
        "plan": outcome.plan,
        "loads": [
            {
                "load": compared.case.name,
                "title": compared.case.title,
                "policies": [_rounds(rounds) for rounds in compared.policies],
            }
            for compared in outcome.compared
        ],
        "hand_over": [
            {
                "policy": cost.policy,
                "supervisor_cpu_seconds": cost.seconds,
                "supervisor_cpu_seconds_single": cost.single_seconds,
                "batches": cost.batches,
            }
            for cost in outcome.hand_over
        ],
        "targets": [
            {
                "name": target.name,
                "measured": target.measured,
                "limit": target.limit,
                "at_least": target.at_least,
                "reached": target.reached,
            }
            for target in targets
        ],
    }


def small_record(outcome: small.Outcome, machine: Mapping[str, str]) -> dict[str, Any]:
    """
    All rounds of all points.
    """
    return {
        "machine": machine,
        "plan": outcome.plan,
        "points": [
            {"workers": point.workers} | _rounds(point) for point in outcome.points
        ],
        "ceiling_requests_per_second": outcome.ceiling.rate,
    }


def _rounds(rounds: Rounds) -> dict[str, Any]:
    return {
        "policy": rounds.policy,
        "requests_per_second": rounds.rate,
        "rounds": [_run(run) for run in rounds.runs],
    }


def _run(run: Run) -> dict[str, Any]:
    return {
        "policy": run.policy,
        "seconds": run.report.seconds,
        "requests_per_second": run.rate,
        "p50_seconds": run.latency(0.5),
        "p99_seconds": run.latency(0.99),
        "max_seconds": run.latency(1.0),
        "jain_index_of_requests": run.balance,
        "jain_index_of_connections": run.balance_of_connections,
        "idle_while_others_queue": run.idle_while_others_queue,
        "share_of_time_under_half_busy": run.time_under_half_busy,
        "utilisation": run.utilisation,
        "worker_cores": run.worker_cores,
        "load_cores": run.load_cores,
        "supervisor_cpu_seconds": run.work.supervisor_cpu_seconds,
        "requests_of_workers": run.work.requests,
        "connections_of_workers": run.work.connections,
        "failures": run.report.failures,
    }


def _busy(run: Run) -> dict[str, Any]:
    """
    Each worker along the run, in equal columns.
    """
    report, samples = run.report, run.work.samples
    shares = busy_shares(samples, report.began, report.ended, COLUMNS)
    return {"busy": [[round(share, 3) for share in line] for line in shares]}
