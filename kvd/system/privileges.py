"""
The user that the daemon will run as: ``twistd --uid`` drops root's privileges only
after the service was made.

Files that are made before that, for use after it, must belong to that user; and whether
they can be used must be checked as that user.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kvd.errors import BadSetting
from kvd.settings import User


def user_to_be(twistd: Mapping[str, Any] | None) -> User | None:
    """
    The user that twistd's own options (``--uid``, ``--gid``) will make this process run
    as; None if it stays as it is.

    Raises:
        BadSetting: There is no such user.
    """
    if twistd is None or os.geteuid() != 0:
        return None
    uid, gid = twistd.get("uid"), twistd.get("gid")
    if uid is None and gid is None:
        return None
    if uid is None:
        uid = os.getuid()
    try:
        known = pwd.getpwuid(uid)
    except KeyError as error:
        raise BadSetting(
            f"twistd --uid {uid}: there is no user of this number; give a user's name,"
            " or a number that getent passwd shows"
        ) from error
    # As twistd does it.
    return User(uid, known.pw_gid if gid is None else gid)


@contextmanager
def acting_as(user: User | None) -> Iterator[None]:
    """
    Run with the rights of a user, and no others; None changes nothing.
    """
    if user is None:
        yield
        return
    groups, uid, gid = os.getgroups(), os.geteuid(), os.getegid()
    try:
        os.setgroups(_groups_of(user))
        os.setegid(user.gid)
        os.seteuid(user.uid)
        yield
    finally:
        os.seteuid(uid)
        os.setegid(gid)
        os.setgroups(groups)


def _groups_of(user: User) -> list[int]:
    return os.getgrouplist(pwd.getpwuid(user.uid).pw_name, user.gid)
