"""
The end of ``twistd kvd --help``: the installed plugins, and how to write settings.
"""

from __future__ import annotations

import textwrap

from kvd.plugins import (
    IDeclaration,
    IDialectDeclaration,
    IPolicyDeclaration,
    IStoreDeclaration,
    declared,
)

WRITING = """\
Addresses:
  tcp:8080                        all IPv4 interfaces
  tcp:8080:interface=127.0.0.1    one interface
  tcp:8080:interface=::           all IPv6 interfaces; one is ::1, or [::1]
  127.0.0.1:8080, [::1]:8080      short forms for one interface
  unix:/run/kvd.socket:mode=660   a Unix socket and its permissions
  systemd:NAME, systemd           sockets from systemd: those of a name, or all
  The others take backlog=N: how many connections may wait to be accepted
  (4096).
  Without --users, any client that reaches an address may read and write.
  --status takes an address too, but not systemd; there, a TCP port without an
  interface is one of 127.0.0.1.

Sizes, times and paths:
  Sizes are bytes, or have a unit: 16KiB or 16k is 16384, 16kB is 16000.
  Times are seconds, or have a unit: 500ms, 10s, 5m, 1h, 1d; 7d is the most.
  Relative paths start from the current folder, in the settings file too; ~ is
  your home folder.

The settings file:
  TOML with the names of these options as keys; the limits (--max-... and the
  timeouts except --drain-timeout) are in a table [limits], dialects in a table
  [dialects] as "/prefix/" = "name". An option on the command line replaces the
  setting in the file.

Examples:
  twistd -n kvd
  twistd -n kvd --procs 4 --store file:/srv/values --listen tcp:80
  twistd -n kvd --procs 0 --listen unix:/run/kvd.socket --durability process
  twistd -n kvd --listen tls:443:cert=/etc/kvd/kvd.pem:key=/etc/kvd/kvd.key
  twistd -n kvd --config /etc/kvd.toml --access-log - --status tcp:8081
"""


def installed_and_examples(width: int) -> str:
    """
    List the installed policies, stores and dialects with their descriptions, then
    explain how to write settings.
    """
    return "\n".join(
        [
            _listed("Policies", IPolicyDeclaration, width),
            _listed("Stores", IStoreDeclaration, width),
            _listed("Dialects", IDialectDeclaration, width),
            WRITING,
        ]
    )


def _listed(title: str, kind: type[IDeclaration], width: int) -> str:
    known = declared(kind)
    column = max(map(len, known), default=0) + 4
    lines = [f"{title}:"]
    for name, declaration in known.items():
        lines += textwrap.wrap(
            declaration.description,
            width,
            initial_indent=f"  {name}".ljust(column),
            subsequent_indent=" " * column,
        )
    return "\n".join(lines) + "\n"
