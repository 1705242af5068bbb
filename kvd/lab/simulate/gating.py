"""
The gates of simulated workers, as `kvd.net.port` asks them: none keeps a connection
for long.
"""

from __future__ import annotations

from collections.abc import Callable

from kvd.lab.simulate.outcome import BadChoice
from kvd.model.view import View
from kvd.net.port import KEPT_SECONDS


class Gates:
    """
    One for each worker.
    """

    def __init__(self, accepts: Callable[[int, View], bool], view: View) -> None:
        """
        Args:
            accepts: The policy's.
            view: All workers, now and whenever it is looked at.
        """
        self._accepts = accepts
        self._view = view
        self._kept_since: dict[int, float] = {}

    def is_open(self, worker: int, now: float, waiting: int) -> bool:
        """
        Whether a worker may take one of the connections that wait.

        Raises:
            BadChoice: By the policy.
        """
        since = self._kept_since.get(worker)
        if since is not None and now - since > KEPT_SECONDS:
            del self._kept_since[worker]
            return True
        # As with the turn of `kvd.lab.simulate.engine`: policies see it as frozen.
        object.__setattr__(self._view, "waiting", waiting)
        try:
            accepts = bool(self._accepts(worker, self._view))
        except Exception as error:
            raise BadChoice(f"failed with {type(error).__name__}: {error}") from error
        if accepts:
            self._kept_since.pop(worker, None)
        else:
            self._kept_since.setdefault(worker, now)
        return accepts

    def nobody_waits(self, worker: int) -> None:
        """
        A worker that would have asked has seen that no connection waits.
        """
        self._kept_since.pop(worker, None)
