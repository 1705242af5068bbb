"""
The alerts and the dashboard in ``etc/`` ask for metrics that there are. ``make alerts``
has promtool check and test the alerts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
DASHBOARD = ROOT / "etc" / "grafana" / "kvd.json"
ALERTS = ROOT / "etc" / "prometheus" / "kvd-alerts.yml"


def texts(tree: Any) -> Iterator[str]:
    """
    All texts of a document.
    """
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict):
        for each in tree.values():
            yield from texts(each)
    elif isinstance(tree, list):
        for each in tree:
            yield from texts(each)


@pytest.mark.parametrize("path", [DASHBOARD, ALERTS], ids=lambda path: str(path.name))
def test_only_metrics_that_there_are_are_asked_for(path: Path) -> None:
    """
    Those that are documented; another test compares them with what is sent.
    """
    text = path.read_text(encoding="utf-8")
    document = (ROOT / "docs" / "running.rst").read_text(encoding="utf-8")
    documented = set(re.findall(r"^``(kvd_\w+)`` ", document, re.M))
    asked = {name.removesuffix("_bucket") for name in re.findall(r"\bkvd_\w+", text)}

    assert len(asked) > 5
    assert set() == asked - documented


def test_the_dashboard_is_whole() -> None:
    """
    Every panel has a place, a title and a query for the chosen instances.
    """
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    places = {tuple(panel["gridPos"].values()) for panel in board["panels"]}

    assert len(places) == len(board["panels"]) > 10
    for panel in board["panels"]:
        assert panel["title"]
        for target in panel["targets"]:
            assert '{instance=~"$instance"' in target["expr"], panel["title"]


def test_the_document_for_operators_has_every_alert() -> None:
    """
    And none that there is not.
    """
    document = (ROOT / "docs" / "operating.rst").read_text(encoding="utf-8")
    alerts = re.findall(r"alert: (\w+)", ALERTS.read_text(encoding="utf-8"))

    assert sorted(alerts) == sorted(re.findall(r"^``(Kvd\w+)``", document, re.M))
