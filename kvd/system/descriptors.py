"""
How many descriptors there are, and how many a daemon needs to begin.
"""

from __future__ import annotations

import os
import resource
from typing import Final

from kvd.errors import BadSetting
from kvd.settings import Settings

FOR_A_WORKER: Final = 3
"""
In the supervisor: its control socket, its process, and its counter of batches.
"""

FOR_A_SOCKET: Final = 2
"""
In the supervisor: itself, and what accepts from it.
"""

FOR_THE_REST: Final = 32
"""
The store, the logs, the scoreboard, a fork server and what it takes to start it, the
control socket and the status site with some who ask there; or, in a process that serves
by itself, some connections.
"""


def raise_descriptor_limit(most: int | None = None) -> None:
    """
    Allow as many descriptors as may be: each connection has one or two.

    Args:
        most: As many as this process can use, if there is such a number. Others that
            it starts may have more.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = hard
    if most is not None and (hard == resource.RLIM_INFINITY or hard > most):
        soft = most
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def check_descriptor_limit(settings: Settings, group_size: int) -> None:
    """
    See that there are enough to begin.

    Args:
        settings: The whole of them.
        group_size: How many sockets each address for clients gets.

    Raises:
        BadSetting: There are not.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    sockets = len(settings.listen) * group_size
    needed = (
        len(os.listdir("/proc/self/fd"))
        + FOR_A_SOCKET * sockets
        + FOR_A_WORKER * settings.procs
        + FOR_THE_REST
    )
    if limit != resource.RLIM_INFINITY and limit < needed:
        raise BadSetting(
            f"the limit of open files is {limit} (ulimit -n, or LimitNOFILE= of"
            f" systemd), and kvd with {settings.procs} workers and {sockets} listening"
            f" sockets needs {needed} to begin; each connection takes one or two more,"
            " so thousands would be right"
        )
