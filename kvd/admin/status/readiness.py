"""
Whether the daemon can serve, for load balancers, the status page and the metrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.web.http import OK, SERVICE_UNAVAILABLE

from kvd.store.space import Space
from kvd.store.usage import taken_by


def complaint_of_the_store(status: Mapping[str, Any], space: Space | None) -> str:
    """
    Why the store cannot take a value, in a sentence; empty: it can.

    Args:
        status: The status of the daemon.
        space: The disk of the store; None: unknown.
    """
    if space is not None and space.complaint:
        return space.complaint
    for whole in status["usage"][:1]:
        limit = whole["limit"]
        least = taken_by(0)
        if limit is not None and whole["taken"] + least > limit and not whole["evicts"]:
            return (
                f"The store is full: its values take {whole['taken']} of at most"
                f" {limit} bytes, and each takes {least} at least."
            )
    return ""


def readiness(status: Mapping[str, Any], space: Space | None) -> tuple[int, str]:
    """
    Whether a load balancer should send connections here, as an HTTP status and a
    sentence.

    Args:
        status: The status of the daemon.
        space: The disk of the store; None: unknown.

    One ready worker is enough: it also serves the sockets of workers that are not
    ready. If a balancer avoided a daemon while one of its workers is replaced, the
    other workers would be idle.
    """
    if status["draining"]:
        return SERVICE_UNAVAILABLE, "kvd is draining.\n"
    ready = sum(row["state"] == "ready" for row in status["workers"])
    text = f"{ready} of {len(status['workers'])} workers are ready.\n"
    if not ready:
        return SERVICE_UNAVAILABLE, text
    if complaint := complaint_of_the_store(status, space):
        return SERVICE_UNAVAILABLE, f"{complaint}\n"
    return OK, text
