"""
Changes to a rights file by ``kvd user``: users, passwords and tokens.

Whatever else the file says stays as it is, comments included. A changed file is read
again before it replaces the old one, so a change never leaves a file that kvd refuses.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, cast

import tomlkit
from tomlkit import TOMLDocument
from tomlkit.items import AoT, Table

from kvd.access.rights_file import parse_rights, read_rights_file
from kvd.access.tokens import token_digest
from kvd.errors import BadSetting

BEGINNING: Final = """\
# Who may do what in kvd: twistd kvd --users FILE. kvd reads it again on SIGHUP.
# docs/security.rst explains it.

# What every client may do, without a password too.
[anonymous.rights]
#"/" = ["read"]

# What every user may do; {user} is the user's name.
[everyone.rights]
#"/home/{user}/" = ["read", "write", "delete", "list"]
"""
"""
Of a new file.
"""


@dataclass(frozen=True, slots=True)
class ListedToken:
    """
    A token, as far as the file tells.
    """

    number: int
    """Among the tokens of its user, from 1 up."""
    note: str
    expires: object


@dataclass(frozen=True, slots=True)
class ListedKey:
    """
    A key for S3, as far as the file tells others.
    """

    name: str
    note: str
    expires: object


@dataclass(frozen=True, slots=True)
class ListedUser:
    """
    A user, as far as the file tells.
    """

    name: str
    has_password: bool
    rights: Mapping[str, Sequence[str]]
    tokens: Sequence[ListedToken]
    keys: Sequence[ListedKey]


def change(path: str, edit: Callable[[TOMLDocument], None]) -> None:
    """
    Change a rights file, or make one.

    Args:
        path: Of the file.
        edit: Changes it.

    Raises:
        BadSetting: The file is wrong, or would be, or cannot be written.
    """
    path = os.path.realpath(path)
    try:
        with _locked(path):
            exists = os.path.exists(path)
            text = read_rights_file(path) if exists else BEGINNING
            parse_rights(text, path)
            document = tomlkit.parse(text)
            edit(document)
            changed = tomlkit.dumps(document)
            parse_rights(changed, path)
            _replace(path, changed, os.stat(path) if exists else None)
    except OSError as error:
        raise BadSetting(
            f"the rights file {path} cannot be written: {error.strerror}"
        ) from error


@contextmanager
def _locked(path: str) -> Iterator[None]:
    """
    Hold the lock of the folder of a file, so that no other change is lost.
    """
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _replace(path: str, text: str, old: os.stat_result | None) -> None:
    # Readable by nobody else from its first byte on.
    descriptor, temporary = tempfile.mkstemp(prefix=".kvd-", dir=os.path.dirname(path))
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            if old is not None:
                if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(descriptor, old.st_uid, old.st_gid)
                os.fchmod(descriptor, old.st_mode & 0o770)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def set_user(
    document: TOMLDocument,
    name: str,
    password_hash: str | None,
    rights: Mapping[str, Sequence[str]],
) -> None:
    """
    Add a user, or change what is given here; everything else stays.

    Args:
        document: Of the rights file.
        name: Of the user.
        password_hash: A new one; None: it stays.
        rights: By prefix; those of other prefixes stay.
    """
    users = _sub_table(document, "users", is_super=True)
    user = _sub_table(users, name)
    if password_hash is not None:
        user["password"] = password_hash
    if rights:
        table = _sub_table(user, "rights")
        for prefix, names in rights.items():
            table[prefix] = list(names)


def add_token(
    document: TOMLDocument,
    name: str,
    token: str,
    note: str,
    expires: datetime | None,
) -> None:
    """
    Add a token of a user, of which the file gets the digest.

    Raises:
        BadSetting: There is no such user.
    """
    entry = {"sha256": token_digest(token).hex()}
    _add(_user(document, name), "tokens", entry, note, expires)


def add_key(
    document: TOMLDocument,
    name: str,
    key: tuple[str, str],
    note: str,
    expires: datetime | None,
) -> None:
    """
    Add a key for S3 of a user, with its secret.

    Raises:
        BadSetting: There is no such user.
    """
    entry = {"id": key[0], "secret": key[1]}
    _add(_user(document, name), "s3-keys", entry, note, expires)


def _add(
    user: Any,
    kind: str,
    said: Mapping[str, str],
    note: str,
    expires: datetime | None,
) -> None:
    entry = tomlkit.table()
    entry.update(said)
    if note:
        entry["note"] = note
    if expires is not None:
        entry["expires"] = expires.astimezone(UTC).replace(microsecond=0)
    entries = user.get(kind)
    if entries is None:
        entries = tomlkit.aot()
        user.append(kind, entries)
    cast(AoT, entries).append(entry)


def remove_user(document: TOMLDocument, name: str) -> None:
    """
    Remove a user, with all tokens.

    Raises:
        BadSetting: There is no such user.
    """
    _user(document, name)
    cast(Any, document["users"]).remove(name)


def remove_token(document: TOMLDocument, name: str, number: int) -> None:
    """
    Remove a token of a user.

    Args:
        document: Of the rights file.
        name: Of the user.
        number: As in `ListedToken`.

    Raises:
        BadSetting: There is no such user, or no such token.
    """
    user = _user(document, name)
    tokens = cast(Any, user.get("tokens", []))
    if not 1 <= number <= len(tokens):
        raise BadSetting(
            f"{name} has no token {number}, but {len(tokens)}: see kvd user list"
        )
    if len(tokens) == 1:
        user.remove("tokens")
    else:
        del tokens[number - 1]


def remove_key(document: TOMLDocument, name: str, key: str) -> None:
    """
    Remove a key for S3 of a user.

    Raises:
        BadSetting: There is no such user, or no such key.
    """
    user = _user(document, name)
    keys = cast(Any, user.get("s3-keys", []))
    found = [number for number, each in enumerate(keys) if each["id"] == key]
    if not found:
        raise BadSetting(f"{name} has no key {key!r} for S3: see kvd user list")
    if len(keys) == 1:
        user.remove("s3-keys")
    else:
        del keys[found[0]]


def list_users(text: str) -> list[ListedUser]:
    """
    The users in the text of a rights file, which is valid.
    """
    users: Mapping[str, Any] = tomlkit.parse(text).unwrap().get("users", {})
    return [
        ListedUser(
            name,
            "password" in user,
            user.get("rights", {}),
            [
                ListedToken(number, token.get("note", ""), token.get("expires"))
                for number, token in enumerate(user.get("tokens", []), 1)
            ],
            [
                ListedKey(key["id"], key.get("note", ""), key.get("expires"))
                for key in user.get("s3-keys", [])
            ],
        )
        for name, user in users.items()
    ]


def _user(document: TOMLDocument, name: str) -> Any:
    users = cast(Mapping[str, Any], document.get("users", {}))
    if name not in users:
        known = f"known: {', '.join(users)}" if users else "there are none"
        raise BadSetting(f"there is no user {name!r}; {known}")
    return users[name]


def _sub_table(table: Any, name: str, is_super: bool = False) -> Table:
    if name not in table:
        table.append(name, tomlkit.table(is_super))
    return cast(Table, table[name])
