"""
Reads the setting that names the rights file, and the file.
"""

from __future__ import annotations

from kvd.access.rights_file import parse_rights, read_rights_file
from kvd.errors import BadSetting
from kvd.options.paths import absolute
from kvd.settings import RightsFile


def read_users(text: str) -> RightsFile | None:
    """
    Read and check the rights file at a path, or ``off``.

    Raises:
        BadSetting: The text names no file, or the file is wrong.
    """
    if text == "off":
        return None
    if not text or "\0" in text:
        raise BadSetting(
            f"{text!r} is not a file: give the path of a rights file, or off"
        )
    path = absolute(text)
    found = RightsFile(path, read_rights_file(path))
    parse_rights(found.text, path)
    return found
