"""
All tests for `kvd.dispatch.dispatcher` again, where nothing is compiled.
"""

from __future__ import annotations

from kvd.dispatch import deciding, dispatcher, handover, lone
from kvd.dispatch.deciding import TimerInPython
from kvd.dispatch.lane import LaneInPython
from kvd.dispatch.primitives import accept_in_python, make_view_in_python
from tests.dispatch import test_dispatcher as compiled


class InPython(compiled.DispatcherCase):
    """
    The supervisor has nothing that is compiled.
    """

    def setUp(self) -> None:
        self.patch(lone, "_native", None)
        self.patch(handover, "make_lane", LaneInPython)
        self.patch(dispatcher, "accept", accept_in_python)
        self.patch(dispatcher, "make_view", make_view_in_python)
        self.patch(deciding, "make_timer", TimerInPython)
        super().setUp()


class DispatcherInPythonTests(InPython, compiled.DispatcherTests):
    """
    See the class that this repeats.
    """


class MembersInPythonTests(InPython, compiled.MembersTests):
    """
    See the class that this repeats.
    """


class MistakeInPythonTests(InPython, compiled.MistakeTests):
    """
    See the class that this repeats.
    """


class ShadowInPythonTests(InPython, compiled.ShadowTests):
    """
    See the class that this repeats.
    """


class LostWorkerInPythonTests(InPython, compiled.LostWorkerTests):
    """
    See the class that this repeats.
    """


class FullWorkerInPythonTests(InPython, compiled.FullWorkerTests):
    """
    See the class that this repeats.
    """


class EndInPythonTests(InPython, compiled.EndTests):
    """
    See the class that this repeats.
    """
