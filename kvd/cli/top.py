"""
``kvd top``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from itertools import count, islice
from typing import Final

import click

from kvd.cli.control import asking, control_option
from kvd.cli.output import is_terminal, standard_output
from kvd.cli.quantity import quantity
from kvd.cli.rates import Rates
from kvd.control.asking import ControlSocket
from kvd.options.quantities import Count, Seconds

LEAST_SECONDS: Final = 0.05
"""
Shorter intervals are as long: nobody can read that fast.
"""


@click.command()
@control_option
@click.option(
    "--interval",
    metavar="SECONDS",
    callback=quantity(Seconds(most=3600)),
    default="1",
    show_default=True,
    help="From one look to the next.",
)
@click.option(
    "--count",
    "-n",
    "times",
    metavar="COUNT",
    callback=quantity(Count("a number of looks", 1, 10**9)),
    help="End after so many; else with ^C.",
)
@click.pass_obj
def top(url: str, control: str | None, interval: float, times: int | None) -> None:
    """
    Show the workers of a daemon on this machine as they work.

    Rates and the balance of requests are those since the last look; "now" are the
    requests in progress. A worker is silent for a second at most, unless it is at one
    piece of work all the time, or stopped. Waiting are connections that nobody has
    accepted yet; they are a worker's where it alone looks at a socket. Balance is
    Jain's index: 1 where all have the same, 1/n where one of n has everything.
    """
    # Not at the top: only who looks needs it.
    from kvd.cli.frame import draw, plain_console

    with asking(url, control) as asked, standard_output():
        looks = islice(_looks(asked, interval), times)
        try:
            if is_terminal(sys.stdout):
                _show(looks, alone=times is None)
            else:
                console = plain_console()
                for rates in looks:
                    console.print(draw(rates, bars=False))
                    sys.stdout.flush()
        except KeyboardInterrupt:
            # As whoever looks ends looking.
            pass


def _looks(asked: ControlSocket, interval: float) -> Iterator[Rates]:
    interval = max(interval, LEAST_SECONDS)
    before, then = asked.status(), time.monotonic()
    for number in count():
        # Nobody waits long for the first.
        time.sleep(interval if number else min(interval, 1.0))
        # The daemon hangs up on whoever is silent for long.
        asked.close()
        told, now = asked.status(), time.monotonic()
        yield Rates(before, told, now - then)
        before, then = told, now


def _show(looks: Iterator[Rates], alone: bool) -> None:
    from rich.live import Live

    from kvd.cli.frame import draw

    with Live(auto_refresh=False, screen=alone) as live:
        for rates in looks:
            live.update(draw(rates, bars=True), refresh=True)
