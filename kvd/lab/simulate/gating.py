"""
The gates of simulated workers. As in `kvd.net.port`, no gate holds a connection back
for long.
"""

from __future__ import annotations

from collections.abc import Callable

from kvd.lab.simulate.outcome import BadChoice
from kvd.model.view import View
from kvd.net.port import GATE_LIMIT_SECONDS


class Gates:
    """
    One for each worker.
    """

    def __init__(self, accepts: Callable[[int, View], bool], view: View) -> None:
        """
        Args:
            accepts: The policy's.
            view: All workers; it always shows the present state.
        """
        self._accepts = accepts
        self._view = view
        self._held_since: dict[int, float] = {}

    def is_open(self, worker: int, now: float, waiting: int) -> bool:
        """
        Whether a worker may take one of the connections that wait.

        Raises:
            BadChoice: By the policy.
        """
        since = self._held_since.get(worker)
        if since is not None and now - since > GATE_LIMIT_SECONDS:
            del self._held_since[worker]
            return True
        # As with the turn of `kvd.lab.simulate.engine`: policies see it as frozen.
        object.__setattr__(self._view, "waiting", waiting)
        try:
            accepts = bool(self._accepts(worker, self._view))
        except Exception as error:
            raise BadChoice(f"failed with {type(error).__name__}: {error}") from error
        if accepts:
            self._held_since.pop(worker, None)
        else:
            self._held_since.setdefault(worker, now)
        return accepts

    def none_waits(self, worker: int) -> None:
        """
        A worker would ask its gate, but no connection waits.
        """
        self._held_since.pop(worker, None)
