"""
What is compiled of kvd, and how it is found.

kvd is whole without it: each of these modules does what Python code elsewhere does too,
faster. ``splice.c`` belongs to `kvd.net.splice`, ``reactor.c`` to `kvd.net.reactor`;
``dispatch.c``, ``gate.c``, ``lane.c``, ``lone.c`` and ``timer.c`` are one module, which
belongs to `kvd.dispatch.dispatcher`. All other files are one module, which belongs to
`kvd.http.fast_path`, and ``fast_path.c`` says what it does. Others call it too:
`kvd.http.wire.fields`, `kvd.http.wire.replies` and `kvd.http.wire.targets` its
``fields.c``, ``reply.c`` and ``target.c``; `kvd.ipc.row` its ``counts.c``;
`kvd.store.conferring` and `kvd.store.folders` its ``folder.c``, and `kvd.store.locks`
its ``offset.c``;
`kvd.store.attribute`, `kvd.store.epochs` and `kvd.store.reading` its ``attribute.c``;
`kvd.store.epochs`, `kvd.store.exchange`, `kvd.store.placing` and `kvd.store.unwritten`
its ``place.c``, `kvd.store.space` its ``publish.c``, and `kvd.store.replaced` and
`kvd.store.uploads` its ``put.c``; `kvd.store.usage`,
`kvd.store.removing`, `kvd.store.candidates` and `kvd.store.looking` its ``usage.c``,
``remove.c``, ``candidates.c`` and ``look.c``.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


def compiled(name: str) -> ModuleType | None:
    """
    A compiled module of this package; None if kvd was installed where nothing could
    compile it.
    """
    try:
        return import_module(f"{__name__}.{name}")
    except ImportError:
        return None
