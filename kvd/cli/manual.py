"""
``python -m kvd.cli.manual FOLDER``: the manual pages and the shells' completions, made
from the same sources as ``--help``, for packages of kvd.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import click
from click.shell_completion import get_completion_class

from kvd import __version__
from kvd.cli.main import COMMANDS, commands
from kvd.options import Options
from kvd.options.help_text import WRITING

COMPLETIONS: Final = {
    "bash": "bash-completion/completions/kvd",
    "zsh": "zsh/vendor-completions/_kvd",
    "fish": "fish/vendor_completions.d/kvd.fish",
}
"""
Where a distribution keeps the completions of each shell, below ``share``.
"""


def roff(text: str) -> str:
    """
    Text as roff(7) shows it: on lines that are no requests, with plain hyphens.
    """
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return re.sub(r"(?m)^\.", r"\\&.", escaped.replace("`", "\\(ga"))


def page(name: str, what: str, body: Iterable[str]) -> str:
    """
    A manual page.

    Args:
        name: Of the command, with hyphens.
        what: One line.
        body: Of the page, in roff.
    """
    # https://reproducible-builds.org/specs/source-date-epoch/
    made = float(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
    date = time.strftime("%Y-%m-%d", time.gmtime(made))
    head = [
        f'.TH {roff(name).upper()} 1 {date} "kvd {__version__}" kvd',
        ".SH NAME",
        f"{roff(name)} \\- {roff(what.rstrip('.'))}",
    ]
    text = "\n".join([*head, *body]) + "\n"
    # The first paragraph of a section needs no request.
    return re.sub(r"(?m)^(\.SH .*\n)\.PP\n", r"\1", text)


def paragraphs(text: str) -> Iterator[str]:
    """
    A help text; what click does not fill stays as it is.
    """
    for block in re.split(r"\n\s*\n", text.strip()):
        plain = block.removeprefix("\b\n")
        yield ".PP"
        if plain == block:
            yield roff(" ".join(block.split()))
        else:
            yield from as_it_is(plain)


def as_it_is(text: str) -> list[str]:
    """
    Lines that are not filled.
    """
    return [".nf", *(roff(line) for line in text.rstrip().splitlines()), ".fi"]


def definitions(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    """
    Options, or commands, and what they do.
    """
    for term, what in rows:
        yield ".TP"
        yield f".B {roff(term)}"
        yield roff(" ".join(what.split()))


def page_of_command(context: click.Context) -> str:
    """
    The page of ``kvd``, or of one of its commands.
    """
    command = context.command
    name = context.command_path.replace(" ", "-")
    what = COMMANDS.get(context.info_name or "", "keep values under keys")
    usage = [context.command_path, *command.collect_usage_pieces(context)]
    body = [".SH SYNOPSIS", f".B {roff(' '.join(usage))}", ".SH DESCRIPTION"]
    body += paragraphs(command.help or "")
    rows = [
        record
        for p in command.get_params(context)
        if (record := p.get_help_record(context))
    ]
    if rows:
        body += [".SH OPTIONS", *definitions(rows)]
    others = "kvd"
    if isinstance(command, click.Group):
        body += [".SH COMMANDS", *definitions(COMMANDS.items())]
        body += [".PP", "Each has a page of its own, such as", ".BR kvd\\-put (1)."]
        others = "kvd\\-serve"
    if command.epilog:
        body += [".SH NOTES", *paragraphs(command.epilog)]
    return page(name, what, [*body, ".SH SEE ALSO", f".BR {others} (1)"])


def page_of_serve() -> str:
    """
    The page of ``kvd serve``, which is that of ``twistd -n kvd`` too.
    """
    options = Options()
    body = [
        ".SH SYNOPSIS",
        ".B twistd \\-n kvd",
        "[options]",
        ".br",
        ".B kvd serve",
        "[options]",
        ".SH DESCRIPTION",
        *paragraphs(options.longdesc),
        *paragraphs(
            "kvd serve is the short form of twistd -n kvd without a PID file. Both take"
            " these options, each with a value."
        ),
        ".SH OPTIONS",
        *definitions(options.described()),
        ".SH NOTES",
        *as_it_is(WRITING),
        ".SH SEE ALSO",
        ".BR kvd (1)",
    ]
    return page("kvd-serve", COMMANDS["serve"], body)


def pages() -> dict[str, str]:
    """
    All pages, by the names of their files.
    """
    # Whatever is asked for in the terminal that makes the pages.
    root = click.Context(commands, info_name="kvd", terminal_width=80)
    made = {"kvd.1": page_of_command(root), "kvd-serve.1": page_of_serve()}
    for name in commands.list_commands(root):
        command = commands.get_command(root, name)
        assert command is not None
        if name == "serve":
            continue
        context = click.Context(command, info_name=name, parent=root)
        made[f"kvd-{name}.1"] = page_of_command(context)
        if isinstance(command, click.Group):
            for below in command.list_commands(context):
                deeper = command.get_command(context, below)
                assert deeper is not None
                inner = click.Context(deeper, info_name=below, parent=context)
                made[f"kvd-{name}-{below}.1"] = page_of_command(inner)
    return made


def completions() -> dict[str, str]:
    """
    What each shell loads, by the names of `COMPLETIONS`. It asks ``kvd`` itself at each
    completion, so it never differs from the installed version.
    """
    made = {}
    for shell, path in COMPLETIONS.items():
        kind = get_completion_class(shell)
        assert kind is not None
        made[path] = kind(commands, {}, "kvd", "_KVD_COMPLETE").source()
    return made


def main() -> None:
    """
    Write all below a folder, as ``share`` has it.
    """
    share = Path(sys.argv[1])
    files = {f"man/man1/{name}": text for name, text in pages().items()}
    for path, text in (files | completions()).items():
        os.makedirs((share / path).parent, exist_ok=True)
        (share / path).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
