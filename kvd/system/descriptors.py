"""
The limit of open descriptors, and how many a daemon needs to begin.
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
In the supervisor: the socket, and the duplicate of the port that accepts from it.
"""

FOR_THE_REST: Final = 32
"""
The store, the logs, the scoreboard, the fork server and its pipes, the control socket
and the status site with a few connections; in a single process, a few clients.
"""


def raise_descriptor_limit(most: int | None = None) -> None:
    """
    Raise the soft limit to the hard limit: each connection takes one or two
    descriptors.

    Args:
        most: How many this process can use, if there is such a number: then the soft
            limit. Processes that it starts may raise theirs.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = hard
    if most is not None and (hard == resource.RLIM_INFINITY or hard > most):
        soft = most
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def check_descriptor_limit(settings: Settings, group_size: int) -> None:
    """
    Check that there are enough to begin.

    Args:
        settings: All settings.
        group_size: How many sockets each address for clients gets.

    Raises:
        BadSetting: There are too few.
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
            f" sockets needs {needed} to begin; each connection takes one or two more:"
            " set the limit to some thousands"
        )
