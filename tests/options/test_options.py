"""
The command line of ``twistd kvd``.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterable
from contextlib import redirect_stdout

import pytest
from twisted.python import usage
from twisted.scripts._twistd_unix import ServerOptions
from twisted.trial.unittest import SynchronousTestCase

from kvd import __version__
from kvd.options import Options
from kvd.options.choices import CHOICES
from kvd.settings import (
    CorsChoice,
    DialectChoice,
    Limits,
    Settings,
    StoreLocation,
    SystemdAddress,
    TCPAddress,
    UNIXAddress,
)
from kvd.system.inherited import VARIABLE
from tests.declared import declare_doubles

FALLBACK = ("--fallback-store", "null:", "off")


class OptionsCase(SynchronousTestCase):
    """
    A test case with options and declared doubles.
    """

    def setUp(self) -> None:
        declare_doubles(self)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = os.path.realpath(folder.name)

    def settings(self, *words: str) -> Settings:
        """
        The settings of a command line.
        """
        options = Options()
        options.parseOptions(words)
        return options.settings

    def refusal(self, *words: str) -> str:
        """
        The message with which a command line is refused.
        """
        with pytest.raises(usage.UsageError) as caught:
            Options().parseOptions(words)
        return str(caught.value)

    def write(self, text: str) -> str:
        """
        Make a settings file.
        """
        path = os.path.join(self.folder, "kvd.toml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def check_refusals(self, rows: Iterable[tuple[list[str], list[str]]]) -> None:
        """
        Check that each command line is refused, with all the parts in the message.
        """
        for words, parts in rows:
            sentence = self.refusal(*words)
            for part in parts:
                assert part in sentence, f"{words}: {sentence}"


class UnderTwistdTests(OptionsCase):
    """
    How twistd reports a mistake.
    """

    def ended(self, *words: str, **twistd: object) -> str:
        """
        What a start ends with.

        Args:
            words: Behind ``kvd``.
            twistd: Options before it that are not as by default.
        """
        options = Options()
        options.parent = ServerOptions()
        options.parent.update({"nodaemon": True, "rundir": self.folder} | twistd)
        with pytest.raises(SystemExit) as caught:
            options.parseOptions(words)
        return str(caught.value)

    def test_it_is_one_sentence(self) -> None:
        """
        By itself, twistd would print all of --help first.
        """
        for words, sentence in (
            (["--procs=x"], "kvd: --procs: 'x' is not a number of processes: "),
            (["--prox=1"], "kvd: option --prox not recognized; did you mean --procs?"),
            (["there"], "kvd: 'there' belongs to no option: "),
        ):
            said = self.ended(*words)
            assert said.startswith(sentence)
            assert said.endswith(" Try: twistd kvd --help")
            assert 1 == len(said.splitlines())

    def test_a_folder_where_twistd_may_not_write_is_named(self) -> None:
        """
        Before anything is opened; twistd itself would print a traceback.
        """
        allowed = os.access
        self.patch(
            os,
            "access",
            lambda path, mode: path != self.folder and allowed(path, mode),
        )
        said = self.ended()
        assert f"may not write its number to {self.folder}/twistd.pid" in said
        assert "with --pidfile= before kvd" in said

        said = self.ended(pidfile="", nodaemon=False)
        assert f"may not write its log to {self.folder}/twistd.log" in said
        # In an upgrade, the file may be root's, and can be replaced all the same.
        self.patch(os, "environ", os.environ | {VARIABLE: "3"})
        said = self.ended(nodaemon=False)
        assert f"may not write its log to {self.folder}/twistd.log" in said


class ChosenTests(OptionsCase):
    """
    What options set.
    """

    def test_nothing_given_is_the_default(self) -> None:
        """
        Without options kvd serves ./values on port 8080 of the loopback interface, with
        a process for each processor that it may use.
        """
        self.patch(os, "sched_getaffinity", lambda pid: {0, 3, 5})

        expected = Settings(store=StoreLocation("file", os.path.abspath("values")))
        assert 3 == self.settings().procs
        assert expected == self.settings("--procs", "1")

    def test_all_options_together(self) -> None:
        """
        Every option reaches its setting.
        """
        expected = Settings(
            listen=(
                TCPAddress("::1", 80),
                UNIXAddress("/run/kvd"),
                SystemdAddress("web"),
            ),
            store=StoreLocation("file", "/srv/values"),
            policy="shared",
            shadow="reuseport",
            procs=0,
            durability="process",
            dialects=(DialectChoice("/", "classic"), DialectChoice("/a=b/", "plain")),
            cors=(
                CorsChoice("/a=b/", ("https://a.example", "http://[::1]:3000")),
                CorsChoice("/b/", ("*",)),
            ),
            allowed_hosts=("kvd.example", "[2001:db8::1]"),
            access_log="/var/log/kvd",
            status=TCPAddress("127.0.0.1", 8081),
            record="/var/log/record",
            drain_seconds=0.5,
            limits=Limits(
                head_bytes=4096,
                head_fields=20,
                target_bytes=1024,
                value_bytes=5 * 1024**3,
                head_seconds=1.0,
                body_seconds=2.0,
                reader_seconds=3.0,
                idle_seconds=3600.0,
                connections=7,
            ),
        )

        assert expected == self.settings(
            *["-l", "tcp:80:interface=[::1]", "--listen=unix:/run/kvd"],
            *["--listen", "systemd:web"],
            *["--store", "file:/srv/values", "--policy", "shared", "--procs", "0"],
            *["--shadow", "reuseport"],
            *["--durability", "process", "--dialect", "/=classic"],
            *["--dialect", "/a=b/=plain", "--access-log", "/var/log/kvd"],
            *["--cors", "/a=b/=https://a.example  http://[::1]:3000"],
            *["--cors", "/b/=*"],
            *["--allowed-host", "KVD.example.", "--allowed-host=[2001:DB8::1]"],
            *["--status", "tcp:8081"],
            *["--record", "/var/log/record"],
            *["--drain-timeout", "500ms", "--max-head", "4KiB", "--max-fields", "20"],
            *["--max-target", "1k", "--max-value", "5GiB", "--head-timeout", "1"],
            *["--body-timeout", "2s", "--reader-timeout", "3", "--idle-timeout", "1h"],
            *["--max-connections", "7"],
        )

    def test_short_letters(self) -> None:
        """
        Common options have a short form.
        """
        long = self.settings(
            *["--listen", "tcp:1", "--store", "file:a", "--policy", "shared"],
            *["--procs", "2", "--durability", "process", "--access-log", "-"],
        )

        assert long == self.settings(
            *["-l", "tcp:1", "-s", "file:a", "-p", "shared", "-j", "2"],
            *["-d", "process", "-a", "-"],
        )

    def test_the_last_of_several_wins(self) -> None:
        """
        A setting with one value takes the last one given.
        """
        assert 3 == self.settings("--procs", "2", "--procs", "3").procs

    def test_everything_can_be_given_back_its_default(self) -> None:
        """
        Every default can be written as text, so the command line can undo a setting of
        the file.
        """
        words = [
            word
            for choice in CHOICES
            for text in choice.defaults
            for word in (f"--{choice.name}", text)
        ]

        assert self.settings() == self.settings(*words)

    def test_paths_are_made_absolute(self) -> None:
        """
        The store, the logs and the socket stay where they are when twistd changes its
        folder.
        """
        chosen = self.settings(
            *["-s", "file:a", "-a", "b", "-l", "unix:c", "--record", "d"]
        )

        here = os.getcwd()
        assert StoreLocation("file", f"{here}/a") == chosen.store
        assert f"{here}/b" == chosen.access_log
        assert (UNIXAddress(f"{here}/c"),) == chosen.listen
        assert f"{here}/d" == chosen.record

    def test_the_status_site_is_local_by_default(self) -> None:
        """
        A bare port is not on all interfaces, as it is for ``--listen``.
        """
        assert self.settings().status is None
        assert TCPAddress("127.0.0.1", 81) == self.settings("--status=tcp:81").status
        assert (
            TCPAddress("0.0.0.0", 81)
            == self.settings("--status=tcp:81:interface=0.0.0.0").status
        )
        assert UNIXAddress("/run/s", 0o600) == (
            self.settings("--status=unix:/run/s:mode=600").status
        )

    def test_nothing_is_touched(self) -> None:
        """
        Reading options creates no folder and no file.
        """
        places = [f"file:{self.folder}/a", f"{self.folder}/b", f"unix:{self.folder}/c"]

        self.settings("-s", places[0], "-a", places[1], "-l", places[2])

        assert [] == os.listdir(self.folder)

    def test_a_small_head_limits_the_target_too(self) -> None:
        """
        The target is part of the head, so it need not be limited separately.
        """
        assert 4096 == self.settings("--max-head", "4KiB").limits.target_bytes


class RefusedTests(OptionsCase):
    """
    An error names the value, where it stands, and what would be right.
    """

    def test_unknown_names_are_answered_with_the_known(self) -> None:
        """
        The known names are listed, and the closest one is suggested.
        """
        self.check_refusals(
            [
                (
                    ["--policy", "reuse-port"],
                    ["--policy: ", "'reuse-port'", "reuseport, shared", "Did you mean"],
                ),
                (["--shadow", "of"], ["--shadow: ", "no policy named 'of'"]),
                (["--policy", ""], ["no policy named ''", "reuseport, shared"]),
                (
                    ["--store", "file"],
                    ["'file'", "such as file:./values; known: file:"],
                ),
                (["--store", "fil:x"], ["--store: ", "'fil'", "known: file", "mean"]),
                (
                    ["--store", "./values"],
                    ["'./values'", "file:./values", "known: file:"],
                ),
                (["--dialect", "/=clasic"], ["'clasic'", "classic, plain", "Did you"]),
                (
                    ["--durability", "disc"],
                    ["'disc'", "disk (", "process (", "'disk'?"],
                ),
            ]
        )

    def test_broken_plugins_are_named_with_their_error(self) -> None:
        """
        A policy that cannot be loaded ends the start, and so does an object that is not
        a policy.
        """
        self.check_refusals(
            [
                (
                    ["--policy", "broken"],
                    [
                        "'broken' is declared as tests.declared.missing",
                        "AttributeError",
                    ],
                ),
                (
                    ["--policy", "mistaken"],
                    ["'mistaken'", "does not provide kvd.interfaces.IDispatchPolicy"],
                ),
            ]
        )

    def test_numbers_out_of_bounds_are_refused(self) -> None:
        """
        The message has the bounds.
        """
        self.check_refusals(
            [
                (["--procs", "-1"], ["--procs: '-1'", "from 0 to 4096, or auto"]),
                (["--procs", "many"], ["--procs: 'many'", "from 0 to 4096, or auto"]),
                (["--procs", "4097"], ["--procs: '4097'"]),
                (["--max-head", "0"], ["--max-head: '0'", "from 256B to 1MiB"]),
                (
                    ["--max-fields", "0"],
                    ["--max-fields: '0' is not a number of fields"],
                ),
                (["--max-value", "0"], ["--max-value: '0'", "from 1B", "unlimited"]),
                (["--max-value", "x"], ["--max-value: 'x' is not a size", "unlimited"]),
                (["--max-connections", "none"], ["'none' is not a number of connect"]),
                (["--head-timeout", "0"], ["--head-timeout: '0'", "above 0"]),
                (["--body-timeout", "-5"], ["--body-timeout: '-5'", "above 0"]),
                (["--reader-timeout", "nan"], ["--reader-timeout: 'nan'"]),
                (["--idle-timeout", "inf"], ["--idle-timeout: 'inf'", "7d"]),
                (["--drain-timeout", "1 week"], ["--drain-timeout: '1 week'"]),
            ]
        )

    def test_invalid_locations_are_refused(self) -> None:
        """
        Addresses, prefixes and paths.
        """
        self.check_refusals(
            [
                (["--listen", "8080"], ["--listen: '8080'", "give tcp:PORT"]),
                (["--status", "on"], ["--status: 'on'", "give tcp:PORT", "or off"]),
                (["--store", "file:"], ["--store: a folder needs a name"]),
                (["--access-log", ""], ["--access-log: ''", "- for standard output"]),
                (["--access-log", "/var/log/"], ["'/var/log/' is not a file"]),
                (["--record", ""], ["--record: ''", "the path of one, or off"]),
                (["--record", "/var/log/"], ["'/var/log/' is not a file"]),
                (["--dialect", "classic"], ["'classic'", "PREFIX=NAME"]),
                (["--cors", "https://a"], ["'https://a'", "PREFIX=ORIGINS"]),
                (["--cors", "/a=*"], ["'/a'", "begins and ends"]),
                (["--cors", "/=https://A"], ["'https://A'", "in lower case"]),
                (["--cors", "/=https://a/"], ["'https://a/'", "without a path"]),
                (["--cors", "/=null"], ["'null' is not an origin"]),
                (["--cors", "/=* http://a"], ["allows all origins, and others"]),
                (["--users", ""], ["--users: '' is not a file"]),
                (["--users", "/none"], ["--users: ", "/none cannot be read"]),
            ]
        )

    def test_prefixes_are_whole_segments(self) -> None:
        """
        A prefix is written as a path in a URL, with a slash at both ends.
        """
        shapes = ["", "a/", "/a", "//", "/a//b/", "/a?/", "/a%2Fb/", "/%/", "/ /"]
        for prefix in [*shapes, "/./", "/a/../", "/%2e/", "/.%2E/a/"]:
            self.check_refusals(
                [([f"--dialect={prefix}=plain"], [repr(prefix), "begins and ends"])]
            )

    def test_a_tilde_is_the_home_folder(self) -> None:
        """
        A shell replaces it only where it begins a word.
        """
        home = os.path.expanduser("~")
        config = self.write('record = "~/record"\n')
        settings = self.settings(
            *["--store=file:~/values", "--access-log=~/log", "--control=~/control"],
            *["--listen=unix:~/socket", f"--config={config}"],
        )
        assert StoreLocation("file", f"{home}/values") == settings.store
        assert f"{home}/log" == settings.access_log
        assert f"{home}/control" == settings.control
        assert f"{home}/record" == settings.record
        assert (UNIXAddress(f"{home}/socket"),) == settings.listen
        self.check_refusals(
            [
                (
                    [f"--{option}~nobody.there/x"],
                    ["'~nobody.there/x'", "~nobody.there is no user's home folder"],
                )
                for option in ("store=file:", "record=", "config=", "listen=unix:")
            ]
        )

    def test_what_is_no_host_is_refused(self) -> None:
        """
        With a port it is not a host, and a star stands only by itself.
        """
        assert ("*",) == self.settings("--allowed-host", "*").allowed_hosts
        wrong = ["", ".", "kvd:80", "[::1]:80", "::1", "[::g]", "*.kvd", "a b", "a/b"]
        for text in [*wrong, "http://kvd", "b\xfccher.example", "u@h", "%zz", "[]"]:
            self.check_refusals(
                [([f"--allowed-host={text}"], [repr(text), "is not a host"])]
            )

    def test_fields_to_keep_are_named(self) -> None:
        """
        By their whole names or their beginnings; not those that others act on.
        """
        assert () == self.settings().keep_fields
        assert ("x-oc-mtime", "x-amz-meta-*") == self.settings(
            "--keep-fields", "X-OC-Mtime, x-amz-meta-*,x-oc-mtime"
        ).keep_fields
        assert () == self.settings("--keep-fields=none").keep_fields
        for text, expected in (
            ("content-type", "'content-type' is not the name of a field"),
            ("x-a,", "'' is not the name of a field"),
            ("x-*-a", "'x-*-a' is not the name"),
            ("x-a b", "'x-a b' is not the name"),
            ("X-Accel-Redirect", "'X-Accel-Redirect' cannot be kept"),
        ):
            assert expected in self.refusal(f"--keep-fields={text}")

    def test_proxies_and_formats_of_logs(self) -> None:
        """
        Networks are written in one way, whatever way they were given in.
        """
        chosen = self.settings(
            *["--trusted-proxies", "127.0.0.1, 10.0.0.0/8,2001:DB8:0::/32 ,unix"],
            *["--forwarded-field", "forwarded", "--access-log-format", "combined"],
            *["--log-format=json", "--listen=tcp:1:proxy=1", "--listen=unix:a:proxy=1"],
        )
        expected = "127.0.0.1/32", "10.0.0.0/8", "2001:db8::/32", "unix"
        assert expected == chosen.trusted_proxies
        assert "forwarded" == chosen.forwarded_field
        assert ("combined", "json") == (chosen.access_log_format, chosen.log_format)
        self.check_refusals(
            [
                (
                    ["--trusted-proxies=10.0.0.1/8"],
                    ["--trusted-proxies: '10.0.0.1/8'", "did you mean 10.0.0.0/8?"],
                ),
                (["--trusted-proxies=proxy.example"], ["'proxy.example'", "or off"]),
                (["--trusted-proxies=::1,"], ["'' is not a network: give networks"]),
                (
                    ["--forwarded-field=x-real-ip"],
                    ["'x-real-ip' is not a field of proxies: give x-forwarded-for"],
                ),
                (
                    ["--access-log-format=combine"],
                    ["plain (blanks between all fields)", "Did you mean 'combined'?"],
                ),
                (["--log-format=text"], ["'text' is not a format of the log: give"]),
                (
                    ["--listen=tcp:1:proxy=1"],
                    [
                        "http://0.0.0.0:1 has proxy=1",
                        "give the networks of the proxies",
                    ],
                ),
                (
                    ["--listen=unix:/a:proxy=1", "--trusted-proxies=10.0.0.0/8"],
                    ["unix:/a has proxy=1", "give unix in --trusted-proxies"],
                ),
            ]
        )

    def test_two_logs_in_one_file_are_refused(self) -> None:
        """
        However its path is written.
        """
        self.check_refusals(
            [
                (
                    ["--access-log=log", "--record=./log"],
                    ["--access-log and --record both write", "/log'"],
                )
            ]
        )

    def test_what_can_be_named_once_is_not_named_twice(self) -> None:
        """
        A second store could be meant to be used beside the first one, which would be
        left out silently. In any form of the option; the same once more does no harm,
        and a number that comes later counts, as in most programs.
        """
        given = [
            (["--store=null:", "-sfile:/v"], "--store", "null:", "file:/v"),
            (["--fallback", "null:", "--fallback-store=off"], *FALLBACK),
            (["--users=/a", "--users=/b"], "--users", "/a", "/b"),
            (["-a/a", "-a", "/b"], "--access-log", "/a", "/b"),
            (["--record=/a", "--record=/b"], "--record", "/a", "/b"),
            (["--status=tcp:0", "--status=off"], "--status", "tcp:0", "off"),
            (["--near=off", "--near=file:/n"], "--near", "off", "file:/n"),
            (["-c/a", "--config=/b"], "--config", "/a", "/b"),
        ]
        for words, option, first, second in given:
            assert self.refusal(*words) == (
                f"{option} is given twice, {first!r} and {second!r}, and only one can"
                " count: give it once"
            )
        settings = self.settings("--store=file:/v", "-s", "file:/v", "-j1", "--procs=2")
        assert StoreLocation("file", "/v") == settings.store
        assert 2 == settings.procs

    def test_a_part_of_a_near_cache_is_given_once(self) -> None:
        """
        Of two sizes, one would not count.
        """
        text = "file:/n?max-size=1GiB&max-size=2GiB"
        assert f"--near: {text!r} has a part twice: give each once" == (
            self.refusal(f"--near={text}")
        )

    def test_the_same_twice_is_refused(self) -> None:
        """
        Different forms of one address or prefix are the same.
        """
        self.check_refusals(
            [
                (
                    ["-l", "tcp:1:interface=[::1]", "-l", r"tcp:1:interface=\:\:1"],
                    ["--listen: ", "says the same as 'tcp:1:interface=[::1]'"],
                ),
                (
                    ["--dialect", "/a/=plain", "--dialect", "/%61/=classic"],
                    ["--dialect: '/%61/=classic' says the same as '/a/=plain'"],
                ),
                (
                    ["--cors", "/a/=*", "--cors", "/%61/=http://a"],
                    ["--cors: '/%61/=http://a' says the same as '/a/=*'"],
                ),
                (
                    ["--allowed-host", "kvd", "--allowed-host", "KVD."],
                    ["--allowed-host: 'KVD.' says the same as 'kvd'"],
                ),
            ]
        )

    def test_ports_that_the_kernel_chooses_are_not_the_same(self) -> None:
        """
        As many as are asked for, at one interface.
        """
        any_port = TCPAddress("127.0.0.1", 0)
        text = "tcp:0:interface=127.0.0.1"

        assert (any_port, any_port) == self.settings("-l", text, "-l", text).listen

    def test_a_target_fits_into_the_head(self) -> None:
        """
        A limit for targets above that for heads is refused.
        """
        self.check_refusals(
            [
                (
                    ["--max-head", "4KiB", "--max-target", "8KiB"],
                    ["--max-target: '8KiB'", "max-head is 4KiB"],
                )
            ]
        )

    def test_words_without_an_option_are_refused(self) -> None:
        """
        kvd takes options only.
        """
        self.check_refusals([(["./values"], ["'./values' belongs to no option"])])

    def test_an_option_without_its_value_is_no_other(self) -> None:
        """
        The option is known; the message says what is missing.
        """
        assert self.refusal("--procs").endswith("--procs requires argument")

    def test_unknown_options_are_refused(self) -> None:
        """
        The message names the option and the closest one.
        """
        self.check_refusals(
            [
                (["--prcs", "4"], ["--prcs not recognized; did you mean --procs?"]),
                (["--zzz"], ["--zzz not recognized"]),
            ]
        )


class HelpTests(OptionsCase):
    """
    What ``--help`` and ``--version`` say.
    """

    def test_help_is_enough_to_run_from(self) -> None:
        """
        It has every option with its default, and every name with its description.
        """
        text = " ".join(Options().getUsage(width=80).split())

        for choice in CHOICES:
            default = " ".join(choice.defaults) or "none"
            assert f"{choice.description} [default: {default}]" in text
        for name in ["shared One socket.", "file Values are files.", "plain As the"]:
            assert name in text
        assert "twistd -n kvd --config" in text

    def test_help_names_a_broken_plugin_without_loading_it(self) -> None:
        """
        Help works even if an installed plugin is broken.
        """
        assert "Cannot be loaded." in Options().getUsage()

    def test_help_fits_the_terminal(self) -> None:
        """
        No line is wider than 80 columns.
        """
        lines = Options().getUsage(width=80).splitlines()

        assert [] == [line for line in lines if len(line) > 80]

    def test_version_is_that_of_kvd(self) -> None:
        """
        Not Twisted's.
        """
        printed = io.StringIO()

        with redirect_stdout(printed), pytest.raises(SystemExit):
            Options().parseOptions(["--version"])

        assert f"kvd {__version__}\n" == printed.getvalue()


class ConfigTests(OptionsCase):
    """
    ``--config``: the command line overrides the file.
    """

    def test_the_file_is_read(self) -> None:
        """
        Settings that only the file has take effect.
        """
        path = self.write('procs = 2\npolicy = "shared"\n')

        chosen = self.settings("--config", path)

        assert (2, "shared") == (chosen.procs, chosen.policy)

    def test_the_command_line_wins(self) -> None:
        """
        Wherever ``--config`` stands.
        """
        path = self.write("procs = 2\n")

        assert 3 == self.settings("--procs", "3", "--config", path).procs
        assert 3 == self.settings("-c", path, "-j", "3").procs

    def test_the_command_line_replaces_lists_whole(self) -> None:
        """
        Addresses and dialects of the file are replaced, not added to.
        """
        path = self.write(
            'listen = ["tcp:1", "tcp:2"]\n[dialects]\n"/a/" = "classic"\n'
        )

        chosen = self.settings("-c", path, "-l", "tcp:3", "--dialect", "/=plain")

        assert (TCPAddress("0.0.0.0", 3),) == chosen.listen
        assert (DialectChoice("/", "plain"),) == chosen.dialects

    def test_a_wrong_value_is_named_by_key_and_file(self) -> None:
        """
        The messages are those of the command line, with the key and the file.
        """
        for text, parts in [
            ("procs = -1", [f"procs in {self.folder}/kvd.toml: '-1'", "or auto"]),
            ('policy = "x"', ["policy in ", "reuseport, shared"]),
            ('listen = ["tcp:1", "x"]', ["listen in ", "'x' is not an address"]),
            ("[limits]\nhead-timeout = nan", ["limits.head-timeout in ", "'nan'"]),
            ('[dialects]\n"/" = "x"', ["dialects in ", "'x'", "classic, plain"]),
            ("procs = \n", ["not TOML", "line 1"]),
        ]:
            self.check_refusals([(["--config", self.write(text)], parts)])

    def test_a_missing_file_is_named(self) -> None:
        """
        With its whole path and the system's reason.
        """
        self.check_refusals(
            [
                (
                    ["--config", f"{self.folder}/none.toml"],
                    [f"{self.folder}/none.toml cannot be read: No such file"],
                )
            ]
        )
