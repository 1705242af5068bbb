"""
``kvd put``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import click

from kvd.cli.errors import FAILED, LocalError
from kvd.cli.fields import PATH, printable
from kvd.cli.keys import (
    as_folder,
    check_spelling,
    checked_key,
    is_url,
    located,
    read_prefix,
    shown,
)
from kvd.cli.main import complain
from kvd.cli.progress import bars
from kvd.cli.running import connect, each, jobs_option, patiently, run
from kvd.cli.sending import Upload, send
from kvd.cli.telling import Teller
from kvd.cli.trees import LeftOut, read_tree
from kvd.client import BrokenOff, Unreachable


@click.command()
@click.argument("arguments", nargs=-1, required=True, metavar="KEY FILE...", type=PATH)
@click.option(
    "-r",
    "--recursive",
    is_flag=True,
    help="Each FILE that is a folder stands for all files below it.",
)
@click.option(
    "-L",
    "--follow",
    is_flag=True,
    help="With -r: send what links inside a folder lead to.",
)
@click.option("--create", is_flag=True, help="Only if the key has no value yet.")
@click.option(
    "--if-match",
    metavar="ETAG",
    callback=printable,
    help="Only if the key has this value.",
)
@click.option(
    "--content-type", metavar="TYPE", callback=printable, help="Stored with the value."
)
@jobs_option
@click.option("-q", "--quiet", is_flag=True, help="No progress, and no lines.")
@click.pass_obj
def put(
    url: str,
    arguments: Sequence[str],
    recursive: bool,
    follow: bool,
    create: bool,
    if_match: str | None,
    content_type: str | None,
    jobs: int,
    quiet: bool,
) -> None:
    """
    Store FILE under KEY; - is standard input.

    If KEY ends in a slash, it is a prefix, and each FILE is stored under its own name
    after it: kvd put films/ one two. With -r it always is one, and what is in a folder
    is stored under its path in that folder: kvd put -r films/ folder. Two files for one
    key are refused.

    KEY can be a URL. Then it can also come last: kvd put -r folder
    http://host/films/
    """
    key, files = _key_and_files(arguments)
    server, [key] = located(url, [key])
    client = connect(server)
    left_out: list[LeftOut] = []
    if recursive:
        uploads = _uploads_below(as_folder(read_prefix(key)), files, follow, left_out)
    else:
        uploads = _uploads(key, files)
    # A condition would be about the value that the first try may have stored.
    can_repeat = not create and if_match is None
    retried = (Unreachable, BrokenOff) if can_repeat else (Unreachable,)
    teller = Teller(quiet)

    async def send_all() -> int:
        total = sum(upload.size for upload in uploads)
        with bars(quiet, len(uploads), total) as begin:

            async def store(upload: Upload) -> None:
                if recursive:
                    checked_key(upload.key)

                async def once() -> None:
                    await send(
                        client,
                        upload,
                        begin,
                        create=create,
                        if_match=if_match,
                        content_type=content_type,
                    )

                if not recursive:
                    with _order_explained():
                        await once()
                    return
                await patiently(once, retried)
                teller.tell(upload.key, "stored", upload.size)

            failed = report(left_out)
            status = await each(uploads, store, Upload.subject_of, jobs) or failed
        if recursive:
            teller.sum_up("stored")
        return status

    run(send_all)


@contextmanager
def _order_explained() -> Iterator[None]:
    """
    Say what comes first, if a file is missing.
    """
    try:
        yield
    except LocalError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            sentence = error.message.rstrip(".")
            raise LocalError(
                f"{sentence}; give the key first, and then the files:"
                " kvd put KEY FILE..."
            ) from error
        raise


def report(left_out: Iterable[LeftOut]) -> int:
    """
    Say what is not sent; returns the exit status.
    """
    status = 0
    for one in left_out:
        complain(f"{one.path}: {one.sentence}")
        if one.is_failure:
            status = FAILED
    return status


def _key_and_files(arguments: Sequence[str]) -> tuple[str, Sequence[str]]:
    if len(arguments) < 2:
        raise click.UsageError("give a key and a FILE: kvd put KEY FILE...")
    if is_url(arguments[-1]) and not is_url(arguments[0]):
        return arguments[-1], arguments[:-1]
    if not os.path.lexists(arguments[-1]):
        check_spelling(arguments[-1])
    return arguments[0], arguments[1:]


def _uploads_below(
    prefix: bytes, files: Sequence[str], follow: bool, left_out: list[LeftOut]
) -> list[Upload]:
    """
    One for each file, and for each file in a folder.
    """
    uploads: dict[bytes, Upload] = {}
    for path in files:
        if path == "-":
            raise click.UsageError("-r is about folders, and - is standard input")
        if os.path.isdir(path):
            try:
                tree = read_tree(path, follow)
            except LocalError as error:
                left_out.append(LeftOut(b"", path, error.message, True))
                continue
            left_out += tree.left_out
            for file in tree.files.values():
                _add(uploads, Upload(prefix + file.name, file.path, file.size))
        else:
            size = _size(path)
            if size is None:
                sentence = "it is a device, a pipe or a socket, and was not sent."
                left_out.append(LeftOut(b"", path, sentence, True))
                continue
            name = os.path.basename(path)
            _add(uploads, Upload(prefix + os.fsencode(name), path, size))
    return list(uploads.values())


def _size(path: str) -> int | None:
    """
    Of a file; None if it is not a regular one.
    """
    try:
        seen = os.stat(path)
    except OSError:
        # Reported when it is opened.
        return 0
    return seen.st_size if stat.S_ISREG(seen.st_mode) else None


def _add(uploads: dict[bytes, Upload], upload: Upload) -> None:
    first = uploads.setdefault(upload.key, upload)
    if first is not upload:
        raise click.UsageError(
            f"{first.path!r} and {upload.path!r} would both be stored under"
            f" {shown(upload.key)!r}, and one would be lost: put them separately"
        )


def _uploads(key: str, files: Sequence[str]) -> list[Upload]:
    prefix = read_prefix(key)
    if not key.endswith("/"):
        if not prefix:
            raise click.UsageError("a key has at least one character")
        if len(files) > 1:
            raise click.UsageError(
                f"{len(files)} files cannot be stored under one key; end a prefix with"
                f" a slash: {key}/"
            )
        return [Upload(prefix, files[0])]
    uploads: dict[bytes, Upload] = {}
    for path in files:
        name = os.path.basename(path.rstrip("/"))
        if path == "-" or name in ("", ".", ".."):
            raise click.UsageError(
                f"{path!r} has no name to be stored under; give one after {key}"
            )
        _add(uploads, Upload(prefix + os.fsencode(name), path, _size(path) or 0))
    return list(uploads.values())
