"""
``kvd top``.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterator
from itertools import count, islice
from typing import Final

import click

from kvd.admin.control.asking import ControlSocket
from kvd.cli.control import asking, control_option
from kvd.cli.output import is_terminal, standard_output
from kvd.cli.quantity import quantity
from kvd.cli.rates import BALANCE_SECONDS, Rates
from kvd.model.quantities import Count, Seconds

LEAST_SECONDS: Final = 0.05
"""
Shorter intervals are rounded up: no person reads that fast.
"""


@click.command()
@control_option
@click.option(
    "--interval",
    metavar="SECONDS",
    callback=quantity(Seconds(most=3600)),
    default="1",
    show_default=True,
    help="Between two updates.",
)
@click.option(
    "--count",
    "-n",
    "times",
    metavar="COUNT",
    callback=quantity(Count("a number of updates", 1, 10**9)),
    help="End after this number of updates; by default, with ^C.",
)
@click.pass_obj
def top(url: str, control: str | None, interval: float, times: int | None) -> None:
    """
    Watch the workers of a daemon on this machine.

    Rates are those since the last update; "now" is the number of requests in progress.
    "Delay" is the longest turn of a worker's reactor since then, for which all other
    events had to wait: it was shorter than the time shown, and at least half as long.
    With a ">" the present turn takes longer than that, or the worker is stopped.
    "Waiting" is the number of connections that no worker has accepted yet, shown for a
    worker if the socket is its own. Balance is Jain's index, of requests over ten
    seconds: 1 if all workers have the same, 1/n if one of n has everything.

    If not all workers fit into the window, the busiest are shown.
    """
    # Imported here, because the other commands do not need it.
    from kvd.cli.frame import draw, text_console

    with asking(url, control) as asked, standard_output():
        looks = islice(_looks(asked, interval), times)
        try:
            if is_terminal(sys.stdout):
                _show(looks, full_screen=times is None)
            else:
                console = text_console()
                for rates in looks:
                    console.print(draw(rates))
                    sys.stdout.flush()
        except KeyboardInterrupt:
            # This is how a person ends the command.
            pass


def _looks(asked: ControlSocket, interval: float) -> Iterator[Rates]:
    interval = max(interval, LEAST_SECONDS)
    looks = deque([(asked.status(), time.monotonic())])
    for number in count():
        # The first update comes soon.
        time.sleep(interval if number else min(interval, 1.0))
        # The daemon closes connections that are silent for long.
        asked.close()
        status, now = asked.status(), time.monotonic()
        while len(looks) > 1 and now - looks[1][1] >= BALANCE_SECONDS:
            looks.popleft()
        before, then = looks[-1]
        yield Rates(before, status, now - then, looks[0][0])
        looks.append((status, now))


def _show(looks: Iterator[Rates], full_screen: bool) -> None:
    from rich.live import Live

    from kvd.cli.frame import draw

    with Live(auto_refresh=False, screen=full_screen) as live:
        for rates in looks:
            live.update(draw(rates, live.console), refresh=True)
