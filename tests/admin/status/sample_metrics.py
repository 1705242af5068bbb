"""
Prints metrics of every kind: ``python -m tests.admin.status.sample_metrics``.
"""

from __future__ import annotations

import sys

from kvd.admin.status.metrics import render
from tests.admin.status.test_metrics import SECURE, USAGE, taken
from tests.admin.status.worked import scoreboard, serve

if __name__ == "__main__":
    with scoreboard(2) as board:
        for worker in range(2):
            serve(board.own_row(worker), 10)
        body, _ = render(
            taken(board, "ready", "stalled", usage=USAGE, credentials=(SECURE,)), ""
        )
    sys.stdout.buffer.write(body)
