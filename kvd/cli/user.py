"""
``kvd user``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from kvd.cli.errors import LocalError
from kvd.cli.output import standard_output
from kvd.cli.quantity import quantity
from kvd.errors import BadSetting
from kvd.model.quantities import Seconds

users_option = click.option(
    "--users",
    "path",
    metavar="FILE",
    envvar="KVD_USERS",
    show_envvar=True,
    required=True,
    help="The rights file, as of twistd kvd --users.",
)


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except BadSetting as error:
        raise LocalError(error.sentence) from error


@click.group()
def user() -> None:
    """
    Add users, tokens and keys to a rights file, remove or list them.

    A running daemon reads the file again when its supervisor gets SIGHUP.
    """


@user.command()
@click.argument("name")
@users_option
@click.option(
    "--allow",
    metavar="PREFIX=RIGHTS",
    multiple=True,
    help="What the user may do below a prefix, such as /cache/=read,write; may be"
    " given several times.",
)
@click.option(
    "--no-password", is_flag=True, help="Ask for none: the user has tokens only."
)
def add(name: str, path: str, allow: Sequence[str], no_password: bool) -> None:
    """
    Add a user, or change the password of one.

    The password is asked for at a terminal; else it is the first line of standard
    input. It is never an argument, which all users of this machine could see.
    """
    from kvd.access.editing import change, set_user

    rights = dict(map(_read_rights, allow))
    password_hash = None if no_password else _hash(_password(name))
    with _refusals():
        change(path, lambda document: set_user(document, name, password_hash, rights))


@user.command()
@click.argument("name")
@users_option
@click.option(
    "--expires",
    metavar="TIME",
    callback=quantity(Seconds(most=100 * 365 * 86400)),
    help="When it ceases to be valid, from now on, such as 30d; never by default.",
)
@click.option("--note", default="", help="What it is for, for kvd user list.")
def token(name: str, path: str, expires: float | None, note: str) -> None:
    """
    Make a token for a user, and print it, this once.

    The file keeps only its SHA-256.
    """
    from kvd.access.editing import add_token, change
    from kvd.access.tokens import make_token

    made = make_token()
    end = None if expires is None else datetime.now(UTC) + timedelta(seconds=expires)
    with _refusals():
        change(path, lambda document: add_token(document, name, made, note, end))
    with standard_output():
        click.echo(made)


@user.command("s3-key")
@click.argument("name")
@users_option
@click.option(
    "--expires",
    metavar="TIME",
    callback=quantity(Seconds(most=100 * 365 * 86400)),
    help="When it ceases to be valid, from now on, such as 30d; never by default.",
)
@click.option("--note", default="", help="What it is for, for kvd user list.")
def s3_key(name: str, path: str, expires: float | None, note: str) -> None:
    """
    Make a key for a user of the dialect s3, and print it as aws-cli's credentials
    file has it.

    Signatures are computed from the secret itself, so the rights file keeps it as it
    is: whoever reads the file can sign as this user.
    """
    from kvd.access.editing import add_key, change
    from kvd.access.tokens import make_key

    made = make_key()
    end = None if expires is None else datetime.now(UTC) + timedelta(seconds=expires)
    with _refusals():
        change(path, lambda document: add_key(document, name, made, note, end))
    with standard_output():
        click.echo(f"aws_access_key_id = {made[0]}")
        click.echo(f"aws_secret_access_key = {made[1]}")


@user.command()
@click.argument("name")
@users_option
@click.option(
    "--token", "number", type=int, metavar="N", help="Only this token of kvd user list."
)
@click.option("--s3-key", "key", metavar="ID", help="Only this key of kvd user list.")
def remove(name: str, path: str, number: int | None, key: str | None) -> None:
    """
    Remove a user with all tokens and keys, or one of them.
    """
    from kvd.access.editing import change, remove_key, remove_token, remove_user

    if number is not None and key is not None:
        raise click.UsageError("Give --token or --s3-key, not both.")
    edit: Callable[[Any], None]
    if key is not None:
        edit = lambda document: remove_key(document, name, key)  # noqa: E731
    elif number is None:
        edit = lambda document: remove_user(document, name)  # noqa: E731
    else:
        edit = lambda document: remove_token(document, name, number)  # noqa: E731
    with _refusals():
        change(path, edit)


@user.command("list")
@users_option
def list_(path: str) -> None:
    """
    List the users, their own rights, their tokens, and their keys for S3.
    """
    from kvd.access.editing import list_users
    from kvd.access.rights_file import parse_rights, read_rights_file

    with _refusals():
        text = read_rights_file(path)
        parse_rights(text, path)
    with standard_output():
        for each in list_users(text):
            click.echo(f"{each.name}{'' if each.has_password else ' (no password)'}")
            for prefix, names in each.rights.items():
                click.echo(f"  {prefix} {', '.join(names) or 'nothing'}")
            for one in each.tokens:
                until = f", expires {one.expires}" if one.expires else ""
                note = f", {one.note}" if one.note else ""
                click.echo(f"  token {one.number}{until}{note}")
            for signing in each.keys:
                until = f", expires {signing.expires}" if signing.expires else ""
                note = f", {signing.note}" if signing.note else ""
                click.echo(f"  s3-key {signing.name}{until}{note}")


def _read_rights(text: str) -> tuple[str, Sequence[str]]:
    prefix, equals, names = text.rpartition("=")
    if not equals:
        raise click.UsageError(
            f"{text!r} is not of the form PREFIX=RIGHTS, such as /cache/=read,write"
        )
    return prefix, [name for name in names.split(",") if name]


def _password(name: str) -> str:
    from kvd.access.passwords import MOST_PASSWORD_BYTES

    if sys.stdin is None:
        raise LocalError("standard input, which has the password, is closed.")
    if sys.stdin.isatty():
        asked: str = click.prompt(
            f"Password of {name}", hide_input=True, confirmation_prompt=True, err=True
        )
        return asked
    # So much of it that it is too long, if it is.
    line = sys.stdin.buffer.readline(2 * MOST_PASSWORD_BYTES)
    try:
        return line.rstrip(b"\r\n").decode("utf-8")
    except UnicodeDecodeError as error:
        raise LocalError("the password is not UTF-8.") from error


def _hash(password: str) -> str:
    from kvd.access.passwords import MOST_PASSWORD_BYTES, hash_password
    from kvd.access.tokens import TOKEN_PREFIX

    if not password or not password.isprintable():
        raise LocalError(
            "a password has at least one character, and no control characters."
        )
    if len(password.encode("utf-8")) > MOST_PASSWORD_BYTES:
        raise LocalError(f"a password has at most {MOST_PASSWORD_BYTES} bytes.")
    if password.startswith(TOKEN_PREFIX):
        raise LocalError(f"a password cannot begin with {TOKEN_PREFIX}, as tokens do.")
    return hash_password(password)
