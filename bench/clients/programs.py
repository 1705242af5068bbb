"""
Client programs, as builds start them: one for each request, or one for all.

Most of the time is theirs: they show how much of a server's cost its users notice.
"""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

from bench.building import Programs, find
from bench.loads import Load, Report, Running, Turn
from kvd.lab.measuring.errors import BenchFailed
from kvd.lab.measuring.figures import percentile

_SOURCE: Final = """
int number_{n}(int count)
{{
    int sum = {n};
    for (int i = 0; i < count; i++)
        sum += i * sum;
    return sum;
}}
"""

_TRANSFER: Final = (
    "%{http_code} %{size_download} %{size_upload} %{time_total} %{num_connects}"
    " %{errormsg}\\n"
)
"""
What ``curl`` writes after each transfer.
"""

CCACHE_WAITS: Final = "connect-timeout=60000|operation-timeout=60000"
"""
What is added to the address of ccache's remote storage, in milliseconds: by itself,
ccache goes on without a server after 100 to connect, or 10,000 for an operation, which
a machine under load can take.
"""


@dataclass(frozen=True)
class Transfer:
    """
    What ``curl`` says of a transfer.
    """

    status: int
    received_bytes: int
    sent_bytes: int
    seconds: float
    connects: int
    """How many connections were opened for it."""
    error: str
    """Empty, if there was none."""

    @classmethod
    def read(cls, line: str) -> Transfer:
        """
        Read a line as `_TRANSFER` describes it.
        """
        status, received, sent, seconds, connects, error = line.split(" ", 5)
        return cls(
            int(status), int(received), int(sent), float(seconds), int(connects), error
        )

    def is_whole(self, method: str, body_bytes: int) -> bool:
        """
        Whether a body of so many bytes was moved, and the server agrees.
        """
        moved = self.sent_bytes if method == "PUT" else self.received_bytes
        return 200 <= self.status < 300 and moved == body_bytes


@dataclass(frozen=True)
class Curl:
    """
    ``curl``, started for each GET, one after the other.
    """

    load: Load
    """What it asks for: each key once."""

    @property
    def cold(self) -> bool:
        """
        As of the load.
        """
        return self.load.cold

    def store(self, programs: Programs, server: Running, turns: Sequence[Turn]) -> None:
        """
        What the load needs.
        """
        self.load.store(programs, server, turns)

    def run(self, programs: Programs, server: Running, turn: Turn) -> Report:
        """
        Ask for each key of the turn.
        """
        curl = find("curl", "curl")
        load = self.load.of(turn)
        origin = f"http://127.0.0.1:{server.port}"

        def get(key: int) -> str | None:
            command = [str(curl), "--silent", "--fail", "--show-error"]
            done = subprocess.run(  # noqa: S603
                [*command, f"{origin}{load.path(key)}"],
                capture_output=True,
                check=False,
                env={},
            )
            if done.returncode:
                return done.stderr.decode(errors="replace").strip()
            if len(done.stdout) != load.body_bytes:
                return "the body has another size"
            return None

        return _timed(get, load.keys, 1, load.body_bytes)


@dataclass(frozen=True)
class ParallelCurl(Curl):
    """
    One ``curl`` that downloads or uploads all files of a turn, many at the same time.
    """

    at_once: int = 50

    def run(self, programs: Programs, server: Running, turn: Turn) -> Report:
        """
        Transfer the file of each key of the turn.
        """
        load = self.load.of(turn)
        files, body = server.folder / "files", server.folder / "body"
        body.write_bytes(bytes(load.body_bytes))
        local = f'output = "{os.devnull}"'
        if load.method == "PUT":
            local = f'upload-file = "{body}"'
        files.write_text(
            "".join(
                f'url = "http://127.0.0.1:{server.port}{load.path(key)}"\n{local}\n'
                for key in range(load.keys)
            )
        )
        command = [
            str(find("curl", "curl")), "--silent", "--fail", "--parallel",
            "--parallel-max", str(self.at_once), "--config", str(files),
            "--write-out", _TRANSFER,
        ]  # fmt: skip
        cpu_before = _children_cpu_seconds()
        began = time.monotonic()
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, check=False, env={}
        )
        seconds = time.monotonic() - began
        transfers = [Transfer.read(line) for line in done.stdout.splitlines()]
        whole = [one for one in transfers if one.is_whole(load.method, load.body_bytes)]
        times = [one.seconds for one in whole]
        errors = load.keys - len(times)
        said = [one.error for one in transfers if one.error]
        return Report(
            requests=len(times),
            seconds=seconds,
            bytes=len(times) * load.body_bytes,
            errors=errors,
            first_error=(said or ["a body is not whole"])[0] if errors else None,
            connects=sum(one.connects for one in transfers),
            p50_seconds=percentile(times, 0.5),
            p99_seconds=percentile(times, 0.99),
            max_seconds=percentile(times, 1),
            cpu_seconds=_children_cpu_seconds() - cpu_before,
        )


