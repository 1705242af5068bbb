"""
Tests for ``kvd simulate``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from twisted.plugin import getPlugins

from kvd import plugins
from kvd.cli.simulate import simulate
from kvd.http.record import read_record
from kvd.lab.simulate.presets import PRESETS
from kvd.plugins import Policy
from tests.integration.http import ask
from tests.integration.test_status import status_of
from tests.integration.twistd import Twistd

TINY = ["--requests=200", "--procs=4", "--policy=roundrobin"]


def run(*options: str) -> str:
    """
    What is printed.
    """
    result = CliRunner().invoke(simulate, options)
    assert 0 == result.exit_code, result.output
    return result.output


def simulated(*options: str) -> Sequence[dict[str, Any]]:
    """
    The policies of the only case.
    """
    (case,) = json.loads(run(*options, "--json"))["cases"]
    policies: Sequence[dict[str, Any]] = case["policies"]
    return policies


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--procs=4097", "'4097' is not a number of workers"),
        ("--requests=0", "'0' is not a number of requests"),
        ("--utilisation=nan", "'nan' is not a share"),
        ("--reuse=some", "'some' is not a number of requests"),
        ("--mean=0", "'0' is not a valid time"),
        ("--policy=fair", "there is no policy named 'fair'"),
        ("--preset=mine", "'mine' is not one of"),
        ("--replay=/etc/passwd", "/etc/passwd is not a record of connections"),
    ],
)
def test_what_cannot_be_is_refused(option: str, sentence: str) -> None:
    """
    With a sentence.
    """
    result = CliRunner().invoke(simulate, [*TINY, option])

    assert result.exit_code
    assert sentence in result.output


def test_only_one_thing_is_simulated() -> None:
    """
    Not a preset and a check.
    """
    result = CliRunner().invoke(simulate, ["--preset=article", "--check"])

    assert 2 == result.exit_code
    assert "give one of" in result.output


@pytest.mark.parametrize("arrivals", ["closed", "poisson", "uniform", "bursts"])
@pytest.mark.parametrize("reuse", ["1", "7", "all"])
def test_every_load_can_be_made(arrivals: str, reuse: str) -> None:
    """
    Of any arrivals and any use of connections.
    """
    options = [f"--arrivals={arrivals}", f"--reuse={reuse}", "--pause=5ms", "--lag=1ms"]
    (queue, turns) = simulated(*TINY, *options)

    assert "(one queue)" == queue["policy"]
    assert "roundrobin" == turns["policy"]
    assert turns["regret"] > -1e-9
    assert 0 < turns["utilisation"] <= 1 + 1e-9


def test_machines_are_simulated_behind_each_balancer() -> None:
    """
    Or behind the ones that are named; all of their workers together have the load.
    """
    options = [*TINY, "--machines=3", "--json"]
    named = [*options, "--balancer=leastconn", "--balancers=2"]
    balancers = [case["balancer"] for case in json.loads(run(*options))["cases"]]
    (case,) = json.loads(run(*named))["cases"]

    assert ["ecmp", "source", "roundrobin", "leastconn", "random2"] == balancers
    assert (12, 3, "leastconn", 2) == (
        case["workers"],
        case["machines"],
        case["balancer"],
        case["balancers"],
    )
    assert 0 < case["policies"][1]["jain_machines"] <= 1
    assert "machines behind 2 x leastconn" in run(*named[:-3], *named[-2:])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--machines=2", "--preset=article"], "give it without"),
        (["--machines=4096", "--procs=4096"], "at most 65536 can be simulated"),
        (["--balancer=ecmp"], "give --machines 2 or more"),
        (["--balancers=2"], "give --machines 2 or more"),
    ],
)
def test_machines_that_cannot_be_are_refused(
    options: Sequence[str], sentence: str
) -> None:
    """
    With what would be right.
    """
    result = CliRunner().invoke(simulate, options)

    assert 2 == result.exit_code
    assert sentence in " ".join(result.output.split())


def test_workers_of_a_preset_are_those_of_a_machine() -> None:
    """
    Also where it has several machines.
    """
    cases = PRESETS["fleet"].adjusted(2, None).cases

    assert 1024 == PRESETS["fleet"].cases[0].workers
    assert [64] * 4 == [case.workers for case in cases]
    assert 32 == cases[0].fleet.machines


def test_the_same_seed_says_the_same() -> None:
    """
    To the last digit; another does not.
    """
    options = ["--requests=500", "--policy=reuseport", "--policy=shared"]

    assert run(*options) == run(*options)
    assert run(*options, "--json") == run(*options, "--json")
    assert run(*options, "--json") != run(*options, "--json", "--seed=2")


def test_models_are_labelled() -> None:
    """
    Where the kernel chooses, and nobody can know.
    """
    printed = run("--requests=50")

    assert "reuseport (model)" in printed
    assert "shared (model)" in printed
    assert "roundrobin (model)" not in printed


def test_a_policy_of_ones_own_is_found_by_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    And waits less than turns do.
    """
    own = Policy("own", "Fewest requests.", "tests.lab.simulate.policies.policy")
    monkeypatch.setattr(plugins, "getPlugins", lambda kind: [*getPlugins(kind), own])
    monkeypatch.setattr(plugins, "_found", {})

    rows = {
        row["policy"]: row for row in simulated("--requests=2000", "--service=uneven")
    }

    assert rows["own"]["wait_mean"] < rows["roundrobin"]["wait_mean"]
    assert not rows["own"]["model"]


@pytest.mark.untraced
def test_the_article_is_explained() -> None:
    """
    In words, as far as it goes; not where other numbers are asked for.
    """
    options = ["--preset=article", "--policy=roundrobin"]

    assert "Not explained" in run(*options)
    assert "Not explained" not in run(*options, "--runs=1")


@pytest.mark.integration
def test_what_a_daemon_recorded_can_be_replayed(tmp_path: Path) -> None:
    """
    Every connection, with the worker that served it.
    """
    record, control = tmp_path / "record", tmp_path / "control"
    options = ["--procs=3", "--store=null:", "--policy=roundrobin"]
    options += [f"--control={control}", f"--record={record}"]
    with Twistd(options, tmp_path) as daemon:
        for number in range(7):
            assert 201 == ask(daemon.port, "PUT", f"/k/{number}", b"value").status
        # On a busy machine a worker may be passed over.
        served = [row["accepted"] for row in status_of(control)["workers"]]
        daemon.stop()

    recorded = Counter(one.worker for one in read_record(str(record)))
    assert served == [recorded[worker] for worker in range(3)]
    rows = {row["policy"]: row for row in simulated(f"--replay={record}")}
    index = sum(served) ** 2 / (3 * sum(count**2 for count in served))
    assert pytest.approx(index) == rows["(as recorded)"]["jain_requests"]
    assert pytest.approx(49 / 51) == rows["roundrobin"]["jain_requests"]
    assert "7 connections with 7 requests to 3 workers" in run(f"--replay={record}")
