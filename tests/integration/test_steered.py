"""
Programs that choose in the kernel, in a true daemon: where they are allowed, and where
they are not.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from kvd.admin.control.asking import ControlSocket
from tests.dispatch.kernels import may_load
from tests.integration.chromium import Chromium
from tests.integration.http import ask
from tests.integration.test_daemon import eventually
from tests.integration.test_shadow import kvd
from tests.integration.test_status import null, status_of
from tests.integration.twistd import EXEC, Twistd

pytestmark = pytest.mark.integration

needs_privilege = pytest.mark.skipif(
    not may_load(), reason="programs of extended BPF take CAP_BPF"
)

# For the process that does this, some system calls fail with EPERM.
DENY = """
import ctypes, struct

LOAD, IF_EQUAL, RETURN, REFUSE, ALLOW = 0x20, 0x15, 0x06, 0x00050001, 0x7FFF0000
NUMBER, LEVEL, OPTION = 0, 24, 32
BPF, SETSOCKOPT = {"x86_64": (321, 54), "aarch64": (280, 208)}[os.uname().machine]
code = []
prctl = ctypes.CDLL(None, use_errno=True).prctl
CAPBSET_DROP, CAPABILITIES = 24, 64
for denied in DENIED:
    if denied == "capabilities":
        for capability in range(CAPABILITIES):
            # Who is unprivileged may not even do this, and need not.
            prctl(CAPBSET_DROP, capability, 0, 0, 0)
    elif denied == "bpf":
        code += [(LOAD, 0, 0, NUMBER), (IF_EQUAL, 0, 1, BPF), (RETURN, 0, 0, REFUSE)]
    else:
        code += [
            (LOAD, 0, 0, NUMBER), (IF_EQUAL, 0, 5, SETSOCKOPT),
            (LOAD, 0, 0, LEVEL), (IF_EQUAL, 0, 3, 1),
            (LOAD, 0, 0, OPTION), (IF_EQUAL, 0, 1, int(denied)), (RETURN, 0, 0, REFUSE),
        ]