@dataclass(frozen=True)
class Ccache:
    """
    A build with ``ccache`` in an empty container: everything was compiled before, and
    all of it comes from the server.
    """

    files_per_second: int
    """A turn compiles so many files for each second that it should take."""
    jobs: int = 2
    cold: bool = True

    def store(self, programs: Programs, server: Running, turns: Sequence[Turn]) -> None:
        """
        Compile everything once.
        """
        files = max(map(self._files, turns))
        (server.folder / "sources").mkdir()
        for number in range(files):
            path = server.folder / "sources" / f"{number}.c"
            path.write_text(_SOURCE.format(n=number))
        stored = _timed(self._compiler(server), files, self.jobs, 0)
        if stored.errors:
            raise BenchFailed(f"ccache failed: {stored.first_error}")

    def run(self, programs: Programs, server: Running, turn: Turn) -> Report:
        """
        Compile the same again. What was not in the cache counts as failed.
        """
        files = self._files(turn)
        before = self._hits(server)
        report = _timed(self._compiler(server), files, self.jobs, 0)
        missed = files - (self._hits(server) - before)
        if missed and not report.errors:
            return replace(report, errors=missed, first_error="not in the cache")
        return report

    def _files(self, turn: Turn) -> int:
        return max(1, round(self.files_per_second * turn.seconds))

    def _compiler(self, server: Running) -> Callable[[int], str | None]:
        ccache, gcc = find("ccache", "ccache"), find("gcc", "gcc")
        environment = self._environment(server)

        def compile_file(number: int) -> str | None:
            done = subprocess.run(  # noqa: S603
                [str(ccache), str(gcc), "-O2", "-c", f"{number}.c"],
                cwd=server.folder / "sources",
                capture_output=True,
                check=False,
                env=environment,
            )
            return done.stderr.decode(errors="replace") if done.returncode else None

        return compile_file

    def _hits(self, server: Running) -> int:
        command = [str(find("ccache", "ccache")), "--print-stats"]
        said = subprocess.run(  # noqa: S603
            command,
            capture_output=True,
            text=True,
            check=True,
            env=self._environment(server),
        ).stdout
        counts = dict(line.split("\t") for line in said.splitlines())
        return int(counts["direct_cache_hit"])

    def _environment(self, server: Running) -> Mapping[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "CCACHE_CONFIGPATH": os.devnull,
            # Only for its statistics and temporary files.
            "CCACHE_DIR": str(server.folder / "ccache"),
            "CCACHE_REMOTE_ONLY": "1",
            "CCACHE_REMOTE_STORAGE": f"http://127.0.0.1:{server.port}/ccache|{CCACHE_WAITS}",
        }


def _timed(
    program: Callable[[int], str | None], count: int, jobs: int, body_bytes: int
) -> Report:
    """
    Run a program for each number, so many at the same time; it gives what went wrong.
    """
    times: list[float] = []
    errors: list[str] = []

    def one(number: int) -> None:
        began = time.monotonic()
        error = program(number)
        if error is None:
            times.append(time.monotonic() - began)
        else:
            errors.append(error)

    before = _children_cpu_seconds()
    began = time.monotonic()
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(one, range(count)))
    seconds = time.monotonic() - began
    return Report(
        requests=len(times),
        seconds=seconds,
        bytes=len(times) * body_bytes,
        errors=len(errors),
        first_error=errors[0] if errors else None,
        connects=len(times),
        p50_seconds=percentile(times, 0.5),
        p99_seconds=percentile(times, 0.99),
        max_seconds=percentile(times, 1),
        cpu_seconds=_children_cpu_seconds() - before,
    )


def _children_cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
