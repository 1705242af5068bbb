"""
Three nodes of SeaweedFS. What one node passes in every build is in
`tests.integration.test_seaweedfs`.
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
