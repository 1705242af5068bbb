"""
What the page of curl shows, with a smaller file than ``make test-clients`` has.
"""

from pathlib import Path

import pytest

from tests.clients.ccache import daemon
from tests.clients.curl import transferred

pytestmark = pytest.mark.integration


def test_commands_of_the_page_of_curl_do_what_it_says(tmp_path: Path) -> None:
    """
    With two workers that take connections in turn.
    """
    with daemon(tmp_path) as twistd:
        transferred(tmp_path, f"127.0.0.1:{twistd.port}", 2_000_000)
        twistd.stop()
