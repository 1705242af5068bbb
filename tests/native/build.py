"""
Compiles the extension modules of ``pyproject.toml`` into the sources in this folder.

Unlike an installation, this shows what the compiler says and fails where it fails. The
options that it is given are added to those that Python itself was built with; CFLAGS
would replace them, the optimisation too.
"""

from __future__ import annotations

import sys

from setuptools import Distribution
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError


def build(options: list[str]) -> None:
    """
    Compile all of them anew.
    """
    distribution = Distribution()
    distribution.parse_config_files()
    for extension in distribution.ext_modules or ():
        extension.optional = False
        extension.extra_compile_args += options
        extension.extra_link_args += options
    command = build_ext(distribution)
    command.inplace = True
    command.force = True
    command.build_temp = "build/objects"
    command.ensure_finalized()
    try:
        command.run()
    except (CompileError, LinkError) as error:
        # What the compiler said stands above.
        sys.exit(f"kvd cannot be compiled: {error}")


if __name__ == "__main__":
    build(sys.argv[1:])
