"""
``kvd bench dispatch``.
"""

from __future__ import annotations

from collections.abc import Sequence

import click

from kvd.cli.bench_options import (
    check_policies,
    introduce,
    json_option,
    measuring,
    policy_option,
    processes,
    report_option,
    rounds_option,
    seconds,
    write_to,
)
from kvd.cli.errors import FAILED
from kvd.cli.output import standard_output
from kvd.cli.progress import progress
from kvd.lab.bench.dispatch_plan import LOADS


@click.command(context_settings={"show_default": True})
@policy_option()
@click.option(
    "--load",
    "loads",
    multiple=True,
    type=click.Choice(list(LOADS)),
    default=list(LOADS),
    help="May be given several times.",
)
@click.option(
    "--procs", metavar="N", default="8", callback=processes, help="Workers of each."
)
@click.option(
    "--clients",
    metavar="N",
    default="64",
    callback=processes,
    help="Processes that send; a quarter of them in loads with few clients.",
)
@click.option(
    "--mean",
    "mean_seconds",
    metavar="TIME",
    default="4ms",
    callback=seconds,
    help="How long a request keeps its worker busy. If that is too short, the figures"
    " show the limit of the machine.",
)
@click.option(
    "--seconds", metavar="TIME", default="1.5", callback=seconds, help="Of each run."
)
@rounds_option
@click.option(
    "--hand-over/--no-hand-over",
    default=True,
    help="Also measure what a connection costs the supervisor.",
)
@json_option
@report_option
def dispatch(
    policies: Sequence[str],
    loads: Sequence[str],
    procs: int,
    clients: int,
    mean_seconds: float,
    seconds: float,
    rounds: int,
    hand_over: bool,
    record: str | None,
    report: str | None,
) -> None:
    """
    Compare policies under equal, uneven and keep-alive loads, and in a storm.

    A request sleeps in its worker (the store is sleep:), so a machine with two
    processors shows what eight workers do. Uneven: 19 of 20 requests take half of the
    mean, and one takes 10.5 times the mean. Storm: requests that take no time, over
    16 times as many connections as the other loads have clients, all of them opened at
    once. Takes about six minutes.
    """
    from kvd.lab.bench.dispatch import Compared, Outcome, measure, measure_hand_overs
    from kvd.lab.bench.dispatch_plan import Plan
    from kvd.lab.bench.dispatch_table import (
        plan_line,
        show_compared,
        show_hand_over,
        show_targets,
    )
    from kvd.lab.bench.records import dispatch_record
    from kvd.lab.bench.report import write_dispatch
    from kvd.lab.bench.targets import targets
    from kvd.lab.measuring.record import write_record
    from kvd.lab.measuring.report import check_report
    from kvd.plugins import IPolicyDeclaration, declared

    policies = list(dict.fromkeys(policies or declared(IPolicyDeclaration)))
    plan = Plan(
        policies, loads, procs, clients, mean_seconds, seconds, rounds, hand_over
    )
    compared: list[Compared] = []
    with measuring():
        check_policies(policies)
        if report is not None:
            check_report()
        machine, console = introduce(plan_line(plan))
        for one in measure(plan, progress):
            compared.append(one)
            with standard_output():
                show_compared(one, console)
        costs = list(measure_hand_overs(plan, progress)) if hand_over else []
        outcome = Outcome(plan, compared, costs)
        figures = targets(outcome)
        with standard_output():
            if costs:
                show_hand_over(costs, console)
            if figures:
                show_targets(figures, console)
    write_to(
        record,
        lambda path: write_record(path, dispatch_record(outcome, figures, machine)),
    )
    write_to(report, lambda path: write_dispatch(path, outcome, figures, machine))
    if any(rounds.failed for one in compared for rounds in one.policies):
        click.get_current_context().exit(FAILED)
