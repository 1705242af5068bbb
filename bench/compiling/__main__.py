"""
``python -m bench.compiling``: what a GET costs as Python, compiled by mypyc and by
Cython, and on the fast path in C.

The packages of the compilers are not among kvd's: ``pip install cython setuptools``
into its environment first (mypyc comes with mypy). Compiling takes minutes, and what
was compiled is kept in ``build/bench/compiled`` until a source changes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

from rich.console import Console

from bench.building import Programs, build
from bench.figures.daemon import workers
from bench.loads import Load, Running, Turn
from bench.medium import TMPFS
from kvd.lab.measuring.daemon import daemon
from kvd.lab.measuring.errors import BenchFailed
from kvd.lab.measuring.processes import cpu_seconds
from kvd.lab.measuring.table import WIDTH, show_table

_TREE: Final = Path(__file__).parents[2]

MODULES: Final = (
    "http/admission", "http/connection", "http/context", "http/dialects/choice",
    "http/dialects/plain", "http/host_guard", "http/lifecycle", "http/memo",
    "http/methods/get", "http/methods/same_value", "http/reply_fields", "http/request",
    "http/run_queue", "http/states", "http/timeouts", "http/wire/events",
    "http/wire/fields", "http/wire/head", "http/wire/heads", "http/wire/hosts",
    "http/wire/reader", "http/wire/replies", "http/wire/targets", "model/conditions",
    "model/keys", "model/operations", "model/requests", "model/values", "net/factory",
    "net/readahead", "net/sockets", "net/transport", "store/attribute", "store/faults",
    "store/file", "store/folders", "store/looking", "store/reading", "store/tree",
    "store/value", "store/waiting",
)  # fmt: skip
"""
What a GET executes on the ordinary way.
"""

REFUSED_BY_MYPYC: Final = frozenset(
    # A class of Twisted's joins one that would be compiled; an attribute whose type a
    # subclass narrows; classes that are not compiled inherit; workers do not start; an
    # assertion of mypyc's own.
    ("http/lifecycle", "http/methods/get", "http/request", "net/factory", "store/file")
)

_COMPILERS: Final[Mapping[str, str]] = {
    "mypyc": """
from mypyc.build import mypycify
extensions = mypycify(files, opt_level="2", debug_level="0")
""",
    "Cython": """
from Cython.Build import cythonize
extensions = cythonize(
    files, language_level=3, compiler_directives={"annotation_typing": False}
)
""",
}
_SETUP: Final = """
import sys
from setuptools import setup
files = sys.argv[1:]
{extensions}
setup(name="compiled", ext_modules=extensions, script_args=["build_ext", "--inplace"])
"""

ROUNDS: Final = 7
_GET: Final = Load("GET", 4096, connections=16, keys=256)
_WARM_UP: Final = Turn("warm-up", 0.3)
_TIME: Final = Turn("time", 1)


def main() -> None:
    """
    Compile, measure all in turn, and print the least of each: whatever else the machine
    does only adds to it.
    """
    trees = {"Python": _TREE}
    for name in _COMPILERS:
        trees[name] = _compiled(name)
    programs = build(Path("build", "bench", "programs").absolute())
    requests: dict[str, list[float]] = {name: [] for name in (*trees, "C")}
    for _ in range(ROUNDS):
        for name, took in requests.items():
            took.append(_request(programs, trees.get(name, _TREE), name == "C"))
    functions = {name: _functions(trees.get(name, _TREE), name) for name in requests}
    rows = [("GET of 4 KiB", *(f"{min(took):.1f}" for took in requests.values()))]
    rows += [
        (each, *(_shown(took.get(each)) for took in functions.values()))
        for each in functions["Python"]
    ]
    show_table(
        "Microseconds of processor time",
        ("", *requests),
        rows,
        Console(highlight=False, width=WIDTH),
    )


def _shown(took: float | None) -> str:
    return "" if took is None else f"{took:.2f}"


def _compiled(name: str) -> Path:
    """
    A copy of kvd in which the modules are compiled.

    Raises:
        BenchFailed: They could not be.
    """
    modules = [
        module
        for module in MODULES
        if name != "mypyc" or module not in REFUSED_BY_MYPYC
    ]
    files = [f"kvd/{module}.py" for module in modules]
    setup = _SETUP.format(extensions=_COMPILERS[name])
    known = sha256(setup.encode())
    for source in sorted((_TREE / "kvd").rglob("*.py")):
        known.update(source.read_bytes())
    tree = Path("build", "bench", "compiled", name).absolute()
    mark = tree / "of"
    if mark.exists() and mark.read_text() == known.hexdigest():
        return tree
    shutil.rmtree(tree, ignore_errors=True)
    shutil.copytree(
        _TREE / "kvd", tree / "kvd", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(_TREE / "pyproject.toml", tree)
    done = _run([sys.executable, "-c", setup, *files], tree)
    if done.returncode:
        raise BenchFailed(f"{name} does not compile these modules", done.stderr)
    mark.write_text(known.hexdigest())
    return tree


def _run(command: Sequence[str], tree: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603
        command, cwd=tree, env=_environment(tree), capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def _environment(tree: Path) -> Mapping[str, str]:
    path = [str(tree), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "CFLAGS": "-O2 -g0",
    }


def _request(programs: Programs, tree: Path, by_hand: bool) -> float:
    """
    Microseconds of a worker for a GET.
    """
    with tempfile.TemporaryDirectory(prefix="kvd-compiled-", dir=TMPFS) as folder:
        options = (
            "--procs=1",
            "--policy=reuseport",
            "--durability=process",
            f"--store=file:{folder}/values",
            f"--fast-path={'on' if by_hand else 'off'}",
        )
        with daemon(*options, cwd=folder, env=_environment(tree)) as served:
            server = Running(served.port, workers(served.pid), Path(folder))
            _GET.store(programs, server, [_WARM_UP, _TIME])
            _GET.run(programs, server, _WARM_UP)
            before = cpu_seconds(server.pids)
            report = _GET.run(programs, server, _TIME)
            assert not report.errors, report.first_error
            spent = cpu_seconds(server.pids) - before
            return spent / report.requests * 1e6


def _functions(tree: Path, name: str) -> Mapping[str, float]:
    program = str(Path(__file__).with_name("primitives.py"))
    done = _run([sys.executable, program, name], tree)
    if done.returncode:
        raise BenchFailed("the functions could not be measured", done.stderr)
    took: Mapping[str, float] = json.loads(done.stdout)
    return took


if __name__ == "__main__":
    main()
