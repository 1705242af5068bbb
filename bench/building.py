"""
The programs in C, compiled when they are needed.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from kvd.lab.measuring.errors import BenchFailed

SOURCES: Final = Path(__file__).parent / "baselines"
_FLAGS: Final = ("-O2", "-Wall", "-Wextra", "-Werror")


@dataclass(frozen=True)
class Programs:
    """
    Where the programs are.
    """

    server: Path
    load: Path
    slow_sync: Path
    """A library for LD_PRELOAD."""
    remove: Path
    nginx: Path

    @cached_property
    def load_over_tls(self) -> Path:
        """
        ``load`` with TLS, compiled when it is needed: few machines have what it takes.

        Raises:
            BenchFailed: It does not compile; libssl-dev may be missing.
        """
        target = self.load.with_name("load_over_tls")
        compiler = find("gcc", "gcc and libc6-dev")
        libraries = "-pthread", "-lm", "-lssl", "-lcrypto"
        _compile(compiler, "load.c", target, "-DTLS", *libraries)
        return target

    @cached_property
    def certificate(self) -> tuple[Path, Path]:
        """
        One for all servers, and its private key.

        Raises:
            BenchFailed: openssl is not installed.
        """
        cert, key = (self.load.with_name(name) for name in ("cert.pem", "cert.key"))
        command = [
            str(find("openssl", "openssl")), "req", "-x509", "-noenc", "-newkey", "ec",
            "-pkeyopt", "ec_paramgen_curve:P-256", "-subj", "/CN=localhost", "-days",
            "30", "-keyout", str(key), "-out", str(cert),
        ]  # fmt: skip
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)  # noqa: S603
        return cert, key


def build(folder: Path) -> Programs:
    """
    Compile what is in ``baselines/`` into a folder, and find nginx.

    Raises:
        BenchFailed: Something is not installed, or does not compile.
    """
    compiler = find("gcc", "gcc and libc6-dev")
    folder.mkdir(parents=True, exist_ok=True)
    programs = Programs(
        server=folder / "server",
        load=folder / "load",
        slow_sync=folder / "slow_sync.so",
        remove=folder / "remove",
        nginx=find("nginx", "nginx"),
    )
    _compile(compiler, "server.c", programs.server, "-pthread")
    _compile(compiler, "load.c", programs.load, "-pthread", "-lm")
    _compile(compiler, "slow_sync.c", programs.slow_sync, "-shared", "-fPIC")
    _compile(compiler, "remove.c", programs.remove)
    return programs


def build_relay(folder: Path) -> Path:
    """
    Compile the relay into a folder.

    Raises:
        BenchFailed: The compiler is not installed, or it does not compile.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _compile(find("gcc", "gcc and libc6-dev"), "relay.c", folder / "relay")
    return folder / "relay"


def find(program: str, package: str) -> Path:
    """
    Find a program that is installed.

    Raises:
        BenchFailed: It is not; the message names Debian's package.
    """
    # nginx is in a folder that only root's PATH has.
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if found is None:
        raise BenchFailed(
            f"{program} is not installed; on Debian: apt-get install {package}"
        )
    return Path(found)


def _compile(compiler: Path, source: str, target: Path, *options: str) -> None:
    path = SOURCES / source
    if target.exists() and target.stat().st_mtime > path.stat().st_mtime:
        return
    # Renamed at the end, so that an interrupted compiler leaves no program.
    half = target.with_suffix(".half")
    command = [str(compiler), *_FLAGS, "-o", str(half), str(path), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise BenchFailed(f"{source} does not compile:\n{done.stderr}")
    half.rename(target)
