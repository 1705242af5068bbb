"""
Installed, kvd is found from any folder: as a wheel and editable.
"""

from __future__ import annotations

import signal
import subprocess
from http.client import HTTPConnection
from pathlib import Path

import pytest

from kvd import __version__
from tests.integration.http import ask
from tests.integration.installing import (
    Installed,
    bring_bytecode,
    copied_sources,
    install,
    once,
    only_required,
    the_wheel,
)
from tests.integration.twistd import RUN_TWISTD, Twistd
from tests.patience import PATIENCE_SECONDS

pytestmark = pytest.mark.integration

IMPORT_ALL = """
import importlib, pkgutil, kvd
for module in pkgutil.walk_packages(kvd.__path__, "kvd."):
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        print(error.name.partition(".")[0])
"""

LIST_PLUGINS = """
from kvd.plugins import IDialectDeclaration, IPolicyDeclaration, IStoreDeclaration
from kvd.plugins import declared, load
for kind in IPolicyDeclaration, IStoreDeclaration, IDialectDeclaration:
    for name in declared(kind):
        load(kind, name)
        print(name)
"""


@pytest.fixture(scope="module", params=["wheel", "editable"])
def installed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Installed:
    """
    Both ways of installing.
    """

    def make(folder: Path) -> None:
        if request.param == "wheel":
            options = [str(the_wheel(tmp_path_factory))]
        else:
            sources = copied_sources(folder)
            bring_bytecode(sources / "kvd")
            options = ["--editable", str(sources)]
        # What is compiled is asked only whether it is there, so it need not be fast.
        install(folder / "python", *options, environment={"CFLAGS": "-O0"})

    folder = once(tmp_path_factory, f"installed-{request.param}", make)
    made = Installed(folder / "python")
    where = made.run(folder, "-c", "import kvd; print(kvd.__file__)").strip()
    assert Path(where).is_relative_to(folder)
    return made


@pytest.fixture(scope="module")
def uncompiled(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """
    Where no compiler works.
    """
    folder = tmp_path_factory.mktemp("uncompiled")
    sources = str(copied_sources(folder))
    return install(folder / "python", sources, environment={"CC": "false"})


def test_what_is_compiled_is_there(installed: Installed, tmp_path: Path) -> None:
    """
    Beside the modules, and can be loaded.
    """
    program = "from kvd.http import fast_path; print(fast_path.is_compiled())"

    assert "True\n" == installed.run(tmp_path, "-c", program)


def test_kvd_needs_no_compiler(uncompiled: Installed, tmp_path: Path) -> None:
    """
    It serves without what one would have made, and says so.
    """
    options = ["--procs=1", "--durability=process"]
    daemon = Twistd(options, tmp_path, uncompiled.python, uncompiled.environment)
    with daemon:
        for status in (201, 204):
            assert status == ask(daemon.port, "PUT", "/a/key", b"value").status
            for _ in range(2):
                assert b"value" == ask(daemon.port, "GET", "/a/key").body
        daemon.stop()

    assert 1 == "".join(daemon.lines).count("there is no fast path")


@pytest.fixture(scope="module")
def required(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """
    Where nothing is installed but kvd and what it requires: no extras.
    """

    def make(folder: Path) -> None:
        wheel = str(the_wheel(tmp_path_factory))
        install(folder, wheel, beside=only_required)

    return Installed(once(tmp_path_factory, "installed-required", make))


def test_what_it_requires_is_enough(required: Installed, tmp_path: Path) -> None:
    """
    For all modules but those of the extras. The first that is missing hides others.
    """
    printed = required.run(tmp_path, "-c", IMPORT_ALL)

    extras = {"botocore", "defusedxml", "jinja2", "matplotlib", "prometheus_client"}
    assert extras | {"tenacity"} >= set(printed.split())
    assert "" != printed


def test_the_daily_program_needs_no_extra(required: Installed, tmp_path: Path) -> None:
    """
    The daemon, and the command that talks to it.
    """
    (tmp_path / "one").write_text("value")
    with Twistd(["--procs=2"], tmp_path, required.python, required.environment) as at:
        url = f"--url=http://127.0.0.1:{at.port}"
        kvd = [str(Path(required.python).with_name("kvd")), url]
        required.run(tmp_path, *kvd, "put", "a/key", "one")
        assert "a/key\n" == required.run(tmp_path, *kvd, "ls")
        assert "value" == required.run(tmp_path, *kvd, "get", "a/key", "-")


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (["-c", RUN_TWISTD, "-n", "kvd", "--status=unix:./site"], "status"),
        (["-c", RUN_TWISTD, "-n", "kvd", "--store=s3://bucket"], "s3"),
        (["-m", "kvd.cli.main", "bench", "article", "--plot=plot.svg"], "plot"),
        (["-m", "kvd.cli.main", "bench", "small", "--report=report.html"], "plot"),
    ],
)
def test_what_needs_an_extra_names_it(
    required: Installed, tmp_path: Path, words: list[str], extra: str
) -> None:
    """
    In a sentence, before anything is done.
    """
    ended = subprocess.run(
        [required.python, *words],
        cwd=tmp_path,
        env=required.environment,
        capture_output=True,
        text=True,
    )

    assert 0 != ended.returncode
    assert f"pip install '.[{extra}]'" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert [] == list(tmp_path.iterdir())


