"""
The end of ``twistd kvd --help``: what can be chosen, and how it is written.
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

_WRITING = """\
Addresses:
  tcp:8080                        all IPv4 interfaces
  tcp:8080:interface=127.0.0.1    one interface
  tcp:8080:interface=::           all IPv6 interfaces; one is ::1, or [::1]
  127.0.0.1:8080, [::1]:8080      the same for one interface, in short
  unix:/run/kvd.socket:mode=660   a Unix socket and its permissions
  systemd:NAME, systemd           sockets that systemd gives: of a name, or all
  Others take backlog=N, how many connections may wait to be accepted (4096).
  Nothing but kvd guards an address: any client that reaches it may write.
  --status takes one too, but not of systemd; a TCP port alone is one of
  127.0.0.1 there.

Sizes, times and paths:
  Sizes are bytes, or have a unit: 16KiB or 16k is 16384, 16kB is 16000.
  Times are seconds, or have a unit: 500ms, 10s, 5m, 1h, 1d; 7d is the most.
  Relative paths count from the current folder, in the settings file too; ~ is
  your home folder.

The settings file:
  TOML with the names of these options as keys; the limits (--max-... and the
  timeouts but --drain-timeout) stand in a table [limits], dialects in a table
  [dialects] as "/prefix/" = "name". An option given here replaces what the
  file says of it.

Examples:
  twistd -n kvd
  twistd -n kvd --procs 4 --store file:/srv/values --listen tcp:80
  twistd -n kvd --procs 0 --listen unix:/run/kvd.socket --durability process
  twistd -n kvd --config /etc/kvd.toml --access-log - --status tcp:8081
"""


def installed_and_examples(width: int) -> str:
    """
    The policies, stores and dialects that are installed, each with its
    sentence, then how settings are written.
    """
    return "\n".join(
        [
            _listed("Policies", IPolicyDeclaration, width),
            _listed("Stores", IStoreDeclaration, width),
            _listed("Dialects", IDialectDeclaration, width),
            _WRITING,
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
