"""
The command line of ``twistd kvd``.

Twisted's parser only collects the texts. When it has all of them, they replace those of
the settings file and are read together (`choosing`), so the order of options does not
matter.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from getopt import GetoptError, getopt
from typing import Any

from twisted.python import usage

from kvd import __version__
from kvd.errors import OperatorError
from kvd.options.choices import CHOICES, Choice
from kvd.options.choosing import Given, make_settings
from kvd.options.help_text import installed_and_examples
from kvd.options.paths import absolute
from kvd.options.settings_file import read_file
from kvd.plugins import forget_unwritable_cache
from kvd.settings import Settings
from kvd.system.inherited import VARIABLE


def _describe(choice: Choice) -> str:
    default = " ".join(choice.defaults) or "none"
    return f"{choice.description} [default: {default}]"


def _forms(name: str, short: str | None) -> str:
    return f"-{short}, --{name}" if short else f"--{name}"


_NAMED_ONCE = frozenset(choice.name for choice in CHOICES if choice.named_once) | {
    "config"
}


class Options(usage.Options):
    """
    The options of ``twistd kvd``. After `parseOptions`, `settings` holds the settings.
    """

    synopsis = "[options]"
    longdesc = (
        "Keeps values under keys: PUT /key stores the body of the request, GET /key"
        " returns it, DELETE /key removes it, GET / lists the keys."
    )

    # No defaults here: an option that was not given must be known as such, or nothing
    # in the settings file would ever count.
    optParameters = [
        [choice.name, choice.short, None, _describe(choice)]
        for choice in CHOICES
        if not choice.repeatable
    ] + [["config", "c", None, "A settings file; options given here override it."]]

    settings: Settings
    pid_file = ""
    """The path of twistd's PID file; empty: there is none."""

    def __init__(self) -> None:
        self._repeated: dict[str, list[str]] = {}
        super().__init__()
        for choice in CHOICES:
            if choice.repeatable:
                self.docs[choice.name] = _describe(choice)

    def described(self) -> Iterator[tuple[str, str]]:
        """
        All options, but those for help: their forms, such as ``-p, --procs``, and what
        they do.
        """
        for choice in CHOICES:
            yield _forms(choice.name, choice.short), _describe(choice)
        yield _forms("config", "c"), self.docs["config"]

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        try:
            self._check_once(sys.argv[1:] if options is None else options)
            super().parseOptions(options)
            if self.parent is not None:
                check_folder(self.parent)
                forget_unwritable_cache()
                self.pid_file = self.parent["pidfile"]
                if VARIABLE in os.environ:
                    # It is that of the daemon whose place this one takes.
                    self.parent["pidfile"] = ""
        except usage.UsageError as error:
            sentence = f"{error}{self._hint(error)}"
            if self.parent is None:
                raise usage.UsageError(sentence) from error
            # twistd itself would print all of its usage before the sentence.
            end = "" if sentence.endswith((".", "?")) else "."
            raise SystemExit(f"kvd: {sentence}{end} Try: twistd kvd --help") from error

    def _check_once(self, options: Sequence[str]) -> None:
        try:
            given, _ = getopt(list(options), self.shortOpt, self.longOpt)
        except GetoptError:
            # The parser finds that too, and says it.
            return
        first: dict[str, str] = {}
        for form, text in given:
            option = form.lstrip("-")
            name = self.synonyms.get(option, option)
            if name in _NAMED_ONCE and first.setdefault(name, text) != text:
                raise usage.UsageError(
                    f"--{name} is given twice, {first[name]!r} and {text!r}, and only"
                    " one can count: give it once"
                )

    def _hint(self, error: usage.UsageError) -> str:
        # getopt's error names only the option that it does not know.
        if not isinstance(error.__context__, GetoptError):
            return ""
        known = [name.rstrip("=") for name in self.longOpt]
        if error.__context__.opt in known:
            # Its value is missing, which the sentence says.
            return ""
        closest = get_close_matches(error.__context__.opt, known, n=1)
        return f"; did you mean --{closest[0]}?" if closest else ""

    def opt_listen(self, text: str) -> None:
        self._repeated.setdefault("listen", []).append(text)

    opt_l = opt_listen

    def opt_dialect(self, text: str) -> None:
        self._repeated.setdefault("dialect", []).append(text)

    def opt_quota(self, text: str) -> None:
        self._repeated.setdefault("quota", []).append(text)

    def opt_cors(self, text: str) -> None:
        self._repeated.setdefault("cors", []).append(text)

    def opt_allowed_host(self, text: str) -> None:
        self._repeated.setdefault("allowed-host", []).append(text)

    def opt_version(self) -> None:
        """
        Print kvd's version and exit.
        """
        print(f"kvd {__version__}")
        raise SystemExit(0)

    def opt_help(self) -> None:
        """
        Display this help and exit.
        """
        try:
            print(self, flush=True)
        except BrokenPipeError:
            # The reader, such as "| head", has closed the pipe. Python would try again
            # at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0)

    opt_h = opt_help

    def parseArgs(self, *args: str) -> None:
        if args:
            raise usage.UsageError(
                f"{' '.join(args)!r} belongs to no option: kvd takes options only,"
                " such as --store file:./values"
            )

    def postOptions(self) -> None:
        try:
            if self["config"] is not None:
                # A daemon may change its folder, and read the file again later.
                self["config"] = absolute(self["config"])
            self.settings = self.read()
        except OperatorError as error:
            raise usage.UsageError(error.sentence) from error

    def read(self) -> Settings:
        """
        Read the settings from the options and from the settings file as it is now.

        Raises:
            OperatorError: A setting is invalid; see `make_settings`.
        """
        return make_settings(self._from_file() | self._from_options())

    def _from_file(self) -> dict[str, list[Given]]:
        path = self["config"]
        return {} if path is None else read_file(path)

    def _from_options(self) -> dict[str, list[Given]]:
        given: dict[str, list[Given]] = {}
        for choice in CHOICES:
            if choice.repeatable:
                texts = self._repeated.get(choice.name, [])
            else:
                texts = [] if self[choice.name] is None else [self[choice.name]]
            if texts:
                given[choice.name] = [Given(text, f"--{choice.name}") for text in texts]
        return given

    def getUsage(self, width: int | None = None) -> str:
        columns = width or int(os.environ.get("COLUMNS", "80"))
        return f"{super().getUsage(columns)}\n{installed_and_examples(columns)}"


def check_folder(twistd: Mapping[str, Any]) -> None:
    """
    Check that twistd can write its files in the current folder. Otherwise it would fail
    with a traceback, after the service has been made.

    Args:
        twistd: The options of twistd, which stand before ``kvd``.

    Raises:
        UsageError: It cannot write them.
    """
    written = []
    if VARIABLE not in os.environ:
        # The new daemon of an upgrade replaces the file, or warns that it cannot: it is
        # root's, if twistd has become another user since.
        written += [(twistd["pidfile"], "number", "--pidfile=")]
    if not (twistd["nodaemon"] or twistd["logfile"] or twistd["syslog"]):
        written += [("twistd.log", "log", "--logfile=PATH")]
    for name, what, option in written:
        path = os.path.join(twistd["rundir"] or ".", name)
        there = path if os.path.exists(path) else os.path.dirname(path)
        if name and not os.access(there, os.W_OK):
            raise usage.UsageError(
                f"twistd may not write its {what} to {os.path.abspath(path)}: start it"
                f" in a folder where it may, or with {option} before kvd"
            )
