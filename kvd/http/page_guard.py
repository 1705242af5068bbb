"""
Which pages may change something.

A browser sends the passwords and certificates that it remembers for kvd with requests
of any page. A page of another site cannot send PUT or DELETE unless kvd allows it
(`kvd.http.cors`), but it can submit a form, whose method is POST. So a request that may
change something is refused if it comes from a page of another site that ``--cors`` does
not name. Programs say nothing of pages, and are not refused.

Browsers say where a request comes from in ``Sec-Fetch-Site`` (Fetch Metadata), over TLS
and at a loopback address; elsewhere its ``Origin`` tells, which has to be the host that
the request is for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kvd.errors import ForeignPage
from kvd.model.requests import Request

if TYPE_CHECKING:
    from kvd.http.cors import Cors

_HARMLESS: Final = frozenset(("GET", "HEAD", "OPTIONS"))

_OWN: Final = (b"same-origin", b"none")
"""
``none``: the user, and no page, has caused the request.
"""

_DEFAULT_PORTS: Final = {b"http": b":80", b"https": b":443"}


def check_page(request: Request, cors: Cors | None) -> None:
    """
    Refuse a request that comes from a page of another site and may change something.

    Args:
        request: Its head.
        cors: Knows the pages that may use kvd; None: no other site's may.

    Raises:
        ForeignPage: It does.
    """
    if request.method in _HARMLESS:
        return
    fields = request.fields
    site, origin = fields.get(b"sec-fetch-site"), fields.get(b"origin")
    if site is None and origin is None:
        return
    if site in _OWN if site is not None else _is_own(origin, request.host):
        return
    if cors is not None and cors.allows(request):
        return
    raise ForeignPage(
        "A page of another site may not change anything here; --cors can name its"
        " origin. A proxy in front of kvd has to leave Host as it is."
    )


def _is_own(origin: bytes | None, host: bytes | None) -> bool:
    if origin is None or host is None:
        return False
    scheme, _, authority = origin.lower().partition(b"://")
    port = _DEFAULT_PORTS.get(scheme)
    if port is None:
        return False
    return authority == host.lower().removesuffix(port)
