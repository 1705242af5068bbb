"""
``kvd bench dispatch``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click

from kvd.cli.bench_options import (
    check_policies,
    json_option,
    measuring,
    processes,
    report_option,
    rounds,
    seconds,
    tell,
    write_to,
)
from kvd.cli.errors import FAILED
from kvd.cli.output import standard_output

LOADS: Final = (
    "equal",
    "keep-alive",
    "keep-alive-few",
    "uneven",
    "uneven-many",
    "storm",
)


@click.command(context_settings={"show_default": True})
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="NAME",
    help="May be given several times; by default all that are installed.",
)
@click.option(
    "--load",
    "loads",
    multiple=True,
    type=click.Choice(LOADS),
    default=LOADS,
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
    help="Processes that send; where few are meant, a quarter of them.",
)
@click.option(
    "--mean",
    "mean_seconds",
    metavar="TIME",
    default="4ms",
    callback=seconds,
    help="For which a request keeps its worker. If the machine cannot do so many"
    " requests, the figures are the machine's.",
)
@click.option(
    "--seconds", metavar="TIME", default="1.5", callback=seconds, help="Of each run."
)
@click.option(
    "--rounds",
    metavar="N",
    default="3",
    callback=rounds,
    help="Runs of each; the median counts.",
)
@click.option(
    "--hand-over/--no-hand-over",
    default=True,
    help="Measure what the supervisor spends on a connection, too.",
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

    A request sleeps in its worker (the store is sleep:), so that even two processors
    show what eight workers do. Uneven: 19 of 20 requests take half of the mean, one
    10.5 times the mean. Storm: requests that take no time, over 16 times as many
    connections as there are clients else, all of which are opened at once. Takes about
    six minutes.
    """
    from rich.console import Console

    from kvd.lab.bench.comparison_record import write_dispatch
    from kvd.lab.bench.dispatch import (
        Compared,
        Outcome,
        Plan,
        measure,
        measure_hand_overs,
    )
    from kvd.lab.bench.dispatch_table import (
        plan_line,
        show_compared,
        show_hand_over,
        show_wanted,
    )
    from kvd.lab.bench.machine import this_machine
    from kvd.lab.bench.report import check_report
    from kvd.lab.bench.report import write_dispatch as write_page
    from kvd.lab.bench.table import WIDTH
    from kvd.lab.bench.wanted import wanted
    from kvd.plugins import IPolicyDeclaration, declared

    policies = list(dict.fromkeys(policies or declared(IPolicyDeclaration)))
    plan = Plan(
        policies, loads, procs, clients, mean_seconds, seconds, rounds, hand_over
    )
    machine = this_machine()
    compared: list[Compared] = []
    with measuring():
        check_policies(policies)
        if report is not None:
            check_report()
        console = Console(highlight=False)
        console.width = max(console.width, WIDTH)
        with standard_output():
            console.print(f"{machine.line()}\n{plan_line(plan)}", soft_wrap=True)
        for one in measure(plan, tell):
            compared.append(one)
            with standard_output():
                show_compared(one, console)
        costs = list(measure_hand_overs(plan, tell)) if hand_over else []
        outcome = Outcome(plan, compared, costs)
        figures = wanted(outcome)
        with standard_output():
            if costs:
                show_hand_over(costs, console)
            if figures:
                show_wanted(figures, console)
    write_to(record, lambda path: write_dispatch(path, outcome, figures, machine))
    write_to(report, lambda path: write_page(path, outcome, figures, machine))
    if any(seen.failed for one in compared for seen in one.seen):
        click.get_current_context().exit(FAILED)
