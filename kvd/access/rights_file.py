"""
The rights file: TOML with the users, their rights, and rules of prefixes.

.. code-block:: toml

   [anonymous.rights]              # anybody, without credentials too
   "/" = ["read"]

   [everyone.rights]               # every user; {user} is the user's name
   "/home/{user}/" = ["read", "write", "delete", "list"]

   [users.ci]
   password = "$argon2id$..."
   rights = { "/cas/" = ["write"] }

   [[users.ci.tokens]]
   sha256 = "..."
   note = "the runners"
   expires = 2027-01-31

   [[users.ci.s3-keys]]
   id = "KVD..."
   secret = "..."

   [prefixes."/cas/"]
   content-addressed = true

The file has secrets: hashes of passwords, which can be guessed by trying, and the
secrets of ``s3-keys`` as they are (`kvd.access.signatures`). So kvd refuses one that
every user of the machine may read. An error names the place, and repeats no secret.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from difflib import get_close_matches
from typing import Any, Final

from kvd.access.passwords import check_hash
from kvd.access.rules import (
    NO_RIGHT,
    TOKEN_INDEX_BYTES,
    AccessKey,
    AccessRules,
    ByPrefix,
    PrefixRules,
    Principal,
    Right,
    Token,
    User,
    joined,
)
from kvd.errors import BadSetting
from kvd.model.prefixes import read_prefix

MOST_BYTES: Final = 4 * 1024 * 1024
"""
Of a rights file.
"""

USER_PLACE: Final = "{user}"
"""
In a prefix of ``[everyone]`` or of a user: the user's name.
"""

_OTHERS: Final = stat.S_IRWXO
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_KEY_ID: Final = re.compile(r"[A-Za-z0-9]{16,128}")
_SECRET: Final = re.compile(r"[\x21-\x7e]{32,128}")

_RIGHTS: Final = {right.name.lower(): right for right in Right if right.name}

_OF_USERS: Final = ("password", "rights", "tokens", "s3-keys")

_LIMITS: Final = ("requests-per-second", "requests-at-once")

_NAME_FORM: Final = (
    "a user's name has 1 to 64 of the letters a to z, digits, and . _ @ -, and begins"
    " with a letter or a digit"
)


def read_rights_file(path: str) -> str:
    """
    The text of a rights file.

    Raises:
        BadSetting: It cannot be read, or every user of this machine can read it.
    """
    try:
        # A named pipe would make it wait.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            _check_file(path, found)
            text = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise BadSetting(
            f"the rights file {path} cannot be read: {error.strerror}"
        ) from error
    if len(text) > MOST_BYTES:
        raise BadSetting(f"the rights file {path} has more than {MOST_BYTES} bytes")
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise BadSetting(
            f"the rights file {path} is not UTF-8 (at line {line})"
        ) from error


def _check_file(path: str, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise BadSetting(f"the rights file {path} is not a regular file")
    if found.st_mode & _OTHERS:
        raise BadSetting(
            f"the rights file {path} has secrets, but every user of this machine may"
            f" use it (mode {stat.S_IMODE(found.st_mode):03o}): run chmod 600 {path},"
            " or 640 if it belongs to another user than the one that kvd runs as"
        )


def parse_rights(text: str, path: str) -> AccessRules:
    """
    Read the text of a rights file.

    Args:
        text: All of it.
        path: Its name, for errors.

    Raises:
        BadSetting: It is not TOML, or says something that has no meaning.
    """
    try:
        tables = tomllib.loads(text)
    except ValueError as error:
        raise BadSetting(f"the rights file {path} is not TOML: {error}") from error
    except RecursionError as error:
        raise BadSetting(
            f"the rights file {path} is not TOML that kvd reads: arrays or tables are"
            " nested too deep"
        ) from error
    return _Reader(text, path).read(tables)


class _Reader:
    """
    Reads one file.
    """

    def __init__(self, text: str, path: str) -> None:
        self._lines = text.splitlines()
        self._path = path

    def read(self, tables: Mapping[str, Any]) -> AccessRules:
        """
        Everything.
        """
        self._check_keys(tables, (), "anonymous", "everyone", "users", "prefixes")
        anybody = self._rights_of_all(tables, "anonymous", None)
        self._rights_of_all(tables, "everyone", "name")
        users: dict[str, User] = {}
        tokens: dict[bytes, Token] = {}
        keys: dict[str, AccessKey] = {}
        for name, table in self._table(tables, (), "users").items():
            place = ("users", name)
            if not _NAME.fullmatch(name):
                raise self._error(place, f"cannot be a user: {_NAME_FORM}")
            own = self._a_table(place, table)
            self._check_keys(own, place, *_OF_USERS, *_LIMITS)
            everyone = self._rights_of_all(tables, "everyone", name)
            rights = self._rights(own, place, name)
            users[name] = User(
                Principal(
                    name,
                    joined([anybody, everyone, rights]),
                    *(self._limit(own, place, limit) for limit in _LIMITS),
                ),
                self._password_hash(own, place),
            )
            self._read_tokens(own, place, name, tokens)
            self._read_keys(own, place, name, keys)
        nobody = Principal(None, joined([anybody]))
        return AccessRules(nobody, users, tokens, self._prefixes(tables), keys)

    # -- rights ---------------------------------------------------------------

    def _rights_of_all(
        self, tables: Mapping[str, Any], which: str, user: str | None
    ) -> dict[bytes, Right]:
        table = self._table(tables, (), which)
        self._check_keys(table, (which,), "rights")
        return self._rights(table, (which,), user)

    def _rights(
        self, table: Mapping[str, Any], place: tuple[str, ...], user: str | None
    ) -> dict[bytes, Right]:
        place = (*place, "rights")
        read: dict[bytes, Right] = {}
        given = self._table(table, place[:-1], "rights")
        for text, names in given.items():
            here = (*place, text)
            prefix = self._prefix(here, text, user)
            if prefix in read:
                whose = f" for the user {user}" if USER_PLACE in "".join(given) else ""
                raise self._error(
                    here,
                    f"is the same prefix as another one{whose}: leave one of them out"
                    + (", or choose another name for the user" if whose else ""),
                )
            read[prefix] = self._right(here, names)
        return read

    def _prefix(self, place: tuple[str, ...], text: str, user: str | None) -> bytes:
        if USER_PLACE in text:
            if user is None:
                raise self._error(
                    place, f"has {USER_PLACE}, but there is no user's name to put there"
                )
            if f"/{USER_PLACE}/" not in text:
                raise self._error(
                    place, f"has {USER_PLACE} in a segment: it has to be a whole one"
                )
            text = text.replace(USER_PLACE, user)
        if re.search("[{}]", text):
            # "/{usr}/" would be one folder, in which every user may do everything.
            raise self._error(
                place,
                f"has braces, but only {USER_PLACE} may stand in them: write other"
                " braces as %7B and %7D",
            )
        try:
            return read_prefix(text)
        except BadSetting as error:
            raise self._error(place, error.sentence, says=True) from error

    def _right(self, place: tuple[str, ...], names: Any) -> Right:
        if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
            raise self._error(
                place, 'has to be an array of rights, such as ["read", "list"]'
            )
        rights = NO_RIGHT
        for name in names:
            if name not in _RIGHTS:
                raise self._error(
                    place,
                    f"has the right {name!r}; known: {', '.join(_RIGHTS)}."
                    f"{_hint(name, _RIGHTS)}",
                )
            rights |= _RIGHTS[name]
        return rights

    # -- secrets --------------------------------------------------------------

    def _password_hash(
        self, table: Mapping[str, Any], place: tuple[str, ...]
    ) -> str | None:
        text = table.get("password")
        if text is None:
            return None
        here = (*place, "password")
        if not isinstance(text, str):
            raise self._error(here, "has to be a string")
        wrong = check_hash(text)
        if wrong is not None:
            raise self._error(here, wrong)
        return text

    def _read_tokens(
        self,
        table: Mapping[str, Any],
        place: tuple[str, ...],
        user: str,
        tokens: dict[bytes, Token],
    ) -> None:
        place = (*place, "tokens")
        for one in self._several(table, place, "sha256", "note", "expires"):
            digest = one.get("sha256")
            if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
                raise self._error(
                    place,
                    "needs a sha256 of 64 hexadecimal digits in lower case, as kvd user"
                    " token writes it",
                )
            token = Token(user, bytes.fromhex(digest), self._expiry(one, place))
            index = token.digest[:TOKEN_INDEX_BYTES]
            if index in tokens:
                raise self._error(
                    place,
                    f"has a token twice; {tokens[index].user} has it first: make"
                    " another with kvd user token",
                )
            tokens[index] = token

    def _several(
        self, table: Mapping[str, Any], place: tuple[str, ...], *known: str
    ) -> Iterator[Mapping[str, Any]]:
        given = table.get(place[-1], [])
        if not isinstance(given, list):
            raise self._error(place, "has to be an array of tables, as [[...]] begins")
        for each in given:
            one = self._a_table(place, each)
            self._check_keys(one, place, *known)
            yield one

    def _read_keys(
        self,
        table: Mapping[str, Any],
        place: tuple[str, ...],
        user: str,
        keys: dict[str, AccessKey],
    ) -> None:
        place = (*place, "s3-keys")
        for one in self._several(table, place, "id", "secret", "note", "expires"):
            name, secret = one.get("id"), one.get("secret")
            if not isinstance(name, str) or not _KEY_ID.fullmatch(name):
                raise self._error(
                    place,
                    "needs an id of 16 to 128 letters and digits, as kvd user s3-key"
                    " writes it",
                )
            if not isinstance(secret, str) or not _SECRET.fullmatch(secret):
                raise self._error(
                    place,
                    "needs a secret of 32 to 128 characters without blanks, as kvd user"
                    " s3-key writes it",
                )
            if name in keys:
                raise self._error(
                    place,
                    f"has the id {name} twice; {keys[name].user} has it first: make"
                    " another with kvd user s3-key",
                )
            keys[name] = AccessKey(user, secret, self._expiry(one, place))

    def _expiry(self, table: Mapping[str, Any], place: tuple[str, ...]) -> float | None:
        moment = table.get("expires")
        if moment is None:
            return None
        if isinstance(moment, datetime):
            # Without a zone it would mean another moment on another machine.
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        if isinstance(moment, date):
            # To the end of that day.
            # As a number, because 9999-12-31 is the last day that there is.
            day = datetime.combine(moment, time(), UTC)
            return day.timestamp() + timedelta(days=1).total_seconds()
        raise self._error(
            (*place, "expires"),
            "has to be a date, or a date and a time, without quotes, such as 2027-01-31"
            " or 2027-01-31T12:00:00Z",
        )

    def _limit(
        self, table: Mapping[str, Any], place: tuple[str, ...], key: str
    ) -> int | None:
        limit = table.get(key)
        # A boolean is an int in Python.
        if limit is not None and (type(limit) is not int or not 1 <= limit <= 10**6):
            raise self._error(
                (*place, key), "has to be a whole number from 1 to 1000000"
            )
        return limit

    # -- prefixes -------------------------------------------------------------

    def _prefixes(self, tables: Mapping[str, Any]) -> ByPrefix[PrefixRules]:
        read: dict[bytes, PrefixRules] = {}
        for text, table in self._table(tables, (), "prefixes").items():
            place = ("prefixes", text)
            prefix = self._prefix(place, text, None)
            if prefix in read:
                raise self._error(place, "is the same prefix as another: leave one out")
            own = self._a_table(place, table)
            self._check_keys(own, place, "content-addressed", "write-once")
            read[prefix] = PrefixRules(
                self._switch(own, place, "content-addressed"),
                self._switch(own, place, "write-once"),
            )
        return ByPrefix(read)

    def _switch(
        self, table: Mapping[str, Any], place: tuple[str, ...], key: str
    ) -> bool:
        value = table.get(key, False)
        if not isinstance(value, bool):
            raise self._error((*place, key), "has to be true or false")
        return value

    # -- tables ---------------------------------------------------------------

    def _table(
        self, tables: Mapping[str, Any], place: tuple[str, ...], key: str
    ) -> Mapping[str, Any]:
        return self._a_table((*place, key), tables.get(key, {}))

    def _a_table(self, place: tuple[str, ...], value: Any) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            raise self._error(place, "has to be a table")
        return value

    def _check_keys(
        self, table: Mapping[str, Any], place: tuple[str, ...], *known: str
    ) -> None:
        for key in table:
            if key not in known:
                within = f"in [{'.'.join(place)}]" if place else "at the top"
                raise self._error(
                    (*place, key),
                    f"is unknown: {within} there are {', '.join(known)}."
                    f"{_hint(key, known)}",
                )

    def _error(
        self, place: tuple[str, ...], wrong: str, says: bool = False
    ) -> BadSetting:
        name = ".".join(part if _NAME.fullmatch(part) else repr(part) for part in place)
        line = self._line_of(place[-1])
        where = f"{name} in {self._path}" + (f" (line {line})" if line else "")
        return BadSetting(f"{where}: {wrong}" if says else f"{where} {wrong}")

    def _line_of(self, key: str) -> int | None:
        """
        The line that a key stands in, if there is only one; `tomllib` does not tell.
        """
        form = re.compile(rf"""(?:^|[\s\[.{{,"']){re.escape(key)}(?:[\s\].=}}"']|$)""")
        found = [
            number
            for number, line in enumerate(self._lines, 1)
            if form.search(line) and not line.lstrip().startswith("#")
        ]
        return found[0] if len(found) == 1 else None


def _hint(given: str, known: Mapping[str, object] | tuple[str, ...]) -> str:
    closest = get_close_matches(given, known, n=1)
    return f" Did you mean {closest[0]!r}?" if closest else ""
