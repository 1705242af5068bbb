"""
Which groups the key exchange of TLS may use: curves that Mozilla recommends, and none
with finite fields (RFC 7919), which OpenSSL 3.0 to 3.4 knows up to 8,192 bits.

With such a group, one message of a client that nobody knows yet costs this end 5 to 130
milliseconds of processor time, in one call: eight clients a second would take a
processor. With the most expensive curve it is one millisecond. Every client that knows
TLS 1.3 knows P-256 (RFC 8446 section 9.1).

Python's module sets one group or all of them. So this does what the file
``openssl.cnf`` of the system does: it sets what OpenSSL gives each new context. What
that file says stays, except for such groups.
"""

from __future__ import annotations

import ctypes
import re
import ssl
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final

from twisted.logger import Logger

CURVES: Final = "X25519:P-256:P-384"
"""
Those of Mozilla's "intermediate" recommendation.
"""

HYBRID: Final = "?X25519MLKEM768"
"""
What OpenSSL 3.5 and later prefer, against quantum computers.
"""

_FIRST_WITH_FIELDS: Final = 3, 0
_FIRST_WITH_HYBRID: Final = 3, 5

_CONTEXTS: Final = """
openssl_conf = kvd
[kvd]
ssl_conf = kvd_contexts
[kvd_contexts]
system_default = kvd_context
[kvd_context]
"""

_POINTER: Final = ctypes.c_void_p
_TEXT: Final = ctypes.c_char_p
_NUMBER: Final = ctypes.c_int

_log: Final = Logger()


@cache
def leave_out_fields() -> None:
    """
    Leave them out in all contexts that this process makes from now on, and those that
    are forked from it. Where that cannot be done, the log says so.
    """
    if ssl.OPENSSL_VERSION_INFO < _FIRST_WITH_FIELDS:
        return
    try:
        done = OpenSSL().leave_out_fields()
    except (AttributeError, OSError):
        # It is not in a library of its own, or has other names.
        done = False
    if not done:
        _log.warn(
            "TLS: clients may choose groups for the key exchange that take up to a"
            " tenth of a second of processor time (ffdhe8192), since they cannot be"
            " left out of this {version}",
            version=ssl.OPENSSL_VERSION,
        )


class _Value(ctypes.Structure):
    """
    ``CONF_VALUE``: a line of a configuration.
    """

    _fields_ = (
        ("section", ctypes.c_char_p),
        ("name", ctypes.c_char_p),
        ("value", ctypes.c_char_p),
    )


class OpenSSL:
    """
    The functions for configurations, of the library that Python's module uses (CONF(3),
    CONF_modules_load_file(3)).
    """

    def __init__(self) -> None:
        import _ssl

        # By the name of the module, whose own libraries are searched too.
        self._library = ctypes.CDLL(getattr(_ssl, "__file__", None))

    def _function(self, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
        function = getattr(self._library, name)
        function.restype, function.argtypes = result, arguments
        return function  # type: ignore[no-any-return]

    def leave_out_fields(self) -> bool:
        """
        Returns:
            Whether that worked.
        """
        lines = dict(self.of_system())
        # The one is an older name of the other.
        groups = lines.pop("Curves", None)
        lines["Groups"] = without_fields(lines.pop("Groups", groups))
        text = _CONTEXTS + "".join(
            f"{name} = {_escaped(value)}\n" for name, value in lines.items()
        )
        return self._apply(text.encode())

    def of_system(self) -> Iterator[tuple[str, str]]:
        """
        What the system's configuration gives each context.
        """
        path = self._function("CONF_get1_default_config_file", _TEXT)
        load = self._function("NCONF_load", _NUMBER, _POINTER, _TEXT, _POINTER)
        string = self._function("NCONF_get_string", _TEXT, _POINTER, _TEXT, _TEXT)
        configuration = self._new()
        try:
            section: Any = None
            if load(configuration, path(), None) <= 0:
                return
            for name in (b"openssl_conf", b"ssl_conf", b"system_default"):
                section = string(configuration, section, name)
                if section is None:
                    return
            yield from self._lines(configuration, section)
        finally:
            self._free(configuration)
            self._forget_errors()

    def _lines(self, configuration: Any, section: bytes) -> Iterator[tuple[str, str]]:
        all_of = self._function("NCONF_get_section", _POINTER, _POINTER, _TEXT)
        count = self._function("OPENSSL_sk_num", _NUMBER, _POINTER)
        at = self._function(
            "OPENSSL_sk_value", ctypes.POINTER(_Value), _POINTER, _NUMBER
        )
        lines = all_of(configuration, section)
        for index in range(count(lines)):
            line = at(lines, index).contents
            yield line.name.decode(), line.value.decode()

    def _apply(self, text: bytes) -> bool:
        memory = self._function("BIO_new_mem_buf", _POINTER, _TEXT, _NUMBER)
        free = self._function("BIO_free", _NUMBER, _POINTER)
        read = self._function("NCONF_load_bio", _NUMBER, _POINTER, _POINTER, _POINTER)
        apply = self._function(
            "CONF_modules_load", _NUMBER, _POINTER, _TEXT, ctypes.c_ulong
        )
        configuration, source = self._new(), memory(text, len(text))
        try:
            is_read = read(configuration, source, None) > 0
            return bool(is_read and apply(configuration, None, 0) > 0)
        finally:
            free(source)
            self._free(configuration)
            self._forget_errors()

    def _new(self) -> Any:
        return self._function("NCONF_new", _POINTER, _POINTER)(None)

    def _free(self, configuration: Any) -> None:
        self._function("NCONF_free", None, _POINTER)(configuration)

    def _forget_errors(self) -> None:
        # Python's module would report them with the next failure.
        self._function("ERR_clear_error", None)()


def without_fields(groups: str | None) -> str:
    """
    Leave out the groups with finite fields.

    Args:
        groups: As OpenSSL writes them; None: the system says nothing of them.
    """
    kept = [
        group
        for group in re.split("[:/]", groups or "")
        if not group.strip().lstrip("?*").lower().startswith("ffdhe")
    ]
    if any(kept):
        return ":".join(kept)
    is_hybrid = ssl.OPENSSL_VERSION_INFO >= _FIRST_WITH_HYBRID
    return f"{HYBRID}:{CURVES}" if is_hybrid else CURVES


def _escaped(value: str) -> str:
    return "".join(
        f"\\{letter}" if letter in "\\$#\"'`" else letter for letter in value
    )
