"""
Three nodes of SeaweedFS that have their metadata in etcd, of which each has a member.
What they pass in every build is in `tests.integration.test_seaweedfs`.
"""

from __future__ import annotations

from functools import partial

from tests.s3.engines import suite
from tests.s3.seaweedfs import SeaweedFS

ENGINE = partial(SeaweedFS, nodes=3, in_common=True)


class TestKvdOverSeaweedFS(suite.WholeContract):
    """
    What a client sees of kvd over it.
    """
