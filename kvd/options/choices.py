"""
All settings: one row of a table for each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from kvd.model.quantities import Count, Seconds, Size
from kvd.options.addresses import read_listen, read_status
from kvd.options.kept_fields import read_keep_fields
from kvd.options.locations import (
    read_access_log,
    read_allowed_host,
    read_control,
    read_cors,
    read_dialect,
    read_fallback_store,
    read_near,
    read_record_file,
    read_store,
    read_trusted_proxies,
)
from kvd.options.quotas import read_full, read_quota
from kvd.options.readers import (
    one_of,
    optional,
    read_file_mode,
    read_folder_mode,
    read_hang,
    read_policy,
    read_procs,
    read_shadow,
    read_switch,
    read_ttl_or_off,
    read_wait,
    read_wait_or_off,
    size_or,
)
from kvd.options.rights import read_users

_MIB: Final = 1024**2


class Form(Enum):
    """
    The TOML types that the settings file may have for a setting.
    """

    TEXT = "a string"
    WHOLE = "a whole number, or a string"
    NUMBER = "a number, or a string"
    LIST = "an array of strings"
    TABLE = "a table of strings"


@dataclass(frozen=True, slots=True)
class Choice:
    """
    A setting.
    """

    name: str
    """The name on the command line, without the dashes."""
    field: str
    """The field of `Settings`, or of `Limits` for settings in the table ``limits``."""
    read: Callable[[str], object]
    """Reads the value from a text, or raises an `OperatorError`."""
    defaults: Sequence[str]
    """One text, unless the setting may be given several times."""
    description: str
    short: str | None = None
    form: Form = Form.TEXT
    table: str | None = None
    """The table of the settings file that contains it; None: the top level."""
    key: str = ""
    """The key in the settings file, if it is not the name."""
    named_once: bool = False
    """Whether it names something of which there could be several, but is one: a second
    one on the command line would look as if it were used too."""

    @property
    def repeatable(self) -> bool:
        """
        Whether the setting may be given several times.
        """
        return self.form in (Form.LIST, Form.TABLE)


def _limit(
    name: str,
    field: str,
    read: Callable[[str], object],
    default: str,
    description: str,
) -> Choice:
    form = Form.NUMBER if isinstance(read, Seconds) else Form.WHOLE
    return Choice(name, field, read, [default], description, None, form, "limits")


CHOICES: Final[Sequence[Choice]] = (
    Choice(
        "listen",
        "listen",
        read_listen,
        ["tcp:8080:interface=127.0.0.1"],
        "An address to listen on; may be given several times.",
        "l",
        Form.LIST,
    ),
    Choice(
        "store",
        "store",
        read_store,
        ["file:./values"],
        "Where values are stored, as SCHEME:PATH.",
        "s",
        named_once=True,
    ),
    Choice(
        "fallback-store",
        "fallback_store",
        read_fallback_store,
        ["off"],
        "A store from which values are read that --store does not have, while kvd sync"
        " moves them; removals reach both; off: none.",
        named_once=True,
    ),
    Choice(
        "near",
        "near",
        read_near,
        ["off"],
        "A cache on a disk of this machine for what is read from a store that is far"
        " away, as file:PATH?max-size=SIZE&fresh=TIME&stale=TIME: how much it may take,"
        " how long the store is not asked again (0s), and how much longer older values"
        " are served while it cannot be asked (0s); off: none.",
        named_once=True,
    ),
    Choice(
        "policy",
        "policy",
        read_policy,
        ["gated"],
        "The policy that decides which worker gets a connection.",
        "p",
    ),
    Choice(
        "shadow",
        "shadow",
        read_shadow,
        ["off"],
        "A second policy, asked about each connection that the supervisor dispatches,"
        ' but not followed; "kvd status" shows what it would have done; off: none.',
    ),
    Choice(
        "procs",
        "procs",
        read_procs,
        ["auto"],
        "The number of worker processes; auto: one for each processor that kvd may use;"
        " 0: none, the twistd process itself serves.",
        "j",
        Form.WHOLE,
    ),
    Choice(
        "durability",
        "durability",
        one_of(
            "a durability",
            {
                "disk": "values survive a power cut",
                "process": "they survive a kill of kvd",
            },
        ),
        ["disk"],
        "What a change survives once PUT or DELETE is answered: disk: a power cut;"
        " process: a kill of kvd.",
        "d",
    ),
    Choice(
        "file-mode",
        "file_mode",
        read_file_mode,
        ["644"],
        "The permissions of values, whatever the umask, unless their folder has a"
        " default access control list.",
    ),
    Choice(
        "folder-mode",
        "folder_mode",
        read_folder_mode,
        ["755"],
        "The permissions of folders that kvd makes, with the same exception.",
    ),
    Choice(
        "max-size",
        "max_size",
        size_or("unlimited"),
        ["unlimited"],
        "How much all values may take, each rounded up to 4 KiB; --full says what"
        " happens then.",
        None,
        Form.WHOLE,
    ),
    Choice(
        "min-free",
        "min_free",
        size_or("off"),
        ["off"],
        "How much of the store's file system stays free.",
        None,
        Form.WHOLE,
    ),
    Choice(
        "full",
        "full",
        read_full,
        ["refuse"],
        "What happens at --max-size and --min-free: refuse: PUT is refused (507);"
        " evict: the values that were used least recently are removed.",
    ),
    Choice(
        "ttl",
        "ttl_seconds",
        read_ttl_or_off,
        ["off"],
        "How long after its PUT a value is removed, such as 30d; off: never.",
        None,
        Form.NUMBER,
    ),
    Choice(
        "quota",
        "quotas",
        read_quota,
        [],
        "The same for keys below a prefix, as PREFIX=SIZE:ttl=TIME:full=WORD, such as"
        " /ci/=10GiB or /tmp/=ttl=1d; may be given several times.",
        None,
        Form.TABLE,
        key="quotas",
    ),
    Choice(
        "dialect",
        "dialects",
        read_dialect,
        [],
        "The dialect for keys below a prefix, as PREFIX=NAME; may be given several"
        " times; the longest matching prefix counts.",
        None,
        Form.TABLE,
        key="dialects",
    ),
    Choice(
        "keep-fields",
        "keep_fields",
        read_keep_fields,
        ["none"],
        "The fields, beside Content-Type and the like, that are stored with a value and"
        " given back with it, with commas between them, such as"
        " x-oc-mtime,x-amz-meta-*; all begin with x-; none: no others.",
    ),
    Choice(
        "guess-types",
        "guess_types",
        read_switch,
        ["off"],
        "on: a value that was stored without a type gets the one that the end of its"
        " key suggests; off: no type is guessed.",
    ),
    Choice(
        "allowed-host",
        "allowed_hosts",
        read_allowed_host,
        [],
        "A host, beside localhost and 127.0.0.1, that requests to a loopback address"
        " may name (else 421), for example behind a proxy; may be given several times;"
        " * allows all.",
        None,
        Form.LIST,
        key="allowed-hosts",
    ),
    Choice(
        "cors",
        "cors",
        read_cors,
        [],
        "The origins whose pages may use the keys below a prefix, as PREFIX=ORIGINS"
        " with blanks between origins, such as /public/=https://app.example; * allows"
        " all; may be given several times; the longest matching prefix counts.",
        None,
        Form.TABLE,
        key="cors",
    ),
    Choice(
        "trusted-proxies",
        "trusted_proxies",
        read_trusted_proxies,
        ["off"],
        "The networks of proxies that kvd trusts to name their clients' addresses, with"
        " commas between them, such as 127.0.0.1,10.0.0.0/8; unix: every client of a"
        " Unix socket; off: none.",
    ),
    Choice(
        "forwarded-field",
        "forwarded_field",
        one_of(
            "a field of proxies",
            {
                "x-forwarded-for": "the addresses alone",
                "forwarded": "that of RFC 7239",
            },
        ),
        ["x-forwarded-for"],
        "The field in which the trusted proxies name the client of a request:"
        " x-forwarded-for or forwarded.",
    ),
    Choice(
        "users",
        "users",
        read_users,
        ["off"],
        'The rights file: who may read, write, delete and list which keys; "kvd user"'
        " writes it; off: every client may do everything.",
        named_once=True,
    ),
    Choice(
        "access-log",
        "access_log",
        read_access_log,
        ["off"],
        "A file that gets a line for each request; -: standard output; off: none.",
        "a",
        named_once=True,
    ),
    Choice(
        "access-log-format",
        "access_log_format",
        one_of(
            "a format of the access log",
            {
                "plain": "blanks between all fields",
                "combined": "as Apache and nginx write it",
                "json": "an object for each request",
            },
        ),
        ["plain"],
        "How requests are logged: plain: kvd's own format; combined: as Apache and"
        " nginx do; json: an object for each, with all that is known.",
    ),
    Choice(
        "log-format",
        "log_format",
        one_of(
            "a format of the log",
            {
                "plain": "lines of text",
                "json": "an object for each event",
            },
        ),
        ["plain"],
        "How twistd writes the log of kvd to a file or to standard output: plain, or"
        " json: an object for each event.",
    ),
    Choice(
        "record",
        "record",
        read_record_file,
        ["off"],
        'A file that gets a record of each connection, for "kvd simulate"; at 64 MiB it'
        " is renamed to FILE.1 and a new one begins; off: none.",
        named_once=True,
    ),
    Choice(
        "splice",
        "splice",
        read_switch,
        ["on"],
        "on: the kernel moves bodies to files where possible; off: kvd reads and writes"
        " each chunk.",
    ),
    Choice(
        "fast-path",
        "fast_path",
        read_switch,
        ["on"],
        "on: small requests that look like earlier ones are served by a compiled"
        " module, where it is installed; off: all go the same way.",
    ),
    Choice(
        "browser",
        "browser",
        read_switch,
        ["on"],
        "on: a browser that asks for a prefix gets a page that shows, uploads and"
        " deletes values; off: it gets a plain listing, as programs do.",
    ),
    Choice(
        "control",
        "control",
        read_control,
        ["auto"],
        'The Unix socket for "kvd status" and similar commands, open to this user only;'
        " auto: named after the first TCP port, in this user's runtime folder; off:"
        " none.",
    ),
    Choice(
        "status",
        "status",
        read_status,
        ["off"],
        "The address of the status site, such as tcp:8081, which only this machine can"
        " reach unless interface= is given; off: none.",
        named_once=True,
    ),
    Choice(
        "drain-timeout",
        "drain_seconds",
        read_wait,
        ["10s"],
        "How long active requests may take to finish after SIGTERM.",
        None,
        Form.NUMBER,
    ),
    Choice(
        "hang-timeout",
        "hang_seconds",
        read_hang,
        ["30s"],
        "A worker that is stopped, or busy with one thing for this long, is killed and"
        " replaced. At least 2s; others take its new connections within a second.",
        None,
        Form.NUMBER,
    ),
    _limit(
        "max-head",
        "head_bytes",
        Size(256, _MIB),
        "16KiB",
        "The largest head of a request (else 431).",
    ),
    _limit(
        "max-fields",
        "head_fields",
        Count("a number of fields", 1, 10_000),
        "100",
        "The most fields in a head (else 431).",
    ),
    _limit(
        "max-target",
        "target_bytes",
        Size(64, _MIB),
        "8KiB",
        "The longest request target (else 414); not more than the largest head.",
    ),
    _limit(
        "max-value",
        "value_bytes",
        size_or("unlimited"),
        "unlimited",
        "The largest value (else 413), or unlimited.",
    ),
    _limit(
        "head-timeout",
        "head_seconds",
        read_wait,
        "10s",
        "How long a head may take to arrive (else 408).",
    ),
    _limit(
        "body-timeout",
        "body_seconds",
        read_wait,
        "60s",
        "The longest pause in a body (else 408, and nothing is stored).",
    ),
    _limit(
        "upload-lifetime",
        "upload_seconds",
        read_wait_or_off,
        "1d",
        "How long an upload that broke off can be resumed, if its client asks for that;"
        " off: never.",
    ),
    _limit(
        "reader-timeout",
        "reader_seconds",
        read_wait,
        "60s",
        "How long a client may read nothing of a reply (else it is disconnected).",
    ),
    _limit(
        "idle-timeout",
        "idle_seconds",
        read_wait,
        "10m",
        "How long a connection may wait for its next request (else it is closed).",
    ),
    _limit(
        "max-connections",
        "connections",
        Count("a number of connections", 1, 1_000_000),
        "8192",
        "The most open connections of a worker; further ones wait to be accepted.",
    ),
    _limit(
        "max-address-connections",
        "address_connections",
        optional(Count("a number of connections", 1, 1_000_000)),
        "unlimited",
        "The most open connections of one address (else 429, and closed),"
        " or unlimited.",
    ),
    _limit(
        "max-address-rate",
        "address_rate",
        optional(Count("a number of requests", 1, 1_000_000)),
        "unlimited",
        "The most requests per second of one address (else 429), or unlimited; with it,"
        " all requests go the same way, as with --fast-path off.",
    ),
)
