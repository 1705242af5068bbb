"""
The fields that are stored with values: ``--keep-fields``.
"""

from __future__ import annotations

import re
from typing import Final

from kvd.errors import BadSetting
from kvd.http.wire.kept import is_kept

_NAME: Final = re.compile(r"x-[0-9a-z!#$%&'+.^_`|~-]*(?:\*|[0-9a-z!#$%&'+.^_`|~-])")


def read_keep_fields(text: str) -> tuple[str, ...]:
    """
    Read names of fields with commas between them, or ``none``. A ``*`` at the end of a
    name stands for any characters.
    """
    if text == "none":
        return ()
    return tuple(dict.fromkeys(_read_name(part.strip()) for part in text.split(",")))


def _read_name(text: str) -> str:
    name = text.lower()
    if not _NAME.fullmatch(name):
        raise BadSetting(
            f"{text!r} is not the name of a field that can be kept: give names that"
            " begin with x-, with commas between them, such as"
            " x-oc-mtime,x-amz-meta-*, or none"
        )
    if not is_kept(name.encode("ascii")):
        raise BadSetting(
            f"{text!r} cannot be kept: browsers or proxies act on this field, or it"
            " says who a client is"
        )
    return name
