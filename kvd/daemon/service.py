"""
Puts the parts together: the service that ``twistd kvd`` runs.
"""

from __future__ import annotations

import os
from dataclasses import replace
from importlib.util import find_spec

from twisted.application.service import IService

from kvd.access.rights_file import read_rights_file
from kvd.daemon.opening import open_sockets
from kvd.daemon.single_process import SingleProcessService
from kvd.daemon.supervisor import SupervisorService
from kvd.daemon.systemd.notifying import take_notifier
from kvd.daemon.systemd.sockets import leave, take_inherited
from kvd.daemon.upgrade.origin import origin_of
from kvd.daemon.written_files import begin_log, check_written_files
from kvd.dispatch.arrangement import ChosenPolicy
from kvd.dispatch.distribution import choose_policy, choose_shadow
from kvd.dispatch.reuseport_programs import ReuseportPrograms
from kvd.errors import BadSetting, OperatorError
from kvd.interfaces import IEngineStoreMaker, IHeldStoreMaker, IStoreMaker
from kvd.ipc.scoreboard import create_scoreboard
from kvd.net.credentials import warn_of_access
from kvd.net.reactor import install_adoption, most_descriptors
from kvd.options import Options
from kvd.settings import DEFAULT_MODES, Settings, User
from kvd.store.places import overlap
from kvd.system.clock import measure_monotonically
from kvd.system.descriptors import check_descriptor_limit, raise_descriptor_limit
from kvd.system.inherited import VARIABLE, reset_signals
from kvd.system.privileges import acting_as, user_to_be
from kvd.workers.changes import ROWS
from kvd.workers.loading import load_store

__all__ = ["Options", "makeService"]


def makeService(options: Options) -> IService:
    """
    Make the service for the settings.

    Opens the listening sockets and prepares the store now, because twistd has not left
    its terminal yet and the operator still sees an error.

    Raises:
        SystemExit: The settings ask for something impossible; a sentence says what.
    """
    # Not at the top: importing the reactor installs one.
    from twisted.internet import reactor

    # Before anything of kvd's is scheduled.
    measure_monotonically(reactor)
    install_adoption(reactor)
    reset_signals()
    settings = options.settings
    notifier = take_notifier(os.environ)
    origin = origin_of(options.parent, options.pid_file)
    predecessor = None
    raise_descriptor_limit(most_descriptors(reactor))
    try:
        if VARIABLE in os.environ:
            # Not at the top: most daemons take the place of no other.
            from kvd.daemon.upgrade.predecessor import take_predecessor

            predecessor = take_predecessor(os.environ)
            predecessor.check(settings)
        check_status_site(settings)
        inherited = take_inherited(os.environ)
        chosen = choose_policy(settings.policy, max(1, settings.procs))
        shadow = choose_first_shadow(settings, chosen)
        # As many as any policy may need: later this process may have no right to make
        # more.
        size = max(settings.procs, chosen.arrangement.group_size)
        size = size if settings.procs else 1
        check_descriptor_limit(settings, size)
        user = user_to_be(options.parent)
        maker = load_store(settings.store, settings.modes, user)
        check_engine(settings, maker)
        maker.prepare(settings.store.path)
        check_fallback_store(settings, user)
        near = prepare_near(settings, user)
        held = None
        if IHeldStoreMaker.providedBy(maker):
            held = IHeldStoreMaker(maker).hold(settings.store.path)
        bounding = None
        if settings.bounds is not None:
            # Not at the top: only a store with limits needs it.
            from kvd.daemon.bounding import open_bounding

            locked = None if predecessor is None else predecessor.manifest.totals
            bounding = open_bounding(settings, near or maker, user, locked)
        check_written_files(settings, user)
        begin_log(options.parent, user)
        check_read_again(settings, user)
        warn_of_access(settings.credentials, user)
        if predecessor is None:
            sockets = open_sockets(settings, size, inherited)
        else:
            sockets = predecessor.sockets(settings)
        leave(inherited)
    except OperatorError as error:
        raise SystemExit(f"kvd: {error.sentence}") from error
    memory = create_scoreboard(max(1, settings.procs), ROWS)
    if not settings.procs:
        return SingleProcessService(settings, sockets, notifier, memory, bounding, held)
    programs = ReuseportPrograms(sockets.groups, memory)
    # Now, because twistd --uid drops the privilege that loading a program may need.
    programs.prepare(chosen)
    return SupervisorService(
        settings,
        sockets,
        notifier,
        memory,
        bounding,
        programs,
        chosen,
        shadow,
        options.read,
        origin,
        held,
        predecessor,
    )