code.append((RETURN, 0, 0, ALLOW))
raw = b"".join(struct.pack("=HBBI", *each) for each in code)
buffer = ctypes.create_string_buffer(raw, len(raw))
program = ctypes.create_string_buffer(
    struct.pack("@HP", len(code), ctypes.addressof(buffer))
)
NO_NEW_PRIVS, SECCOMP, FILTER = 38, 22, 2
assert 0 == prctl(NO_NEW_PRIVS, 1, 0, 0, 0)
assert 0 == prctl(SECCOMP, FILTER, program, 0, 0)
"""

CBPF, EBPF = "51", "52"
"""
The options of a socket that attach a program.
"""

WORKERS = 4


class Denied(Twistd):
    """
    A daemon that may not do everything.
    """

    def __init__(self, options: Sequence[str], folder: Path, *denied: str) -> None:
        # What is no longer in the bounding set goes when another program begins.
        end = EXEC if "capabilities" in denied else ""
        prelude = f"DENIED = {denied!r}\n{DENY}{end}"
        super().__init__(options, folder, prelude=prelude)


@pytest.fixture
def control(tmp_path: Path) -> Path:
    """
    Where the daemon is asked.
    """
    return tmp_path / "control"


def options(control: Path, policy: str) -> list[str]:
    """
    Of a daemon.
    """
    return null(f"--policy={policy}", f"--procs={WORKERS}", f"--control={control}")


def shares(daemon: Twistd, control: Path, connections: int) -> list[int]:
    """
    Connect and ask, one after the other.

    Returns:
        How many each worker got.
    """
    before = accepted(control)
    for _ in range(connections):
        assert 201 == ask(daemon.port, "PUT", "/k", b"x").status
    return [now - then for now, then in zip(accepted(control), before, strict=True)]


def accepted(control: Path) -> list[int]:
    """
    How many connections each worker has had.
    """
    return [row["accepted"] for row in status_of(control)["workers"]]


def change(control: Path, what: str, said: dict[str, Any]) -> None:
    """
    Have something changed.
    """
    with closing(ControlSocket(str(control))) as asked:
        asked.change(what, said)


def warnings(daemon: Twistd) -> list[str]:
    """
    The messages about policies that are not available.
    """
    return [
        line
        for line in "".join(daemon.lines).splitlines()
        if "is not available" in line
    ]


@needs_privilege
def test_turns_are_exact(tmp_path: Path, control: Path) -> None:
    """
    Also after a switch to them, with more workers, and when a worker was lost.
    """
    with Twistd(options(control, "steered:by=turns"), tmp_path) as daemon:
        assert [5] * WORKERS == shares(daemon, control, 5 * WORKERS)
        change(control, "policy", {"policy": "reuseport"})
        change(control, "policy", {"policy": "steered:by=turns"})
        change(control, "procs", {"procs": WORKERS + 2})
        assert [5] * (WORKERS + 2) == shares(daemon, control, 5 * (WORKERS + 2))
        change(control, "drain", {"worker": 1})
        assert [5] * (WORKERS + 2) == shares(daemon, control, 5 * (WORKERS + 2))
        assert [] == status_of(control)["fallbacks"]
        daemon.stop()
        assert [] == warnings(daemon)


@needs_privilege
def test_the_least_busy_gets_it(tmp_path: Path, control: Path) -> None:
    """
    Who has connections that stay gets nothing until the others have as many.
    """
    with (
        Twistd(options(control, "steered:by=least"), tmp_path) as daemon,
        ExitStack() as staying,
    ):

        def connect() -> socket.socket:
            address = "127.0.0.1", daemon.port
            return staying.enter_context(socket.create_connection(address))

        first = []
        for total in range(1, 3 * WORKERS + 1):
            # What is on its way counts like a request, which outweighs connections.
            first.append(connect())
            opened(control, total)
        assert [3] * WORKERS == opened(control, 3 * WORKERS)
        for connection in first[1::WORKERS]:
            connection.close()
        assert [0, 3, 3, 3] == sorted(opened(control, 3 * WORKERS - 3))
        for total in range(3 * WORKERS - 2, 3 * WORKERS + 1):
            connect()
            opened(control, total)
        found = opened(control, 3 * WORKERS)
        assert [3] * WORKERS == found or stalls(control), found
        staying.close()
        assert [0] * WORKERS == opened(control, 0)

        def is_even() -> bool:
            return [5] * WORKERS == shares(daemon, control, 5 * WORKERS)

        # What the program takes to be on its way and is not, it corrects a few times a
        # second.
        eventually(is_even, "all got as many")
        assert [] == status_of(control)["fallbacks"]


def stalls(control: Path) -> int:
    """
    How often a worker has not responded for so long that others got its connections: a
    busy machine may keep it from running.
    """
    return sum(row["stalls"] for row in status_of(control)["workers"])


def opened(control: Path, total: int) -> list[int]:
    """
    How many connections each worker has open, when so many are.
    """
    while True:
        rows: list[dict[str, Any]] = status_of(control)["workers"]
        found = [row["open"] for row in rows]
        if sum(found) == total:
            return found


@pytest.mark.parametrize(
    ("denied", "by"),
    [
        (("capabilities",), "steered:by=random"),
        (("bpf",), "steered:by=random"),
        ((EBPF,), "steered:by=random"),
        (("bpf", CBPF), "the kernel's hash"),
        ((CBPF, EBPF), "the kernel's hash"),
    ],
)
def test_what_is_denied_is_reported_and_replaced(
    tmp_path: Path, control: Path, denied: Sequence[str], by: str
) -> None:
    """
    In one sentence, at the start and at a switch, and in the status while it is so.
    """
    policies = "steered:by=turns", "steered:by=least"
    with Denied(options(control, policies[0]), tmp_path, *denied) as daemon:
        for policy in policies:
            change(control, "policy", {"policy": policy})
            assert 20 == sum(shares(daemon, control, 20))
            (fallback,) = status_of(control)["fallbacks"]
            assert by == fallback["by"]
            assert "not permitted" in fallback["reason"]
            assert (
                f": not {policy} but {by}, since the kernel"
                in kvd(control, "status").stdout
            )
        daemon.stop()
        sentences = warnings(daemon)
        assert len(policies) == len(sentences)
        for policy, sentence in zip(policies, sentences, strict=True):
            assert f"policy {policy} is not available, since the kernel" in sentence
            assert sentence.endswith(f"; {by} is used instead")


def test_the_page_says_what_chooses_instead(tmp_path: Path, control: Path) -> None:
    """
    For as long as it is so.
    """
    chosen = [*options(control, "steered:by=least"), "--status=tcp:0"]
    fact = "document.querySelector('[data-fact=policy] dd')?.textContent"
    with (
        Denied(chosen, tmp_path, "bpf") as daemon,
        Chromium(tmp_path / "profile") as browser,
    ):
        browser.open(f"http://127.0.0.1:{daemon.status_port}/")
        browser.until(f"{fact} === 'not steered:by=least but steered:by=random'")
        change(control, "policy", {"policy": "leastbusy"})
        browser.until(f"{fact} === 'leastbusy'")


def test_a_switch_to_what_is_denied_says_so(tmp_path: Path, control: Path) -> None:
    """
    To whoever asks for it, and in the log.
    """
    denied = "bpf", CBPF
    with Denied(options(control, "reuseport"), tmp_path, *denied) as daemon:
        for policy in ("steered:by=least", "steered:by=turns", "steered"):
            switched = kvd(control, "policy", policy)
            assert 0 == switched.returncode
            assert f"not {policy} but the kernel's hash, since" in switched.stderr
            assert 10 == sum(shares(daemon, control, 10))
        switched = kvd(control, "policy", "leastbusy")
        assert "" == switched.stderr
        assert [] == status_of(control)["fallbacks"]
        daemon.stop()
        assert 3 == len(warnings(daemon))


def test_no_policy_needs_a_privilege(tmp_path: Path, control: Path) -> None:
    """
    Each serves without, and is what it is said to be.
    """
    policies = "shared", "gated", "reuseport", "steered", "roundrobin", "leastbusy"
    with Denied(options(control, policies[0]), tmp_path, "capabilities") as daemon:
        for policy in policies:
            change(control, "policy", {"policy": policy})
            assert policy == status_of(control)["policy"]
            assert 20 == sum(shares(daemon, control, 20))
            assert [] == status_of(control)["fallbacks"]
        (capabilities,) = [
            line.split()[1]
            for line in Path(f"/proc/{daemon.process.pid}/status")
            .read_text()
            .splitlines()
            if line.startswith("CapEff")
        ]
        assert 0 == int(capabilities, 16)
