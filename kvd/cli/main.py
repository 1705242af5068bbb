"""
The command and its subcommands, each imported only when it is called.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Final

import click

from kvd import __version__
from kvd.cli.errors import FAILED, UNREAD
from kvd.cli.fields import PATH
from kvd.cli.output import discard, flush

COMMANDS: Final = {
    "serve": "Serve values: the short form of twistd -n kvd.",
    "put": "Store files, or standard input.",
    "get": "Fetch values into files, or to standard output.",
    "rm": "Remove values.",
    "ls": "List keys.",
    "du": "Show how much the values below each prefix take.",
    "sync": "Copy a folder to a daemon or back, or a store to another one.",
    "stat": "Show the size, type and entity tag of values.",
    "status": "Show the workers of a daemon on this machine.",
    "top": "Watch the workers of a daemon on this machine.",
    "user": "Add users and tokens to a rights file, remove or list them.",
    "policy": "Choose the policy that assigns connections, or list the policies.",
    "procs": "Change the number of workers.",
    "drain": "Replace a worker when it has finished its requests.",
    "restart": "Replace all workers, one after the other.",
    "upgrade": "Have new code take over from a daemon, without a refused connection.",
    "shadow": "Compare another policy with the one that a daemon uses.",
    "selftest": "Try a store, with writers that race.",
    "bench": "Measure kvd on this machine.",
    "simulate": "Compare policies without a daemon.",
}
"""
Each has a module of its name, which defines an object of its name.
"""

_BEFORE: Final = {
    "--url": "URL",
    "--token-file": "FILE",
    "--netrc": "FILE",
    "--timeout": "TIME",
    "--cacert": "FILE",
    "--cert": "FILE",
    "--key": "FILE",
}
"""
Options that come before the command, and their arguments.
"""

_STATUSES: Final = """\
\b
Exit statuses:
  0  done
  1  kvd refused, or a local file could not be read, sent or written
  2  the command line is wrong
  3  there is no such value, or no key matches
  4  the value is not the expected one (--create, --if-match)
  5  kvd did not answer, closed early, or another program answers there
With several keys or files, all are tried, and the first failure counts.
"""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"kvd.cli.{cmd_name}"), cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            near = get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(
                f"there is no command {args[0]!r}; known: {', '.join(COMMANDS)}.{hint}"
            )
        return super().resolve_command(ctx, args)

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=_Commands,
    # A missing command gets one line, as anything else that is missing.
    no_args_is_help=False,
    epilog=_STATUSES,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--url",
    envvar="KVD_URL",
    default="http://127.0.0.1:8080",
    show_default=True,
    show_envvar=True,
    help="Where the daemon serves.",
)
@click.option(
    "--token-file",
    metavar="FILE",
    type=PATH,
    envvar="KVD_TOKEN_FILE",
    show_envvar=True,
    help="A file with a token of a user of the daemon.",
)
@click.option(
    "--netrc",
    metavar="FILE",
    type=PATH,
    envvar="KVD_NETRC",
    show_envvar=True,
    help="A netrc file with the daemon's host, a login and a password; ~/.netrc if"
    " there is one, and no token file.",
)
@click.option(
    "--timeout",
    metavar="TIME",
    envvar="KVD_TIMEOUT",
    default="2m",
    show_default=True,
    show_envvar=True,
    help="How long a request to a daemon waits while no byte moves.",
)
@click.option(
    "--cacert",
    metavar="FILE",
    type=PATH,
    envvar="KVD_CACERT",
    show_envvar=True,
    help="The authorities of an https:// URL, in place of the system's.",
)
@click.option(
    "--cert",
    metavar="FILE",
    type=PATH,
    envvar="KVD_CERT",
    show_envvar=True,
    help="A certificate to show there, with its private key unless --key has it.",
)
@click.option(
    "--key",
    metavar="FILE",
    type=PATH,
    envvar="KVD_KEY",
    show_envvar=True,
    help="The private key of --cert.",
)
@click.version_option(__version__, prog_name="kvd", message="%(prog)s %(version)s")
@click.pass_context
def commands(context: click.Context, /, url: str, **_: str | None) -> None:
    """
    Store values in a kvd daemon, and manage the daemon.
    """
    context.obj = url


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Run the command and exit. A failure is one line on standard error. If the reader of
    standard output closes it, the command ends silently.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A key may have letters that the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="backslashreplace")
    status = _status_of(
        lambda: commands.main(arguments, prog_name="kvd", standalone_mode=False)
    )
    sys.exit(status or _status_of(flush))


def _status_of(work: Callable[[], int | None]) -> int:
    try:
        return work() or 0
    except click.ClickException as error:
        complain(f"{error.format_message()}{_hint(error)}")
        return error.exit_code
    except BrokenPipeError:
        discard(sys.stdout)
        return UNREAD
    except OSError as error:
        # Raised by click, which writes the help, or by a measurement.
        discard(sys.stdout)
        complain(str(error))
        return FAILED
    except (click.Abort, KeyboardInterrupt):
        return 130


def _hint(error: click.ClickException) -> str:
    if not isinstance(error, click.UsageError) or error.ctx is None:
        return ""
    path = error.ctx.command_path
    if isinstance(error, click.NoSuchOption) and error.option_name in _BEFORE:
        name = path.removeprefix("kvd ")
        option = f"{error.option_name} {_BEFORE[error.option_name]}"
        return f" It comes before the command: kvd {option} {name}"
    end = "" if error.format_message().endswith((".", "?")) else "."
    return f"{end} Try: {path} --help"


def complain(sentence: str) -> None:
    """
    Print one line on standard error, whatever the sentence contains.
    """
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in sentence)
    if sys.stderr is not None:
        try:
            sys.stderr.write(f"kvd: {line}\n")
        except OSError:
            # The exit status still reports the failure.
            discard(sys.stderr)


if __name__ == "__main__":
    main()
