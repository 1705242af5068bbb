"""
Three nodes of SeaweedFS, each of which has a database of its own, as by default.
"""

from __future__ import annotations

from functools import partial

from tests.s3.engines import suite
from tests.s3.seaweedfs import SeaweedFS

ENGINE = partial(SeaweedFS, nodes=3)


class TestKvdOverSeaweedFS(suite.WholeContract):
    """
    What a client sees of kvd over SeaweedFS.
    """

    gateways_agree = False
    keeps_order = False