def test_it_is_installed_under_its_own_name(
    installed: Installed, tmp_path: Path
) -> None:
    """
    pip knows it as txkvd, and the commands are named kvd.
    """
    program = (
        "from importlib.metadata import distribution;"
        " txkvd = distribution('txkvd');"
        " print(txkvd.version, *(script.name for script in txkvd.entry_points))"
    )

    assert f"{__version__} kvd\n" == installed.run(tmp_path, "-c", program)
    command = Path(installed.python).with_name("kvd")
    assert f"kvd {__version__}\n" == installed.run(tmp_path, str(command), "--version")


def test_twistd_lists_kvd(installed: Installed, tmp_path: Path) -> None:
    """
    ``twistd --help`` shows the command from a folder that has nothing of kvd.
    """
    printed = installed.run(tmp_path, "-c", RUN_TWISTD, "--help")

    assert "An HTTP daemon that keeps values under keys" in " ".join(printed.split())


def test_kvd_says_how_to_run_it(installed: Installed, tmp_path: Path) -> None:
    """
    ``twistd kvd --help`` and ``--version`` come from the installed package.
    """
    text = installed.run(tmp_path, "-c", RUN_TWISTD, "kvd", "--help")
    version = installed.run(tmp_path, "-c", RUN_TWISTD, "kvd", "--version")

    assert "twistd -n kvd --config" in text
    assert f"kvd {__version__}\n" == version


def test_all_plugins_are_there(installed: Installed, tmp_path: Path) -> None:
    """
    Policies, stores and dialects are listed from another folder, and load.
    """
    names = installed.run(tmp_path, "-c", LIST_PLUGINS).split()

    assert {"reuseport", "shared", "file", "null", "classic", "plain"} <= set(names)


def test_the_status_page_is_there(installed: Installed, tmp_path: Path) -> None:
    """
    With its style and its script, which are files beside the modules.
    """
    program = "from kvd.admin.status.page import PAGE; print(PAGE.decode())"
    printed = installed.run(tmp_path, "-X", "utf8", "-c", program)

    assert "<style>\n:root" in printed
    assert '<script>\n"use strict";' in printed


@pytest.mark.parametrize("procs", ["0", "2"])
def test_a_value_is_kept(installed: Installed, tmp_path: Path, procs: str) -> None:
    """
    The daemon serves from another folder, keeps its values there, and ends on
    SIGTERM.
    """
    options = ["--procs", procs]
    daemon = Twistd(options, tmp_path, installed.python, installed.environment)
    with daemon:
        client = HTTPConnection("127.0.0.1", daemon.port, timeout=PATIENCE_SECONDS)
        client.request("PUT", "/a/key", body=b"value")
        put = client.getresponse()
        put.read()
        client.request("GET", "/a/key")
        got = client.getresponse()
        assert (201, 200, b"value") == (put.status, got.status, got.read())
        client.close()
        status = daemon.stop()

    assert status in {0, -signal.SIGTERM}
    assert b"value" == (tmp_path / "values" / "a" / "key").read_bytes()


def test_nothing_is_reported_of_a_cache_that_cannot_be_written(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """
    Which is so wherever one user installs kvd and another runs it. What does not work
    is still said.
    """
    folder = tmp_path_factory.mktemp("unwritable")
    installed = install(folder, str(the_wheel(tmp_path_factory)))
    [plugins] = folder.glob("lib/python*/site-packages/twisted/plugins")
    # Nobody can write it, not even root.
    (plugins / "dropin.cache").mkdir()
    (plugins / "broken_dropin.py").write_text("raise ZeroDivisionError")
    options = ["--procs=2", "--control=off"]
    daemon = Twistd(options, tmp_path, installed.python, installed.environment)
    with daemon:
        assert 201 == ask(daemon.port, "PUT", "/a/key", b"value").status
        daemon.stop()

    said = "".join(daemon.lines)
    assert "plugin cache" not in said
    assert "ZeroDivisionError" in said


def test_a_wrong_option_ends_the_start_with_a_sentence(
    installed: Installed, tmp_path: Path
) -> None:
    """
    On standard error, and without all that --help says; the status says that nothing
    runs.
    """
    ended = subprocess.run(
        [installed.python, "-c", RUN_TWISTD, "-n", "kvd", "--policy", "rounrobin"],
        cwd=tmp_path,
        env=installed.environment,
        capture_output=True,
        text=True,
    )

    assert (1, "") == (ended.returncode, ended.stdout)
    [line] = ended.stderr.splitlines()
    assert line.startswith(
        "kvd: --policy: there is no policy named 'rounrobin'; known: gated, "
    )
    assert [] == list(tmp_path.iterdir())
