"""
``python tests/first_pip.py``: where the pip is that Python brings, as a PYTHONPATH to
run it from; nothing where one is installed.

To install that one, as ``python -m venv`` does, takes 4 s, and the first that it does
is to replace itself.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

try:
    import ensurepip
except ModuleNotFoundError:
    sys.exit(
        f"{sys.executable} has no ensurepip, which brings pip: install it, on Debian"
        " with: apt-get install python3-venv"
    )


def first_pip(folders: Iterable[Path]) -> str:
    """
    The archive of pip in one of these folders, or nothing. Where there is none and no
    pip is installed, `ensurepip` installs it in its own way.
    """
    if find_spec("pip"):
        return ""
    for folder in folders:
        for wheel in sorted(folder.glob("pip-*.whl")):
            return str(wheel)
    subprocess.run([sys.executable, "-m", "ensurepip"], check=True, stdout=sys.stderr)
    return ""


def folders_of_wheels() -> list[Path]:
    """
    Where `ensurepip` looks, too: a distribution may have its own folder.
    """
    own = sysconfig.get_config_var("WHEEL_PKG_DIR")
    bundled = Path(ensurepip.__file__).parent / "_bundled"
    return [*([Path(own)] if own else []), bundled]


if __name__ == "__main__":
    print(first_pip(folders_of_wheels()))
