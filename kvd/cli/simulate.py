"""
``kvd simulate``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from kvd.cli.bench_options import measuring
from kvd.cli.progress import progress
from kvd.cli.quantity import quantity
from kvd.errors import BadSetting, OperatorError
from kvd.lab.simulate.balancing import ALONE, BALANCERS, Fleet
from kvd.lab.simulate.load import ARRIVALS, SERVICES
from kvd.lab.simulate.presets import PRESETS
from kvd.model.quantities import Count, Seconds

if TYPE_CHECKING:
    from kvd.interfaces import IDispatchPolicy
    from kvd.lab.simulate.plan import Plan

MAX_WORKERS: Final = 4096
MAX_MACHINES: Final = 4096
MAX_ALL_WORKERS: Final = 65_536
DEFAULT_WORKERS: Final = 8

_requests = quantity(Count("a number of requests", 1, 10_000_000))
_workers = quantity(Count("a number of workers", 1, MAX_WORKERS))
_machines = quantity(Count("a number of machines", 1, MAX_MACHINES))
_balancers = quantity(Count("a number of balancers", 1, 1000))
_clients = quantity(Count("a number of clients", 1, 1_000_000))
_seed = quantity(Count("a seed", 0, 2**32))
_runs = quantity(Count("a number of runs", 1, 10_000))
_seconds = quantity(Seconds(most=86400))


def _read_share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    # Also what is not a number fails this.
    if 0 < share <= 100:
        return share
    raise BadSetting(f"{text!r} is not a share: give a number above 0, such as 0.8")


def _read_reuse(text: str) -> int:
    return 0 if text == "all" else Count("a number of requests", 1, 10**7)(text)


_PRESETS: Final = "\b\nPresets:\n" + "\n".join(
    f"  {name:12}{plan.description}" for name, plan in PRESETS.items()
)


@click.command(context_settings={"show_default": True}, epilog=_PRESETS)
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    help="A well-known load; the options that describe a load do not apply.",
)
@click.option(
    "--replay",
    multiple=True,
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="A record of twistd kvd --record FILE; may be given several times.",
)
@click.option(
    "--check",
    is_flag=True,
    help="Compare the simulation with a daemon on this machine, or with HAProxy and a"
    " daemon for each of --machines; takes minutes.",
)
@click.option(
    "--policy",
    "names",
    multiple=True,
    metavar="NAME",
    help="May be given several times; by default all that are installed.",
)
@click.option(
    "--procs",
    metavar="N",
    callback=_workers,
    help="Workers of a machine; by default 8, or those of the preset or the record.",
)
@click.option(
    "--machines",
    metavar="N",
    default="1",
    callback=_machines,
    help="Machines with so many workers each.",
)
@click.option(
    "--balancer",
    "balancer_names",
    multiple=True,
    type=click.Choice(list(BALANCERS)),
    help="Gives each connection a machine; may be given several times; by default all,"
    " or with --check those that HAProxy can be on one machine.",
)
@click.option(
    "--balancers",
    metavar="N",
    default="1",
    callback=_balancers,
    help="How many there are; none knows what the others do.",
)
@click.option(
    "--seed", metavar="N", default="1", callback=_seed, help="Of all random choices."
)
@click.option(
    "--runs",
    metavar="N",
    callback=_runs,
    help="Number of seeds to average over; by default 1, or that of the preset. With"
    " --check: number of measurements, whose median counts.",
)
@click.option("--json", "as_text", is_flag=True, help="Print JSON.")
@click.option(
    "--requests",
    metavar="N",
    default="100000",
    callback=_requests,
    help="Number of requests.",
)
@click.option(
    "--reuse",
    metavar="N",
    default="1",
    callback=quantity(_read_reuse),
    help="Requests over one connection; all: a client keeps its connection.",
)
@click.option(
    "--arrivals",
    type=click.Choice(["closed", *ARRIVALS]),
    default="poisson",
    help="closed: each client waits for a reply before its next request; else"
    " connections arrive independently of replies.",
)
@click.option(
    "--clients",
    metavar="N",
    default="32",
    callback=_clients,
    help="Number of clients, with closed arrivals.",
)
@click.option(
    "--utilisation",
    metavar="SHARE",
    default="0.8",
    callback=quantity(_read_share),
    help="Of the workers, unless arrivals are closed.",
)
@click.option(
    "--burst",
    metavar="N",
    default="64",
    callback=_clients,
    help="Connections that arrive at once, in bursts.",
)
@click.option(
    "--service",
    type=click.Choice(list(SERVICES)),
    default="exponential",
    help="Distribution of the service times.",
)
@click.option(
    "--mean",
    metavar="TIME",
    default="10ms",
    callback=_seconds,
    help="Mean service time.",
)
@click.option(
    "--pause",
    metavar="TIME",
    callback=_seconds,
    help="From a reply to the client's next request; by default none.",
)
@click.option(
    "--lag",
    metavar="TIME",
    callback=_seconds,
    help="From a connection to its first request; by default none.",
)
def simulate(
    preset: str | None,
    replay: Sequence[str],
    check: bool,
    names: Sequence[str],
    procs: int | None,
    machines: int,
    balancer_names: Sequence[str],
    balancers: int,
    seed: int,
    runs: int | None,
    as_text: bool,
    **load: Any,
) -> None:
    """
    Compare policies without a daemon. Each gets the same load, and its own code chooses
    the workers. If the kernel chooses, the policy's model of the kernel does.

    Regret is the part of the makespan above the shortest possible one, and the part of
    the mean wait above that with one queue for all workers.
    """
    # Imported here, because other subcommands do not need it.
    from kvd.lab.simulate.laboratory import load_policies
    from kvd.lab.simulate.outcome import BadChoice
    from kvd.lab.simulate.plan import Synthesis, recorded_plan
    from kvd.plugins import IPolicyDeclaration, declared

    if sum((preset is not None, bool(replay), check)) > 1:
        raise click.UsageError("give one of --preset, --replay and --check")
    each = procs or DEFAULT_WORKERS
    if machines > 1 and (preset is not None or replay):
        raise click.UsageError(
            "--machines is for a load that is described by options: give it without"
            " --preset and --replay"
        )
    if check and balancers > 1:
        raise click.UsageError("--check starts one balancer: leave out --balancers")
    if machines * each > MAX_ALL_WORKERS:
        raise click.UsageError(
            f"{machines} machines with {each} workers each have {machines * each}"
            f" workers; at most {MAX_ALL_WORKERS} can be simulated"
        )
    if machines == 1 and (balancer_names or balancers > 1):
        raise click.UsageError(
            "a balancer needs several machines: give --machines 2 or more"
        )
    names_of_balancers = balancer_names or [
        name for name in BALANCERS if not (check and name == "source")
    ]
    fleets = (
        [ALONE]
        if machines == 1
        else [Fleet(machines, name, balancers) for name in names_of_balancers]
    )
    try:
        policies = load_policies(names or list(declared(IPolicyDeclaration)))
        if check:
            counts = None if procs is None else [procs]
            _check(policies, seed, runs or 1, counts, fleets, as_text)
            return
        if preset is not None:
            plan = PRESETS[preset].adjusted(procs, runs)
        elif replay:
            plan = recorded_plan(replay, procs).adjusted(None, runs)
        else:
            plan = Synthesis(**load).plan(each, fleets).adjusted(None, runs)
        _run(plan, policies, seed, as_text)
    except OperatorError as error:
        raise click.ClickException(error.sentence) from error
    except BadChoice as error:
        raise click.ClickException(str(error)) from error


def _run(
    plan: Plan, policies: Mapping[str, IDispatchPolicy], seed: int, as_text: bool
) -> None:
    from kvd.lab.measuring.table import wide_console
    from kvd.lab.simulate.laboratory import simulate_case
    from kvd.lab.simulate.table import as_json, show

    console = wide_console()
    cases = []
    for case in plan.cases:
        rows = list(
            simulate_case(
                case,
                {**plan.further, **policies},
                range(seed, seed + plan.runs),
                lambda name: progress(f"policy {name}"),
            )
        )
        cases.append(as_json(case, rows))
        if not as_text:
            show(case, rows, console)
    if as_text:
        click.echo(json.dumps({"seed": seed, "runs": plan.runs, "cases": cases}))
    else:
        click.echo(f"\n{plan.conclusion}" if plan.conclusion else "", nl=False)


def _check(
    policies: Mapping[str, IDispatchPolicy],
    seed: int,
    runs: int,
    procs: Sequence[int] | None,
    fleets: Sequence[Fleet],
    as_text: bool,
) -> None:
    from kvd.lab.measuring.table import wide_console
    from kvd.lab.simulate.check import WORKERS, compare
    from kvd.lab.simulate.table import check_as_json, show_check

    console = wide_console()
    compared = []
    with measuring():
        for fleet in fleets:
            for comparison in compare(
                policies, seed, runs, procs or WORKERS, fleet, progress
            ):
                compared.append(comparison)
                if not as_text:
                    show_check(comparison, console)
    if as_text:
        comparisons = [check_as_json(comparison) for comparison in compared]
        click.echo(json.dumps({"seed": seed, "compared": comparisons}))
    if any(pair.failed for one in compared for pair in one.pairs.values()):
        sys.exit(1)