def check_read_again(settings: Settings, user: User | None) -> None:
    """
    Check that kvd can read the rights file again when it runs as another user.

    Raises:
        BadSetting: It cannot, so it could not be changed without a restart.
    """
    if user is None or settings.users is None:
        return
    path = settings.users.path
    with acting_as(user):
        try:
            read_rights_file(path)
        except BadSetting as error:
            raise BadSetting(
                f"--users: the user {user.uid} that kvd will run as cannot read the"
                f" rights file {path}, which it does on SIGHUP: give the file to that"
                f" user, or run chgrp {user.gid} {path} and chmod 640 {path}"
            ) from error


def check_fallback_store(settings: Settings, user: User | None) -> None:
    """
    Check the store for what the first one does not have. Unlike that, it must exist.

    Args:
        settings: All settings.
        user: The user that this process will switch to.

    Raises:
        BadSetting: The two stores overlap, or values of the first one may go by
            themselves.
        StoreUnusable: It does not exist, or cannot be used.
    """
    location = settings.fallback_store
    if location is None:
        return
    if overlap(location, settings.store):
        raise BadSetting(
            f"{location} cannot be both --store and --fallback-store, nor can one be in"
            " the folder of the other: give the store where the values are as"
            " --fallback-store, and a new one as --store"
        )
    bounds = None if settings.near is not None else settings.bounds
    if bounds is not None and any(
        quota.evicts or quota.ttl_seconds is not None for quota in bounds.quotas
    ):
        raise BadSetting(
            f"{location} as --fallback-store would show what it replaced, where a"
            " limit removes a value of --store: leave out --ttl and --full evict, also"
            " of --quota, until all values have been copied"
        )
    maker = load_store(location, settings.modes, user)
    if IHeldStoreMaker.providedBy(maker):
        with acting_as(user):
            os.close(IHeldStoreMaker(maker).hold(location.path))
    maker.prepare(location.path)


def prepare_near(settings: Settings, user: User | None) -> IStoreMaker | None:
    """
    Prepare the near cache.

    Args:
        settings: All settings.
        user: The user that this process will switch to.

    Returns:
        What opens it; None: there is none.

    Raises:
        BadSetting: It cannot be beside other settings.
        StoreUnusable: It cannot be used.
    """
    near = settings.near
    if near is None:
        return None
    for store in (settings.store, settings.fallback_store):
        if store is not None and overlap(near.store, store):
            raise BadSetting(
                f"{near.store} cannot be the near cache of {store}: it is the store"
                " itself, or one is in the folder of the other, and a cache removes"
                " what was not read for long: give another folder as --near"
            )
    if replace(settings, near=None).bounds is not None:
        raise BadSetting(
            "the store has limits, and --near is for one on other machines: leave out"
            " --near, or --max-size, --min-free, --ttl and --quota"
        )
    # Not at the top: only a near cache needs it.
    from kvd.near.folder import expect_cache

    expect_cache(near.store)
    maker = load_store(near.store, settings.modes, user)
    maker.prepare(near.store.path)
    return maker


def check_status_site(settings: Settings) -> None:
    """
    Raises:
        BadSetting: A status site is asked for, and what it needs is not installed.
    """
    if settings.status is not None and find_spec("prometheus_client") is None:
        raise BadSetting(
            "--status needs prometheus-client: run pip install '.[status]' in the"
            " folder of kvd's sources"
        )


def check_engine(settings: Settings, maker: IStoreMaker) -> None:
    """
    Raises:
        BadSetting: The store is an engine on other machines, and a setting is about
            files on this one.
    """
    if not IEngineStoreMaker.providedBy(maker):
        return
    if settings.durability != Settings().durability:
        raise BadSetting(
            f"--durability {settings.durability}: the engine behind the store"
            f" {settings.store} decides how durable values are: leave this out"
        )
    if settings.modes != DEFAULT_MODES:
        raise BadSetting(
            f"--file-mode and --folder-mode: the store {settings.store} creates no"
            " files: leave them out"
        )


def choose_first_shadow(
    settings: Settings, chosen: ChosenPolicy
) -> ChosenPolicy | None:
    """
    The shadow policy of the settings, if they name one.

    Args:
        settings: All settings.
        chosen: The policy in force.

    Raises:
        OperatorError: It cannot be used.
    """
    if settings.shadow is None:
        return None
    if not settings.procs:
        raise BadSetting(
            f"--shadow {settings.shadow} needs workers to choose among, and --procs 0"
            " has none: leave one of the two out"
        )
    return choose_shadow(settings.shadow, chosen)
